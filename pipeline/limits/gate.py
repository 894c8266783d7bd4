"""Decides how many calls may be in flight, and whether any may leave at all.

States, one at a time, the highest rank first:
    stopped       for good: every waiter gets the reason
    paused        by a person's order, until they resume
    held          until a time: a 429's Retry-After, a daily limit
    outage        calls fail for everyone: one probe at a time, with backoff, ends it
    ramping       after the start or an outage: the window grows with answers
    open          up to `concurrency` in flight

All methods but the asynchronous ones return at once. `wait` serves one waiter: admission passes one call at a time.
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
#: Failures this soon after an outage's end continue it while the window is ramping; after that, in the first second.
SETTLE_S = 10.0
#: If all of a few records fail, each may be at fault: after an outage this long they are charged, and the run ends.
FEW_PATIENCE_S = 600.0
#: A record is to blame for its failures if this many others were answered since they began, or as many as are failing
#: if those are fewer. One lucky answer during an outage blames nobody.
BLAME_ANSWERS = 10
#: The first call of a run goes alone, so a wrong key costs one call, not a full window. If it is silent for this
#: long, a few more follow. Worth 11 used, 13 refused.
ALONE_S = 1.0
#: The same if the server caches the beginning of prompts: calls that leave before it is read pay for it again.
WARM_UP_S = 15.0

NOT_HELD = Hold(float("-inf"), "")


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which calls failed for everyone. Times are on the run's clock; `until` is None while it lasts.

    An outage that begins again before it has settled is the same one, so it may contain answers. It last began at
    `shut_at`.
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
        # Mutable state.
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
        """The current outage; None: there is none."""
        return self._outages[-1] if self._outages and self._outages[-1].until is None else None

    @property
    def outages(self) -> list[Outage]:
        """The outages that have ended."""
        return [outage for outage in self._outages if outage.until is not None]

    @property
    def state(self) -> str:
        """The current state, by its name in the list above."""
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
        """Return when a call has ended or anything else has changed. Serves one waiter, like `wait`."""
        self._changed.clear()
        if self._stopped is None:
            await self._changed.wait()

    def enter(self, now: float) -> None:
        """Note that a call leaves."""
        self.in_flight += 1
        if self.outage is not None:
            # A silent probe must not keep the gate shut: the next one may follow after the longest wait.
            self._opens_at = now + self.probe_max_s

    def leave(self) -> None:
        """Note that a call has ended."""
        self.in_flight -= 1
        self.wake()

    def on_answer_queued(self) -> None:
        """Note that an answer waits to be written. It keeps its place, so a kill costs at most `concurrency`."""
        self.unwritten += 1

    def on_answers_written(self, count: int) -> None:
        """Note that this many answers are in the ledger."""
        self.unwritten -= count
        self.wake()

    def wake(self) -> None:
        """Let the waiter check again."""
        self._changed.set()

    def _delay_s(self, now: float) -> float:
        """Return the seconds until the next check; 0 if open; infinity if only an event can open it."""
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
        """Return the delay of a ramping window. It also grows with time, so that one silent call stops nobody."""
        if self._opens_at is None:
            self._opens_at = now + (ALONE_S if self.answers else self._alone_s)
        if now < self._opens_at:
            return self._opens_at - now
        self._window *= 4
        self._opens_at = now + PROBE_FIRST_S  # after such a silence the key is not wrong: faster
        return self._place_delay_s(now)

    # -- what the answers say ------------------------------------------------------------------------------------

    def on_answer(self, now: float, sent_at: float | None = None) -> None:
        """Note an answer: nothing is wrong for everyone. `sent_at` is when the call left; None: just now."""
        self.answers += 1
        if self._evidence:
            self._evidence.clear()
        if self._window < self.concurrency:
            # The first answer of a run opens the window fully; after an outage it doubles with each round.
            first = self.last_success_at == float("-inf")
            self._window = self.concurrency if first else self._window + 1
        self.last_success_at = now
        self.passed_at = max(self.passed_at, now if sent_at is None else sent_at)
        self._is_up(now, sent_at)
        self.wake()

    def on_health_check(self, now: float, sent_at: float) -> None:
        """Note that a health check sent at `sent_at` was answered: nothing is wrong for everyone."""
        self.passed_at = max(self.passed_at, sent_at)
        self._evidence.clear()
        if self.outage is not None:
            self._end_outage(now)

    def set_hold(self, until: float, reason: str, *, then_one: bool = False) -> None:
        """Let nothing leave before `until`. An end before the current one changes nothing.

        `then_one`: after it one call goes first, as at the start.
        """
        if until > self.current_hold.until:
            self.current_hold = Hold(until, reason, then_one)

    def set_paused(self, paused: bool) -> None:
        """Let nothing leave, by a person's order; or resume."""
        self.paused = paused
        self.wake()

    def set_concurrency(self, concurrency: int) -> None:
        """Set another limit of calls in flight. The window opens with it, unless it is still ramping."""
        if self._window >= self.concurrency:
            self._window = float(max(concurrency, self._window))
        self.concurrency = concurrency
        self.wake()

    def set_probe_max(self, seconds: float) -> None:
        """Set another longest wait between two probes."""
        self.probe_max_s = seconds

    def release_hold(self) -> None:
        """End the hold, because the limit behind it has changed."""
        self.current_hold = NOT_HELD
        self.wake()

    def shrink(self) -> None:
        """Halve the calls in flight, because more were refused than answered lately. Answers open the window again."""
        if self.outage is None:
            self._window, self._opens_at = max(1.0, min(self._window, self.in_flight) // 2), None

    def on_refusal(self, now: float, sent_at: float | None = None) -> None:
        """Note a 429, or a 400 about one record: the server is up, and nothing more is known."""
        self._is_up(now, sent_at)

    def is_settling(self, now: float) -> bool:
        """Whether failures would continue the last outage: it ended recently, or nothing was answered since."""
        last = self._outages[-1] if self._outages else None
        if last is None or last.until is None:
            return False
        if self.passed_at < last.since:
            return True  # a 429 ended it
        return now - last.until < (SETTLE_S if self._window < self.concurrency else ALONE_S)

    def _is_up(self, now: float, sent_at: float | None) -> None:
        """Note that the server is up. It may have served a call that left before the outage while others fail.

        So such a call only brings the next probe forward: a true end is seen as soon as that is answered.
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
        """Note a failure that may be the provider's. Return whether it is this record's own.

        `answers_before` is what `answers` was when the first failed call of this record was sent; `failing` is how many
        other records are failing too; `others` is how many others are in work. A record is to blame if enough others
        were answered since then. Unexplained failures are evidence: enough of them from different records in a row make
        an outage.
        """
        if self.outage is not None:
            self._on_probe_failure(self.outage, sent_at, now)
            return others + 1 < EVIDENCE and now - self.outage.shut_at > FEW_PATIENCE_S
        if self._outages and sent_at < (self._outages[-1].until or now):
            return False  # it left during the outage that is over: nobody is to blame, and nothing is wrong now
        if self.blames(answers_before, failing):
            return True
        self._evidence.add(key)
        if self._is_enough(self._evidence, others):
            self._begin_outage(reason, now)
        return False

    def is_doubtful(self, key: str, others: int) -> bool:
        """Whether calls fail for everyone, or do after one more failure of this record; `others` as in `on_failure`."""
        return self.outage is not None or self._is_enough(self._evidence | {key}, others)

    @staticmethod
    def _is_enough(evidence: set[str], others: int) -> bool:
        return len(evidence) >= max(2, min(EVIDENCE, others + 1))

    def blames(self, answers_before: int, failing: int) -> bool:
        """Whether a record's failures are its own, because enough others were answered since they began."""
        return self.answers - answers_before >= max(1, min(failing, BLAME_ANSWERS))

    def _begin_outage(self, reason: str, now: float) -> None:
        again = self._outages.pop() if self.is_settling(now) else None
        self._outages.append(replace(again or Outage(now, reason), until=None, shut_at=now))
        # Also if it begins again: its first probe must not wait as long as the last one before.
        self._opens_at = now + min(PROBE_FIRST_S, self.probe_max_s)

    def _on_probe_failure(self, outage: Outage, sent_at: float, now: float) -> None:
        """Double the wait for the next probe. A call that left before the outage was known is no probe."""
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
        """Why the gate is shut for good, or None."""
        return self._stopped
