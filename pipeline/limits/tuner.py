"""How many calls in flight serve best, found while they run: `concurrency = "auto"`. Arithmetic only.

    ramp    doubled each window while that brings more; one doubling that brings nothing is looked behind
    hold    the base stays, and is measured
    trial   a little more or less, for as many windows as it takes to know
    after   back at the base: a small trial is judged against the base before and after it, so that a server that got
            slower by itself is not taken for an answer; a clear failure needs no such care

A trial up stays where throughput follows it, a trial down where throughput does not (less in flight then does the same
with shorter waits). What lies between is left alone. Trials that bring nothing get smaller, then rarer. A latency that
changes at the base is looked at without waiting.
"""

from __future__ import annotations

import enum
import math
from collections import deque

from pipeline.limits.latency import Level, Window, changed, doubt, follows, pooled

#: A window has at least this many answers (and half of the limit), and lasts this many typical latencies.
ANSWERS_LEAST, WINDOW_LATENCIES = 16, 2.0
#: After a change of the limit, answers are not looked at for so many typical latencies: they belong to both.
SETTLE_LATENCIES = 1.5
#: With less of the limit in flight than this, something else is the bottleneck: the window says nothing. A limit that
#: binds less than this is left as it is: room for what varies.
IN_USE, BINDS = 0.75, 0.9
#: Ramp: what a doubling must bring, and how little it may lose to be looked behind.
DOUBLING_GAIN, LOOK_BEHIND = 1.15, 0.9
#: Trials: the share of a step in which throughput must follow it up, or may follow it down.
FOLLOWS_UP, FOLLOWS_DOWN = 0.6, 0.25
#: Steps as shares of the base. Up to the first one they are small: judged against the base before and after.
STEP_FIRST, STEP_LEAST, STEP_DOWN_MOST = 0.25, 0.08, 0.5
#: The standard error of a trial as a share of its step, and the windows of a trial and of the base before it.
ERROR_SHARE, TRIAL_WINDOWS, BASE_WINDOWS = 0.16, 20, 8
#: Typical latencies between trials: first, and after many that brought nothing; and never more than so many seconds.
PAUSE_FIRST, PAUSE_MOST, PAUSE_MOST_S = 6.0, 64.0, 600.0
#: A latency that is another by this factor has a reason, if it is by so many standard errors.
JUMP, SIGMAS = 1.3, 4.0
#: A wide trial ends where its result is so many standard errors from what it has to reach.
SIGMAS_WIDE = 2.0
#: Shares of a window's calls: so many refusals end what is tried, so many cut the base, and so many timeouts do either.
REFUSED_TRIAL, REFUSED_BASE, TIMED_OUT = 0.02, 0.05, 0.1
#: One is chance; and what remains of a base that is cut.
NOISE_LEAST, CUT_TO = 2, 0.75


class Phase(enum.Enum):
    """What the limit is there for now."""

    #: doubling
    RAMP = "ramp"
    #: at the base
    HOLD = "hold"
    #: beside the base
    TRIAL = "trial"
    #: at the base again, to judge the trial
    AFTER = "after"


