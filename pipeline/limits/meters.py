"""Spreads requests or tokens per minute evenly: asyncio-throttle's log of timestamps, in short slices and steered.

`asyncio_throttle.Throttler` lets `rate_limit` acquisitions through in any `period`, and a waiter polls. Used plainly
(a period of a minute), a whole window leaves in one burst; with a slice of a few milliseconds, polling loses most of
the rate. So here a slice is one acquisition for 10 ms of the rate, one waiter polls (`admission` ensures that), and the
period is shortened by what polling lost, so that the long-run rate is met.
"""

from __future__ import annotations

import asyncio
import math

from asyncio_throttle.throttler import Throttler

#: Length of a slice, if the rate gives each at least one unit. A slice leaves at once, and a server that counts
#: strictly by the second refuses all that is too much, so it is short: five polls.
SLICE_S = 0.01
#: How often the one waiter polls; that takes 2 to 3 % of a core.
POLL_S = 0.002
#: The share of a limit that is aimed at. The rest absorbs jitter on the way: servers count arrivals, not departures.
#: Worth 64 used, 29 refused.
HEADROOM = 0.99
#: At most this much time that polling or a busy loop lost is caught up, at once. Idle time beyond it is forgotten, so
#: that no burst follows a pause; known pauses are excluded to the last moment (`skip`).
CATCH_UP_S = 0.25


class Meter:
    """Grants units at `per_minute`, smoothly. None: no limit. Serves one waiter at a time."""

    def __init__(self, per_minute: float | None) -> None:
        self._throttler = Throttler(rate_limit=1, period=1.0, retry_interval=POLL_S)
        # Mutable state: the rate (0: no limit; infinity: none anymore), what was granted and not used, and when the
        # next grant is due at a steady rate.
        self._per_s = 0.0
        self._credit = 0.0
        self._due_at: float | None = None
        self.set_limit(per_minute)

    @property
    def is_limited(self) -> bool:
        """Whether there is anything to wait for."""
        return 0 < self._per_s < math.inf

    @property
    def _quantum(self) -> float:
        """What a slice grants: one call, or what 10 ms give."""
        return max(1.0, self._per_s * SLICE_S)

    def set_limit(self, per_minute: float | None) -> None:
        """Set another limit at once, also for a current waiter. What was already granted still counts.

        A rate this near to the current one is ignored: starting again would cost more than it gives.
        """
        per_s = 0.0 if per_minute is None else per_minute * HEADROOM / 60
        if self._per_s < math.inf and abs(per_s - self._per_s) > 0.005 * self._per_s:
            self._set(per_s)

    def release(self) -> None:
        """Let the waiter go at once: the run is stopping, and nothing more is sent."""
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
        """Shorten the period of a slice by what was lost against the steady rate."""
        self._due_at = now if self._due_at is None else max(self._due_at, now - CATCH_UP_S)
        self._throttler.period = max(seconds / 8, seconds - max(0.0, now - self._due_at))

    def _grant(self) -> None:
        """Add a slice, by the limit now in force."""
        if not self.is_limited:
            return
        if self._due_at is not None:  # else another limit came meanwhile, and counts from now on
            self._due_at += self._quantum / self._per_s
        self._credit += self._quantum

    def skip(self, pause_s: float) -> None:
        """Exclude time in which nothing could leave anyway (the gate was shut), so that it is not caught up.

        A server that counts strictly by the second would refuse the burst, and its wait would cause the next one.
        Worth 20 used, 20 refused.
        """
        if self._due_at is not None:
            self._due_at += pause_s

    def refund(self, units: float) -> None:
        """Give back what was estimated too high (negative: take what was estimated too low)."""
        if self.is_limited:
            # At most a second's worth is kept, so that a refund does not become a burst.
            self._credit = min(self._credit + units, self._per_s)
