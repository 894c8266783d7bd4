"""Requests or tokens a minute, evenly spread: asyncio-throttle's log of stamps, cut in short slices and steered.

`asyncio_throttle.Throttler` lets `rate_limit` acquisitions through in any `period`, and a waiter polls. Used plainly
(a period of a minute) a whole window leaves in one burst; with a slice of a few milliseconds the polling loses most of
the rate. So here a slice is one acquisition that stands for 10 ms of the rate, one waiter polls (the door in
`admission` sees to that), and the period is shortened by what the polling lost, so that the long-run rate is met.
"""

from __future__ import annotations

import asyncio
import math

from asyncio_throttle.throttler import Throttler

#: Length of a slice where the rate gives at least one unit to each. What is in one slice leaves at once, and a server
#: that counts a second to the call refuses all of it that is too much: so it is short, at least five looks.
SLICE_S = 0.01
#: How often the one waiter looks; that takes 2 to 3 % of a core.
POLL_S = 0.002
#: The share of a limit that is aimed at. The rest absorbs jitter on the way: servers count arrivals, not departures.
#: Worth 64 used, 29 refused.
HEADROOM = 0.99
#: Time lost to polling or a busy loop is caught up, at once but only this much of it. Idle time beyond it is forgotten,
#: so that a pause is never followed by a burst; pauses that are known are taken out to the last moment (`skip`).
CATCH_UP_S = 0.25


class Meter:
    """Grants units at `per_minute`, smoothly. None: no limit. One waiter at a time."""

    def __init__(self, per_minute: float | None) -> None:
        self._throttler = Throttler(rate_limit=1, period=1.0, retry_interval=POLL_S)
        # All state that changes: the rate (0: no limit; infinite: none any more), what was granted and not used, and
        # the moment at which the next grant is due on the line that it is steered along.
        self._per_s = 0.0
        self._credit = 0.0
        self._due_at: float | None = None
        self.set_limit(per_minute)

    @property
    def is_limited(self) -> bool:
        """Whether anything has to be waited for."""
        return 0 < self._per_s < math.inf

    @property
    def _quantum(self) -> float:
        """What a slice grants: a call, or as much as 10 ms give."""
        return max(1.0, self._per_s * SLICE_S)

    def set_limit(self, per_minute: float | None) -> None:
        """Take over another limit at once, for whoever waits too; what was granted already still counts.

        A rate that is so near to the one before stays: to begin anew would cost more than it gives.
        """
        per_s = 0.0 if per_minute is None else per_minute * HEADROOM / 60
        if self._per_s < math.inf and abs(per_s - self._per_s) > 0.005 * self._per_s:
            self._set(per_s)

    def release(self) -> None:
        """Let whoever waits go at once: the run is stopping, and nothing is sent any more."""
        self._set(math.inf)

    def _set(self, per_s: float) -> None:
        self._per_s, self._due_at = per_s, None
        if not self.is_limited:
            self._credit = 0.0  # nothing is owed to a limit that is gone
        self._throttler.period = self._quantum / per_s if self.is_limited else 0.0

    async def acquire(self, units: float = 1.0) -> None:
        """Wait until `units` may go. More than a slice holds is paid off over several slices."""
        if not self.is_limited:
            return
        self._credit -= units
        try:
            while self._credit < 0 and self.is_limited:
                self._steer(self._quantum / self._per_s, asyncio.get_running_loop().time())
                await self._throttler.acquire()  # type: ignore[no-untyped-call]
                self._grant()
        except asyncio.CancelledError:
            self._credit += units
            raise

    def _steer(self, seconds: float, now: float) -> None:
        """Shorten the period of a slice by what was lost against the straight line of the rate."""
        self._due_at = now if self._due_at is None else max(self._due_at, now - CATCH_UP_S)
        self._throttler.period = max(seconds / 8, seconds - max(0.0, now - self._due_at))

    def _grant(self) -> None:
        """A slice was given; by the limit that is in force by now."""
        if not self.is_limited:
            return
        if self._due_at is not None:  # else another limit came meanwhile, and counts from now on
            self._due_at += self._quantum / self._per_s
        self._credit += self._quantum

    def skip(self, pause_s: float) -> None:
        """For so long nothing could have left anyway (the gate was shut): no time was lost, none is caught up.

        A server that counts a second to the call would refuse the burst, and its wait would bring on the next one.
        Worth 20 used, 20 refused.
        """
        if self._due_at is not None:
            self._due_at += pause_s

    def refund(self, units: float) -> None:
        """Give back what was estimated too much (negative: take what was estimated too little)."""
        if self.is_limited:
            # At most a second's worth is kept: a refund must not become a burst.
            self._credit = min(self._credit + units, self._per_s)
