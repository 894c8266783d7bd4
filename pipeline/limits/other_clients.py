"""Other users of the same key, seen in what the server says is left: `x-ratelimit-remaining-*`. Arithmetic only.

A bucket that is refilled steadily shows itself: what is left, and what comes back until `reset`, make the same sum each
time. Where it runs low, ever less is taken, so that what is left settles where all users together use the rate. Two
that do so share it evenly. Of a limit that counts a window nothing is concluded: that costs 1.2 refused.

A server is believed only after it once said that enough is left. One that always says the same teaches nothing.
"""

from __future__ import annotations

#: Where less than this share of a bucket is left, less is taken. What is always taken is the same share of the limit:
#: who pushes all others out is met by refusals, as a lower limit is.
RESERVE_SHARE = 0.1
#: A bucket's size may vary by such a share, and by so many units: headers are rounded, and resets too.
SIZE_VARIES, SIZE_UNITS = 0.15, 2.0


class OtherClients:
    """What share of one limit may be used, beside others: worth 11 refused."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        # All state that changes: the share; the bucket's size as it was seen first, 0 where it is none; and whether
        # the reserve was ever there.
        self.share = 1.0
        self._size: float | None = None
        self._is_believed = False

    def on_headers(self, left: float, reset_s: float) -> None:
        """An answer says what is left of the limit, and when all of it will be back."""
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
