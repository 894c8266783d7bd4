"""Requests or tokens a minute, evenly spread: asyncio-throttle's log of stamps, cut in short slices and steered.

`asyncio_throttle.Throttler` lets `rate_limit` acquisitions through in any `period`, and a waiter polls. Used plainly
(a period of a minute) a whole window leaves in one burst; with a slice of a few milliseconds the polling loses most of
the rate. So here a slice is 10 ms, one waiter polls (the door in `admission` sees to that), and the period of the
throttler is shortened by what the polling lost, so that the long-run rate is met exactly.
"""

from __future__ import annotations

import asyncio
import sys

from asyncio_throttle.throttler import Throttler

#: Length of a slice where the rate gives at least two units to each. What is in one slice leaves at once, and a server
#: that counts a second to the call refuses all of it that is too much: so it is short, at least five looks.
SLICE_S = 0.01
#: How often the one waiter looks; that takes 2 to 3 % of a core.
POLL_S = 0.002
#: The share of a limit that is aimed at. The rest absorbs jitter on the way: servers count arrivals, not departures.
HEADROOM = 0.99
#: Time lost to polling or a busy loop is caught up, at once but only this much of it. Idle time beyond it is forgotten,
#: so that a pause is never followed by a burst; pauses that are known are taken out to the last moment (`skip`).
CATCH_UP_S = 0.25
#: Slots a slice for a meter of tokens: one slot stands for a quantum of them.
TOKEN_SLOTS = 2


class Meter:
    """Grants units at `per_minute`, smoothly. None: no limit. One waiter at a time."""

    def __init__(self, per_minute: float | None, *, weighted: bool = False) -> None:
        self._weighted = weighted
        # All state that changes: the limit, the throttler behind it, the credit, and the line it is steered along.
        self._per_minute: float | None = None
        self._throttler = Throttler(rate_limit=1, period=1.0, retry_interval=POLL_S)
        self._credit = 0.0
        self._started_at: float | None = None
        self._granted = 0.0
        self._released = False
        self.set_limit(per_minute)

    @property
    def per_minute(self) -> float | None:
        """The limit in force, before the headroom."""
        return self._per_minute

    def set_limit(self, per_minute: float | None) -> None:
        """Take over another limit at once, for whoever waits too; the slots already given still count."""
        if self._released or _same(per_minute, self._per_minute):
            return
        self._per_minute = per_minute
        self._started_at, self._granted = None, 0.0
        if per_minute is None:
            # Whoever waits goes at once; nothing is owed to a limit that is gone.
            self._credit = 0.0
            self._throttler.rate_limit = sys.maxsize
            return
        self._rate_per_s = per_minute * HEADROOM / 60
        slots = TOKEN_SLOTS if self._weighted else max(1, round(self._rate_per_s * SLICE_S))
        self._quantum = max(1.0, self._rate_per_s * SLICE_S / slots) if self._weighted else 1.0
        self._slice_s = slots * self._quantum / self._rate_per_s
        self._throttler.rate_limit = slots
        self._throttler.period = self._slice_s

    async def acquire(self, units: float = 1.0) -> None:
        """Wait until `units` may go. More than a slice holds is paid off over several slices."""
        if self._per_minute is None:
            return
        self._credit -= units
        try:
            while self._credit < 0 and self._per_minute is not None:
                self._steer(asyncio.get_running_loop().time())
                await self._throttler.acquire()  # type: ignore[no-untyped-call]
                if self._started_at is not None:  # else another limit came meanwhile, and counts from now on
                    self._granted += self._quantum
                self._credit += self._quantum
        except asyncio.CancelledError:
            self._credit += units
            raise

    def release(self) -> None:
        """Let whoever waits go at once: the run is stopping, and nothing is sent any more."""
        self.set_limit(None)
        self._released = True

    def skip(self, pause_s: float) -> None:
        """For so long nothing could have left anyway (the gate was shut): no time was lost, none is caught up.

        A server that counts a second to the call would refuse the burst, and its wait would bring on the next one.
        """
        if self._started_at is not None:
            self._started_at += pause_s

    def refund(self, units: float) -> None:
        """Give back what was estimated too much (negative: take what was estimated too little)."""
        if self._per_minute is None:
            return
        # At most a second's worth is kept: a refund must not become a burst.
        self._credit = min(self._credit + units, self._rate_per_s)

    def _steer(self, now: float) -> None:
        """Shorten the period by what was lost against the straight line of the rate."""
        if self._started_at is None:
            self._started_at = now
        behind_s = (now - self._started_at) - self._granted / self._rate_per_s
        if behind_s > CATCH_UP_S:
            self._started_at += behind_s - CATCH_UP_S
            behind_s = CATCH_UP_S
        self._throttler.period = max(self._slice_s / 8, self._slice_s - max(0.0, behind_s))


def _same(new: float | None, old: float | None) -> bool:
    """Equal, or so near (a rate that grows a little each second) that beginning anew would cost more than it gives."""
    if new is None or old is None:
        return new is old
    return abs(new - old) <= 0.005 * old
