"""Detects other users of a key by what the server reports as left: `x-ratelimit-remaining-*`. Arithmetic only.

With a bucket that is refilled steadily, what is left plus what comes back until `reset` is the same sum each time. If
it runs low, ever less is taken, so that what is left settles where all users together use the rate. Two that do so
share it evenly. Nothing is concluded from a limit that counts a window: that costs 1.2 refused.

A server is believed only after it once reported that enough is left. One that always reports the same teaches nothing.
"""

from __future__ import annotations

#: If less than this share of a bucket is left, less is taken. The same share of the limit is always taken: a client
#: that pushes out all others is met by refusals, as a lower limit is.
RESERVE_SHARE = 0.1
#: A bucket's size may vary by this share plus this many units: headers and resets are rounded.
SIZE_VARIES, SIZE_UNITS = 0.15, 2.0


class OtherClients:
    """The share of one limit that may be used next to others: worth 11 refused."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        # Mutable state: the share; the bucket's size when first seen, 0 if it is none; and whether more than the
        # reserve was ever left.
        self.share = 1.0
        self._size: float | None = None
        self._is_believed = False

    def on_headers(self, left: float, reset_s: float) -> None:
        """Note what is left of the limit by an answer, and when all of it will be back."""
        if not 0 <= left <= self.limit:
            return
        size = left + reset_s * self.limit / 60
        if self._size is None:
            self._size = size
        elif abs(size - self._size) > SIZE_VARIES * self._size + SIZE_UNITS:
            self._size = 0.0
        reserve = RESERVE_SHARE * self._size
        self._is_believed = self._is_believed or left > reserve
        self.share = min(1.0, max(RESERVE_SHARE, left / reserve)) if self._is_believed and reserve else 1.0
