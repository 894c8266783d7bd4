"""How many calls in flight serve best, found while they run: `concurrency = "auto"`. Arithmetic only.

The limit stays at a base while that is measured, then tries a little more or less. A trial up stays where throughput
follows it, a trial down where throughput does not: fewer calls in flight then do the same with shorter waits. A trial
that succeeds is followed at once by one twice as wide, so a run begins by doubling. Trials that bring nothing get
smaller, then rarer.
"""

from __future__ import annotations

import math

from pipeline.limits.latency import Level, Window, doubt, follows, pooled

#: A window has at least this many answers (and half of the limit), and so many windows are enough of a trial or a base.
ENOUGH = 16
#: A window lasts this many typical latencies. As long a time is left out after a change of the limit, whose answers
#: belong to both. That is worth 50 used.
WINDOW_LATENCIES = 2.0
#: With less of the limit in flight than this, something else is the bottleneck: the window says nothing.
IN_USE = 0.75
#: A throughput that is this share of another has not fallen. A latency at this share of the timeout: most time out.
NEARLY = 0.9
#: The share of a step in which throughput must follow it up, or may follow it down; and the largest standard error that
#: a trial ends with.
FOLLOWS = 0.25
#: Steps as shares of the base: a doubling (down: half of that), and after a trial that failed; half of that is the
#: smallest, and worth 9 used.
STEP_WIDE, STEP_FIRST = 1.0, 0.25
#: Typical latencies between trials: first, and after many that brought nothing. Worth 12 used.
PAUSE_FIRST, PAUSE_MOST = 6.0, 64.0
#: What lies so many standard errors apart is not the same by chance.
SIGMAS = 2.0


class Tuner:
    """The limit of calls in flight, between `lowest` and `highest`. `now` is seconds of any clock that only goes on.

    `timeout_s` is how long a call may take: where latency already grows, it is not driven towards that.
    """

    def __init__(self, *, lowest: int, highest: int, start: int = 8, timeout_s: float = math.inf) -> None:
        self._lowest, self._highest = lowest, max(lowest, highest)
        self._timeout_s = timeout_s
        # All state that changes: the limit, the base that it is or is tried against, the window that is looked at,
        self.limit = self._base = self._bounded(start)
        self._window: Window | None = None
        self._latency_s = 0.0
        # what is known of the base and of the trial,
        self._known: list[Level] = []
        self._trial: list[Level] = []
        # and the next trial: its step, below 0 for less; how many have failed since one succeeded; when it may begin.
        self._step = STEP_WIDE
        self._failures = 0
        self._next_trial_at = -math.inf

    def on_answer(self, latency_s: float, now: float, in_flight: int) -> None:
        """A call ended, with an answer or because its time was over; `in_flight` counts it too."""
        window = self._window or self._open(now)
        if now < window.began_at:
            return
        window.answers.append((latency_s, in_flight))
        is_full = len(window.answers) >= max(ENOUGH, self.limit / 2)
        if is_full and now >= window.began_at + WINDOW_LATENCIES * self._latency_s:
            self._look(window, now)

    def _open(self, began_at: float) -> Window:
        self._window = Window(began_at)
        return self._window

    def _go(self, limit: int, now: float) -> None:
        """Go to a limit, and look at it once it is settled."""
        if limit != self.limit:
            self.limit = limit
            now += WINDOW_LATENCIES * self._latency_s
        self._open(now)

    def _look(self, window: Window, now: float) -> None:
        level = window.level()
        self._latency_s = level.latency_s
        if now < window.began_at + WINDOW_LATENCIES * self._latency_s:
            return
        self._open(now)
        is_used = level.in_flight >= IN_USE * self.limit
        if level.latency_s >= NEARLY * self._timeout_s:
            self._base, self._known = self._bounded(self.limit // 2), []
            self._go(self._base, now)
        elif self.limit != self._base:
            self._try(level, now, is_used=is_used)
        elif is_used:
            self._at_base(level, now)
        else:
            self._known = []

    def _at_base(self, level: Level, now: float) -> None:
        self._known = [*self._known, level][-ENOUGH:]
        if now >= self._next_trial_at and self._is_ready(pooled(self._known)):
            self._begin_trial(now)

    def _is_ready(self, base: Level) -> bool:
        """Whether the base is known, and binds: else it is left as it is, with room for what varies."""
        is_known = len(self._known) >= ENOUGH or base.error <= FOLLOWS * abs(self._step)
        return is_known and base.in_flight >= NEARLY * self._base

    def _begin_trial(self, now: float) -> None:
        """Trials are worth 74 used, and those of fewer calls 11."""
        self._trial = []
        if self._stepped() == self._base and self._failures % 2 == 0:
            self._failures, self._step = self._failures + 1, -self._step
        if self._stepped() == self._base:
            self._fail(now)
        else:
            self._go(self._stepped(), now)

    def _stepped(self) -> int:
        """The limit of the next trial."""
        limit = round(self._base * (1 + self._step))
        return self._bounded(max(self._base + 1, limit) if self._step > 0 else min(self._base - 1, limit))

    def _try(self, level: Level, now: float, *, is_used: bool) -> None:
        self._trial.append(level)
        base, trial = pooled(self._known), pooled(self._trial)
        followed, margin = follows(base, trial), doubt(base, trial)
        ahead = math.copysign(followed - FOLLOWS, self._step * (followed - FOLLOWS))
        is_known = trial.error <= FOLLOWS * min(abs(self._step), STEP_FIRST) or len(self._trial) >= ENOUGH
        if self._step > 0 and not is_used:
            self._fail(now)
        elif not is_known and abs(ahead) <= SIGMAS * margin:
            return
        elif ahead > 0:
            self._succeed(now)
        elif self._may_look_behind(base, trial):
            self._trial = []
            self._go(self._bounded(2 * self.limit), now)
        else:
            self._fail(now)

    def _may_look_behind(self, base: Level, trial: Level) -> bool:
        """Servers that work in batches stand still and then rise again; but what falls is left. Worth 51 used."""
        has_not_fallen = self.limit == 2 * self._base and trial.throughput >= NEARLY * base.throughput
        return has_not_fallen and 4 * trial.latency_s <= self._timeout_s

    def _succeed(self, now: float) -> None:
        """The base moves, and the next step, twice as wide, follows at once."""
        self._base, self._known = self.limit, self._trial
        self._failures = 1
        self._step = max(-STEP_WIDE / 2, min(2 * self._step, STEP_WIDE))
        self._begin_trial(now)

    def _fail(self, now: float) -> None:
        """Back at the base; the other direction is next, and after both a smaller step, and then a longer pause."""
        self._failures += 1
        size = min(abs(self._step), STEP_FIRST) if self._failures % 2 else STEP_FIRST / 2
        self._step = math.copysign(size, -self._step)
        pause = min(PAUSE_FIRST * 2.0 ** min(max(0, self._failures // 2 - 1), 10), PAUSE_MOST)
        self._next_trial_at = now + pause * self._latency_s
        self._go(self._base, now)

    def _bounded(self, limit: int) -> int:
        return min(max(limit, self._lowest), self._highest)
