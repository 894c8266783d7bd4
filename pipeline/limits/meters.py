"""Requests or tokens a minute, evenly spread: asyncio-throttle's log of stamps, cut in short slices and steered.

`asyncio_throttle.Throttler` lets `rate_limit` acquisitions through in any `period`, and a waiter polls. Used plainly
(a period of a minute) a whole window leaves in one burst; with a slice of a few milliseconds the polling loses most of
the rate. So here a slice is 10 ms, one waiter polls (the door in `admission` sees to that), and the period of the
throttler is shortened by what the polling lost, so that the long-run rate is met exactly.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from asyncio_throttle.throttler import Throttler

#: Length of a slice where the rate gives at least two units to each. What is in one slice leaves at once, and a server
#: that counts a second to the call refuses all of it that is too much: so it is short, at least five looks.
SLICE_S = 0.01
#: How often the one waiter looks; that takes 2 to 3 % of a core.
POLL_S = 0.002
#: The share of a limit that is aimed at. The rest absorbs jitter on the way: servers count arrivals, not departures.
#: Worth 64 used, 26 refused.
HEADROOM = 0.99
#: Time lost to polling or a busy loop is caught up, at once but only this much of it. Idle time beyond it is forgotten,
#: so that a pause is never followed by a burst; pauses that are known are taken out to the last moment (`skip`).
CATCH_UP_S = 0.25
#: Slots a slice for a meter of tokens: one slot stands for a quantum of them.
TOKEN_SLOTS = 2


@dataclass(frozen=True, slots=True)
class _Slice:
    """A short time in which so many slots of a quantum of units are granted, at so many units a second."""

    per_s: float
    slots: int
    quantum: float

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.slots * self.quantum / self.per_s


class Meter:
    """Grants units at `per_minute`, smoothly. None: no limit. One waiter at a time."""

    def __init__(self, per_minute: float | None, *, weighted: bool = False) -> None:
        self._weighted = weighted
        # All state that changes: the slices that the limit is cut in (None: no limit), the throttler behind it, what
        # was granted and not used, and the moment at which the next grant is due on the line that it is steered along.
        self._slice: _Slice | None = None
        self._throttler = Throttler(rate_limit=1, period=1.0, retry_interval=POLL_S)
        self._credit = 0.0
        self._due_at: float | None = None
        self._released = False
        self.set_limit(per_minute)

    @property
    def is_limited(self) -> bool:
        """Whether anything has to be waited for."""
        return self._slice is not None

    def set_limit(self, per_minute: float | None) -> None:
        """Take over another limit at once, for whoever waits too; the slots already given still count."""
        if per_minute is None and self._slice is None:
            return
        cut = None if per_minute is None else _sliced(per_minute * HEADROOM / 60, weighted=self._weighted)
        if self._released or _same(cut, self._slice):
            return
        self._slice, self._due_at = cut, None
        if cut is None:
            # Whoever waits goes at once; nothing is owed to a limit that is gone.
            self._credit = 0.0
            self._throttler.rate_limit = sys.maxsize
            return
        self._throttler.rate_limit, self._throttler.period = cut.slots, cut.seconds

    async def acquire(self, units: float = 1.0) -> None:
        """Wait until `units` may go. More than a slice holds is paid off over several slices."""
        if self._slice is None:
            return
        self._credit -= units
        try:
            while self._credit < 0 and self._slice is not None:
                self._steer(self._slice.seconds, asyncio.get_running_loop().time())
                await self._throttler.acquire()  # type: ignore[no-untyped-call]
                self._grant()
        except asyncio.CancelledError:
            self._credit += units
            raise

    def _grant(self) -> None:
        """A slot was given; by the limit that is in force by now."""
        if self._slice is None:
            return
        if self._due_at is not None:  # else another limit came meanwhile, and counts from now on
            self._due_at += self._slice.quantum / self._slice.per_s
        self._credit += self._slice.quantum

    def release(self) -> None:
        """Let whoever waits go at once: the run is stopping, and nothing is sent any more."""
        self.set_limit(None)
        self._released = True

    def skip(self, pause_s: float) -> None:
        """For so long nothing could have left anyway (the gate was shut): no time was lost, none is caught up.

        A server that counts a second to the call would refuse the burst, and its wait would bring on the next one.
        Worth 21 used.
        """
        if self._due_at is not None:
            self._due_at += pause_s

    def refund(self, units: float) -> None:
        """Give back what was estimated too much (negative: take what was estimated too little)."""
        if self._slice is None:
            return
        # At most a second's worth is kept: a refund must not become a burst.
        self._credit = min(self._credit + units, self._slice.per_s)

    def _steer(self, seconds: float, now: float) -> None:
        """Shorten the period of a slice by what was lost against the straight line of the rate."""
        self._due_at = now if self._due_at is None else max(self._due_at, now - CATCH_UP_S)
        self._throttler.period = max(seconds / 8, seconds - max(0.0, now - self._due_at))


def _sliced(per_s: float, *, weighted: bool) -> _Slice:
    """How a rate is cut: whole calls in each slice, or for tokens a few slots of many."""
    if weighted:
        return _Slice(per_s, TOKEN_SLOTS, max(1.0, per_s * SLICE_S / TOKEN_SLOTS))
    return _Slice(per_s, max(1, round(per_s * SLICE_S)), 1.0)


def _same(new: _Slice | None, old: _Slice | None) -> bool:
    """Equal, or so near (a rate that grows a little each second) that beginning anew would cost more than it gives."""
    if new is None or old is None:
        return new is old
    return abs(new.per_s - old.per_s) <= 0.005 * old.per_s
