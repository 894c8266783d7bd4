"""How many calls may be under way, and whether any may leave at all.

States, one at a time, in this order of rank:
    stopped       for good: every waiter gets the reason
    paused        by somebody's order, until they say go on
    held          until a moment: a 429's Retry-After, the day's limit
    outage        calls fail for everyone: one probe at a time, with backoff, opens it
    ramping       after the start or an outage: the window grows with answers
    open          up to `concurrency` in flight

All methods but `wait` are synchronous and take no time. `wait` serves one waiter (the door is a lock).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.errors import StoppedError
from pipeline.limits.resource import Hold

#: Distinct records that must fail in a row, with no answer between, before it is an outage. Worth 19 refused.
EVIDENCE = 5
PROBE_FIRST_S = 0.5
#: What begins so soon after an outage's end, while the window is ramping, goes on with it; later in the first second.
SETTLE_S = 10.0
#: So few records that all fail may each be at fault: after so long an outage they are charged for it, and the run ends.
FEW_PATIENCE_S = 600.0
#: A record is to blame for its failures when so many others were answered since they began, or as many as are failing
#: where those are fewer. One lucky answer in the middle of an outage blames nobody.
BLAME_ANSWERS = 10
#: The first call of a run goes alone (a wrong key costs one call, not a windowful); if it is silent for this long,
#: a few more follow. Worth 11 used, 13 refused.
ALONE_S = 1.0
#: The same where the server keeps the prompts' beginning: those that leave before it is read pay for it once more.
WARM_UP_S = 15.0

NOT_HELD = Hold(float("-inf"), "")


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which calls failed for everyone. Times are the run's clock; `until` is None while it lasts.

    What begins again before it has settled is the same one, so there may be answers in it: it last began at `shut_at`.
    """

    since: float
    reason: str
    probes: int = 0
    until: float | None = None
    shut_at: float = 0.0