class Tuner:
    """The limit of calls in flight, between `lowest` and `highest`. `now` is seconds of any clock that only goes on.

    `timeout_s` is how long a call may take: where latency already grows, it is not driven towards that.
    """

    def __init__(self, *, lowest: int, highest: int, start: int = 8, timeout_s: float = math.inf) -> None:
        self._lowest, self._highest = lowest, max(lowest, highest)
        self._timeout_s = timeout_s
        # All state that changes: the limit, what it is for, and the windows that are looked at,
        self.phase = Phase.RAMP
        self.windows = 0
        self._limit = self._base = self._bounded(start)
        self._window: Window | None = None
        self._changed_at = float("-inf")
        self._latency_s = 1.0
        self._elsewhere = False
        # the ramp: the best level so far, and whether a doubling brought nothing,
        self._best: Level | None = None
        self._missed = False
        # the trials: what is known of the base and of the trial, where the next one goes, and when.
        self._known: deque[Level] = deque(maxlen=BASE_WINDOWS + TRIAL_WINDOWS)
        self._trial: list[Level] = []
        self._step = STEP_FIRST
        self._up = True
        self._failed: set[bool] = set()
        self._pause = PAUSE_FIRST
        self._next_trial_at = 0.0
        self._jumped_by: float | None = None

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return self._limit

    @property
    def settled(self) -> bool:
        """Whether the ramp is over, and neither more nor less was better at first sight."""
        return self.phase is not Phase.RAMP and self._step < STEP_FIRST

    def found(self) -> str:
        """What was found, as lines for the config."""
        if self._elsewhere:
            why = 'found by "auto"; more was never in flight: something else is the limit, the rate for one'
        elif self._base == self._highest:
            why = 'found by "auto"; it is limits.concurrency_max, more may serve better'
        elif self.settled:
            why = 'found by "auto"'
        else:
            why = 'as far as "auto" came; the run was too short for it to settle'
        return f"[limits]\nconcurrency = {self._base}  # {why}"

    # -- what happens --------------------------------------------------------------------------------------------

    def answered(self, latency_s: float, now: float, in_flight: int) -> None:
        """An answer came; `in_flight` counts its call too."""
        window = self._window or self._open(now)
        if now < window.began_at:
            return
        window.latencies.append(latency_s)
        window.in_flight += in_flight
        if len(window.latencies) >= window.need and now >= window.check_at:
            self._look(window, now)

    def refused(self, now: float, waited_s: float = 0.0) -> None:
        """A 429 came, `waited_s` after its call was sent."""
        window = self._window or self._open(now)
        if self._is_old(window, now, waited_s):
            return
        window.refused += 1
        share = REFUSED_TRIAL if self._limit > self._base else REFUSED_BASE
        if window.refused >= self._tolerated(window, share):
            self._overloaded(window, now)

    def timed_out(self, now: float, waited_s: float = 0.0) -> None:
        """No answer came in time, `waited_s` after the call was sent."""
        window = self._window or self._open(now)
        if self._is_old(window, now, waited_s):
            return
        window.timed_out += 1
        if window.timed_out >= self._tolerated(window, TIMED_OUT):
            self._overloaded(window, now)

    def _is_old(self, window: Window, now: float, waited_s: float) -> bool:
        """Whether the call left under another limit, or the base was cut just now: one cut a window."""
        return now - waited_s < self._changed_at or (now < window.began_at and self._limit <= self._base)

    def _tolerated(self, window: Window, share: float) -> float:
        expected = WINDOW_LATENCIES * self._limit
        return max(NOISE_LEAST, share * max(expected, len(window.latencies)))

    # -- windows -------------------------------------------------------------------------------------------------

    def _open(self, began_at: float) -> Window:
        self._window = Window(began_at, max(ANSWERS_LEAST, math.ceil(self._limit / 2)))
        return self._window

    def _go(self, limit: int, phase: Phase, now: float) -> None:
        """Go to a limit, and look at it once it is settled."""
        self.phase = phase
        if limit != self._limit:
            self._limit, self._changed_at = limit, now
            now += SETTLE_LATENCIES * self._latency_s
        self._open(now)

    def _look(self, window: Window, now: float) -> None:
        level = window.level()
        ends_at = window.began_at + WINDOW_LATENCIES * level.latency_s
        if now < ends_at:
            window.check_at = ends_at
            return
        self.windows += 1
        self._latency_s = level.latency_s
        if level.in_flight < IN_USE * self._limit:
            self._not_in_use(now)
        else:
            self._judge(level, now)

    def _judge(self, level: Level, now: float) -> None:
        if self.phase is Phase.RAMP:
            self._ramp(level, now)
        elif self.phase is Phase.TRIAL:
            self._try(level, now)
        elif self._known and self._jumped_by is None and self._is_jump(level):
            # This window saw both: the next one is the new base.
            self._jumped_by = level.latency_s / pooled(self._known).latency_s
            self._known.clear()
            self._go(self._base, Phase.HOLD, now)
        else:
            self._known.append(level)
            self._at_base(now)

    def _is_jump(self, level: Level) -> bool:
        return changed(pooled(self._known), level, factor=JUMP, sigmas=SIGMAS)

    def _not_in_use(self, now: float) -> None:
        """Something else is the bottleneck: nothing grows, and nothing is learned."""
        self._elsewhere = True
        if self._limit > self._base:
            self._fail(now)
        elif self.phase is Phase.RAMP:
            self._open(now)
        else:
            self._known.clear()
            self._go(self._base, Phase.HOLD, now)

    # -- the ramp ------------------------------------------------------------------------------------------------

    def _ramp(self, level: Level, now: float) -> None:
        best = self._best
        if best is None or level.throughput >= DOUBLING_GAIN * best.throughput:
            self._best, self._base, self._missed, self._elsewhere = level, self._limit, False, False
        elif self._missed or not self._may_look_behind(level, best):
            self._end_ramp(now)
            return
        else:
            self._missed = True
        if self._limit >= self._highest:
            self._end_ramp(now)
        else:
            self._go(self._bounded(2 * self._limit), Phase.RAMP, now)

    def _may_look_behind(self, level: Level, best: Level) -> bool:
        """Servers that work in batches stand still and then rise again; but what falls is left."""
        return level.throughput >= LOOK_BEHIND * best.throughput and 4 * level.latency_s <= self._timeout_s

    def _end_ramp(self, now: float) -> None:
        self._next_trial_at = now
        self._go(self._base, Phase.HOLD, now)

    # -- the base ------------------------------------------------------------------------------------------------

    def _at_base(self, now: float) -> None:
        known = pooled(self._known)
        if self.phase is Phase.AFTER:
            if known.error <= ERROR_SHARE * self._step or len(self._known) >= len(self._trial) + BASE_WINDOWS:
                self._decide(now)
            else:
                self._open(now)
        elif self._jumped_by is not None:
            self._answer_jump(self._jumped_by, now)
        elif now >= self._next_trial_at and self._is_ready(known):
            self._begin_trial(now)
        else:
            self._open(now)

    def _is_ready(self, known: Level) -> bool:
        sure = len(self._known) >= BASE_WINDOWS or known.error <= ERROR_SHARE * self._step
        return sure and known.in_flight >= BINDS * self._base

    def _answer_jump(self, factor: float, now: float) -> None:
        """Latency changed at the base: try less where it rose, more where it fell, and by as much."""
        self._jumped_by = None
        self._up = factor < 1
        self._step = STEP_FIRST if self._up else min(STEP_DOWN_MOST, max(STEP_FIRST, 1 - 1 / factor))
        self._failed.clear()
        self._pause = PAUSE_FIRST
        self._begin_trial(now)

    # -- trials --------------------------------------------------------------------------------------------------

    def _begin_trial(self, now: float) -> None:
        self._trial = []
        for up in (self._up, not self._up):
            limit = self._stepped(up)
            if limit != self._base and up not in self._failed:
                self._up = up
                self._go(limit, Phase.TRIAL, now)
                return
        self._failed = {True, False}
        self._next(now)

    def _stepped(self, up: bool) -> int:
        if up:
            return self._bounded(max(self._base + 1, round(self._base * (1 + self._step))))
        return self._bounded(min(self._base - 1, round(self._base * (1 - self._step))))

    def _try(self, level: Level, now: float) -> None:
        self._trial.append(level)
        if self._up and not self._is_used(pooled(self._trial)):
            self._leave_room(now)
            return
        trial, wide = pooled(self._trial), self._step > STEP_FIRST
        ahead, margin = self._ahead(), doubt(pooled(self._known), trial)
        if ahead < -SIGMAS * margin or (wide and abs(ahead) > SIGMAS_WIDE * margin):
            self._decide(now)
        elif trial.error > ERROR_SHARE * min(self._step, STEP_FIRST) and len(self._trial) < TRIAL_WINDOWS:
            self._open(now)
        elif wide:
            self._decide(now)
        else:
            self._go(self._base, Phase.AFTER, now)

    def _is_used(self, trial: Level) -> bool:
        """Whether at least half of what the trial allows more was in flight."""
        return trial.in_flight / pooled(self._known).in_flight - 1 >= (self._limit / self._base - 1) / 2

    def _leave_room(self, now: float) -> None:
        """Something else binds, but nearly: stay here, so that the limit does not clip it where it varies."""
        self._elsewhere = True
        self._base = self._limit
        self._known.clear()
        self._known.extend(self._trial)
        self._fail(now)

    def _ahead(self) -> float:
        """How far the trial is beyond what it has to reach; below 0 where it does not."""
        followed = follows(pooled(self._known), pooled(self._trial))
        return followed - FOLLOWS_UP if self._up else FOLLOWS_DOWN - followed

    def _decide(self, now: float) -> None:
        if self._ahead() > 0:
            self._succeed(now)
        else:
            self._fail(now)

    def _succeed(self, now: float) -> None:
        """The base moves, and the next step, twice as wide, follows at once."""
        self._base = self._stepped(self._up)
        self._known.clear()
        self._known.extend(self._trial)
        self._failed = {not self._up}
        self._pause = PAUSE_FIRST
        self._elsewhere = False
        self._step = min(2 * self._step, 1.0 if self._up else STEP_DOWN_MOST)
        self._begin_trial(now)

    def _fail(self, now: float) -> None:
        self._failed.add(self._up)
        self._step = min(self._step, STEP_FIRST)
        self._next(now)

    def _next(self, now: float) -> None:
        """Back at the base; the other direction is next, and after both a smaller step, and then a longer pause."""
        self._up = not self._up
        if len(self._failed) == 2:
            self._failed.clear()
            least = self._least_step()
            if self._step > least:
                self._step = max(self._step / 2, least)
            else:
                self._pause = min(2 * self._pause, PAUSE_MOST)
        self._next_trial_at = now + min(self._pause * self._latency_s, PAUSE_MOST_S)
        self._go(self._base, Phase.HOLD, now)

    def _least_step(self) -> float:
        """The smallest step whose effect can be told from chance in a trial of full length."""
        if not self._known:
            return self._step
        answers = TRIAL_WINDOWS * WINDOW_LATENCIES * self._base
        return min(max(STEP_LEAST, pooled(self._known).scatter / math.sqrt(answers) / ERROR_SHARE), STEP_FIRST)

    # -- too much ------------------------------------------------------------------------------------------------

    def _overloaded(self, window: Window, now: float) -> None:
        """The server says or shows that it is too much: back to the base, or, if that was it, to a part of it."""
        if self._limit > self._base:
            self._fail(now)
            return
        seen = len(window.latencies)
        if window.in_flight < IN_USE * self._limit * seen:
            self._open(now)  # not the calls in flight, but their rate: the meters see to that
            return
        self._start_over(self._bounded(math.floor(CUT_TO * self._base)), now)

    def _start_over(self, base: int, now: float) -> None:
        """Measure and try anew around another base."""
        self._base = base
        self._jumped_by = None
        self._known.clear()
        self._failed.clear()
        self._step, self._pause, self._up = STEP_FIRST, PAUSE_FIRST, True
        self._next_trial_at = now + self._pause * self._latency_s
        self._go(base, Phase.HOLD, now)
        # Also where the limit was there already, for a trial: one cut a window.
        self._changed_at = now
        self._open(now + SETTLE_LATENCIES * self._latency_s)

    def _bounded(self, limit: int) -> int:
        return min(max(limit, self._lowest), self._highest)
