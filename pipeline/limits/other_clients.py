"""Other users of the same key, seen in what the server says is left: `x-ratelimit-remaining-*`. Arithmetic only.

Two kinds of servers say enough. Which it is shows in `reset`, the time until all of the limit is back:

    bucket    left + what reset gives back is always the same: it is refilled steadily. Where it runs low, ever less is
              taken, so that what is left settles where all users together use the rate. Two that do so share it evenly.
    window    what is left, and what was used here within a minute, do not add up to the limit: the rest is others'

A server is believed only after it once said that enough is left; one that always says the same teaches nothing.
"""

from __future__ import annotations

import math
from collections import deque

#: Where less than this share of a limit is left, less is taken. What is always taken is the same share of the limit:
#: who pushes all others out is met by refusals, as a lower limit is. Less than it is missing of a window by chance.
RESERVE_SHARE = LEAST_SHARE = 0.1
#: A bucket's size may vary by so much, and by so many units: headers are rounded, and resets too.
BUCKET_VARIES, BUCKET_UNITS = 1.15, 2.0
#: A window's use is counted over so long.
SPAN_S = 60


class OtherClients:
    """What share of one limit may be used, beside others: worth 11 refused. `now` is the run's clock in seconds."""

    def __init__(self) -> None:
        # All state that changes: the limit that this is about, the sizes that a bucket would have had,
        self.share = 1.0
        self._limit = 0.0
        self._size_least, self._size_most = math.inf, 0.0
        self._left_most = 0.0
        # and what was used here, by the second.
        self._used: deque[tuple[int, float]] = deque()

    def on_answer(self, units: float, now: float) -> None:
        """An answer came: so much of the limit was ours."""
        second = int(now)
        if self._used and self._used[-1][0] == second:
            self._used[-1] = (second, self._used[-1][1] + units)
        else:
            self._used.append((second, units))
        while self._used[0][0] <= second - SPAN_S:
            self._used.popleft()

    def on_headers(self, limit: float, left: float, reset_s: float) -> None:
        """The same answer's headers: what is left of the limit, and when all of it will be back."""
        if not 0 <= left <= limit:
            return
        if limit != self._limit:
            self._limit, self._left_most, self.share = limit, 0.0, 1.0
            self._size_least, self._size_most = math.inf, 0.0
        size = left + reset_s * limit / 60
        self._size_least, self._size_most = min(self._size_least, size), max(self._size_most, size)
        self._left_most = max(self._left_most, left)
        is_bucket = self._size_most <= BUCKET_VARIES * self._size_least + BUCKET_UNITS
        share = self._of_reserve(left, self._size_least) if is_bucket else self._of_window(left)
        self.share = min(1.0, max(LEAST_SHARE, share))

    def _of_reserve(self, left: float, size: float) -> float:
        return left / (RESERVE_SHARE * size) if self._left_most > RESERVE_SHARE * size else 1.0

    def _of_window(self, left: float) -> float:
        others = 1.0 - (left + sum(units for _, units in self._used)) / self._limit
        if others < RESERVE_SHARE or self._left_most < self._limit / 2:
            return 1.0
        return min(1.0 - others, self._of_reserve(left, self._limit))