class Gate:
    """Counts calls in flight and lets the next one through."""

    def __init__(self, concurrency: int, *, probe_max_s: float = 4.0, alone_s: float = ALONE_S) -> None:
        self.concurrency = concurrency
        self.probe_max_s = probe_max_s
        self._alone_s = alone_s
        # All state that changes.
        self.in_flight = 0
        self.unwritten = 0
        self._outages: list[Outage] = []
        self.answers = 0
        self.last_success_at = float("-inf")
        self.passed_at = float("-inf")
        self.current_hold = NOT_HELD
        self.paused = False
        self._window = 1.0
        self._opens_at: float | None = None
        self._evidence: set[str] = set()
        self._stopped: Exception | None = None
        self._stop_event = asyncio.Event()
        self._at_stop: list[Callable[[], None]] = []
        self._at_calm: list[Callable[[], None]] = []
        self._changed = asyncio.Event()

    @property
    def outage(self) -> Outage | None:
        """The outage that lasts; None: there is none."""
        return self._outages[-1] if self._outages and self._outages[-1].until is None else None

    @property
    def outages(self) -> list[Outage]:
        """Those that have ended."""
        return [outage for outage in self._outages if outage.until is not None]

    @property
    def state(self) -> str:
        """The state it is in, by the words of the list above."""
        is_held = asyncio.get_running_loop().time() < self.current_hold.until
        known = {"stopped": self._stopped is not None, "paused": self.paused, "held": is_held}
        known |= {"outage": self.outage is not None, "ramping": self._window < self.concurrency}
        return next((state for state, is_so in known.items() if is_so), "open")

    # -- passing -------------------------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Return when one more call may leave. Raises StoppedError once the run is stopping."""
        loop = asyncio.get_running_loop()
        while (delay_s := self._delay_s(loop.time())) > 0:
            self._changed.clear()
            timer = None if delay_s == float("inf") else loop.call_later(delay_s, self.wake)
            try:
                await self._changed.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def is_open(self, now: float) -> bool:
        """Whether one more call may leave now. Raises StoppedError once the run is stopping."""
        return self._delay_s(now) <= 0

    async def changed(self) -> None:
        """Return when a call has ended, or anything else has changed. One waiter, as for `wait`."""
        self._changed.clear()
        if self._stopped is None:
            await self._changed.wait()

    def enter(self, now: float) -> None:
        """A call leaves."""
        self.in_flight += 1
        if self.outage is not None:
            # A probe that stays silent must not keep the gate shut: the next one may follow after the longest wait.
            self._opens_at = now + self.probe_max_s

    def leave(self) -> None:
        """A call ended, however."""
        self.in_flight -= 1
        self.wake()

    def on_answer_queued(self) -> None:
        """An answer waits to be written. Until then it keeps its place, so a kill costs no more than `concurrency`."""
        self.unwritten += 1

    def on_answers_written(self, count: int) -> None:
        """So many answers are in the ledger."""
        self.unwritten -= count
        self.wake()

    def wake(self) -> None:
        """Let the waiter look again."""
        self._changed.set()

    def _delay_s(self, now: float) -> float:
        """Seconds to wait before looking again; 0 when open; infinite when only an event can open it."""
        if self._stopped is not None:
            raise StoppedError(str(self._stopped)) from self._stopped
        if self.paused:
            return float("inf")
        if now < self.current_hold.until:
            return self.current_hold.until - now
        if self.outage is not None:
            return float("inf") if self.in_flight >= self.concurrency else max(0.0, (self._opens_at or now) - now)
        if self.current_hold.then_one:
            self.current_hold = replace(self.current_hold, then_one=False)
            self._window, self._opens_at = 1.0, None
        return self._place_delay_s(now)

    def _place_delay_s(self, now: float) -> float:
        if self.in_flight < self._window and self.in_flight + self.unwritten < self.concurrency:
            return 0.0
        if self._window >= self.concurrency:
            return float("inf")
        return self._ramp_delay_s(now)

    def _ramp_delay_s(self, now: float) -> float:
        """While the first answers are awaited the window grows by time too, so that one silent call stops nobody."""
        if self._opens_at is None:
            self._opens_at = now + (ALONE_S if self.answers else self._alone_s)
        if now < self._opens_at:
            return self._opens_at - now
        self._window *= 4
        self._opens_at = now + PROBE_FIRST_S  # after that silence it is no wrong key: faster
        return self._place_delay_s(now)

    # -- what the answers say ------------------------------------------------------------------------------------

    def on_answer(self, now: float, sent_at: float | None = None) -> None:
        """The model answered: nothing is wrong for everyone. `sent_at` is when the call left; None: just now."""
        self.answers += 1
        if self._evidence:
            self._evidence.clear()
        if self._window < self.concurrency:
            # The first answer of a run opens it wide; after an outage the window doubles with each round.
            first = self.last_success_at == float("-inf")
            self._window = self.concurrency if first else self._window + 1
        self.last_success_at = now
        self.passed_at = max(self.passed_at, now if sent_at is None else sent_at)
        self._is_up(now, sent_at)
        self.wake()

    def on_health_check(self, now: float, sent_at: float) -> None:
        """A health check was answered, which left at `sent_at`: nothing is wrong for everyone."""
        self.passed_at = max(self.passed_at, sent_at)
        self._evidence.clear()
        if self.outage is not None:
            self._end_outage(now)

    def set_hold(self, until: float, reason: str, *, then_one: bool = False) -> None:
        """Nothing leaves before `until`. An earlier end than one already set changes nothing.

        `then_one`: after it one call goes first, as at the start.
        """
        if until > self.current_hold.until:
            self.current_hold = Hold(until, reason, then_one)

    def set_paused(self, paused: bool) -> None:
        """Let nothing leave, by somebody's order; or go on."""
        self.paused = paused
        self.wake()

    def set_concurrency(self, concurrency: int) -> None:
        """Take over another limit of calls in flight. The window opens with it, unless it is still ramping."""
        if self._window >= self.concurrency:
            self._window = float(max(concurrency, self._window))
        self.concurrency = concurrency
        self.wake()

    def set_probe_max(self, seconds: float) -> None:
        """Take over another longest wait between two probes."""
        self.probe_max_s = seconds

    def release_hold(self) -> None:
        """Forget the time until which nothing leaves: the limit behind it has changed."""
        self.current_hold = NOT_HELD
        self.wake()

    def shrink(self) -> None:
        """More was refused than answered of late: half of what is in flight, then more with each answer."""
        if self.outage is None:
            self._window, self._opens_at = max(1.0, min(self._window, self.in_flight) // 2), None

    def on_refusal(self, now: float, sent_at: float | None = None) -> None:
        """A 429, or a 400 about one record: the server is up, and nothing more is known."""
        self._is_up(now, sent_at)

    def is_settling(self, now: float) -> bool:
        """Whether failures would be the last outage going on: it is over so lately, or nothing was answered since."""
        last = self._outages[-1] if self._outages else None
        if last is None or last.until is None:
            return False
        if self.passed_at < last.since:
            return True  # a 429 ended it
        return now - last.until < (SETTLE_S if self._window < self.concurrency else ALONE_S)

    def _is_up(self, now: float, sent_at: float | None) -> None:
        """Somebody is there. A call that left before the outage may have been served before it, while others fail.

        So it only brings the next probe forward: a true end is seen as soon as that is answered.
        """
        if self.outage is None:
            return
        if sent_at is None or sent_at > self.outage.shut_at:
            self._end_outage(now)
        else:
            self._opens_at = min(self._opens_at or now, now + min(PROBE_FIRST_S, self.probe_max_s))
            self.wake()

    def on_failure(
        self, key: str, *, sent_at: float, answers_before: int, failing: int, others: int, reason: str, now: float
    ) -> bool:
        """A call failed in a way that may be the provider's. True: it is this record's own failure.

        `answers_before` is what `answers` was when the first failed call of this record was sent; `failing` is how many
        other records are failing too; `others` is how many are being worked on. A record is to blame when enough
        others were answered since then. Failures that nothing explains are evidence: enough of them from different
        records in a row make an outage.
        """
        if self.outage is not None:
            self._on_probe_failure(self.outage, sent_at, now)
            return others + 1 < EVIDENCE and now - self.outage.shut_at > FEW_PATIENCE_S
        if self._outages and sent_at < (self._outages[-1].until or now):
            return False  # it left in the outage that is over: nobody is to blame, and nothing is wrong now
        if self.blames(answers_before, failing):
            return True
        self._evidence.add(key)
        if self._is_enough(self._evidence, others):
            self._begin_outage(reason, now)
        return False

    def is_doubtful(self, key: str, others: int) -> bool:
        """Whether calls fail for everyone, or do with one more failure, of this record; `others` as for `failed`."""
        return self.outage is not None or self._is_enough(self._evidence | {key}, others)

    @staticmethod
    def _is_enough(evidence: set[str], others: int) -> bool:
        return len(evidence) >= max(2, min(EVIDENCE, others + 1))

    def blames(self, answers_before: int, failing: int) -> bool:
        """Whether enough others were answered since a record's failures began that they are its own."""
        return self.answers - answers_before >= max(1, min(failing, BLAME_ANSWERS))

    def _begin_outage(self, reason: str, now: float) -> None:
        again = self._outages.pop() if self.is_settling(now) else None
        self._outages.append(replace(again or Outage(now, reason), until=None, shut_at=now))
        # Also where it begins again: its first probe is not to wait as long as the last one before did.
        self._opens_at = now + min(PROBE_FIRST_S, self.probe_max_s)

    def _on_probe_failure(self, outage: Outage, sent_at: float, now: float) -> None:
        """The wait for the next one doubles; one that left before the outage was known is none."""
        if sent_at > outage.shut_at:
            self._outages[-1] = replace(outage, probes=outage.probes + 1)
            self._opens_at = now + min(PROBE_FIRST_S * 2.0 ** min(outage.probes + 1, 20), self.probe_max_s)
            self.wake()

    def _end_outage(self, now: float) -> None:
        self._outages[-1] = replace(self._outages[-1], until=now)
        self._evidence.clear()
        self._window, self._opens_at = 2.0, None
        for act in self._at_calm:
            act()
        self.wake()

    # -- the end -------------------------------------------------------------------------------------------------

    def stop(self, reason: Exception) -> None:
        """Shut for good. The first reason stays."""
        if self._stopped is None:
            self._stopped = reason
        self._stop_event.set()
        for act in self._at_stop:
            act()
        self.wake()

    def at_calm(self, act: Callable[[], None]) -> None:
        """Call `act` when an outage has ended, and when the gate is shut for good."""
        self._at_calm.append(act)
        self._at_stop.append(act)

    def at_stop(self, act: Callable[[], None]) -> None:
        """Call `act` when the gate is shut for good."""
        self._at_stop.append(act)

    async def pause(self, seconds: float) -> None:
        """Sleep, but not past a stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop_event.wait(), seconds)

    @property
    def stopped(self) -> Exception | None:
        """Why it is shut for good, or None."""
        return self._stopped
