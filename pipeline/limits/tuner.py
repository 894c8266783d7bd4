"""Finds during a run how many calls in flight serve best: `concurrency = "auto"`. Arithmetic only.

The limit stays at a base while that is measured, then tries a little more or less. A trial up stays if throughput
follows it, a trial down if throughput does not: fewer calls in flight then do the same with shorter waits. A success
is followed at once by a trial twice as wide, so a run begins by doubling. Trials without success get smaller, then
rarer.
"""

from __future__ import annotations

import math

from pipeline.limits.latency import Level, Window, doubt, follows, pooled

#: A window has at least this many answers (and half of the limit). As many windows are enough for a trial or a base.
ENOUGH = 16
#: A window lasts this many typical latencies. The same time is left out after a change of the limit, because its
#: answers belong to both. That is worth 50 used.
WINDOW_LATENCIES = 2.0
#: If less of the limit is in flight, something else is the bottleneck, and the window shows nothing.
IN_USE = 0.75
#: A throughput that is this share of another has not fallen. At a latency of this share of the timeout, most time out.
NEARLY = 0.9
#: The share of a step that throughput must follow up, or may follow down; and the largest standard error that a trial
#: ends with.
FOLLOWS = 0.25
#: Steps as shares of the base: a doubling (down: half of that), and after a failed trial. Half of that is the smallest,
#: and worth 9 used.
STEP_WIDE, STEP_FIRST = 1.0, 0.25
#: Typical latencies between trials: at first, and after many failures. Worth 12 used.
PAUSE_FIRST, PAUSE_MOST = 6.0, 64.0
#: Values this many standard errors apart do not differ by chance.
SIGMAS = 2.0


class Tuner:
    """The limit of calls in flight, between `lowest` and `highest`. `now` is seconds of any monotonic clock.

    `timeout_s` is how long a call may take. If latency already grows, it is not driven toward that.
    """

    def __init__(self, *, lowest: int, highest: int, start: int = 8, timeout_s: float = math.inf) -> None:
        self._lowest, self._highest = lowest, max(lowest, highest)
        self._timeout_s = timeout_s
        # Mutable state: the limit, the base that it is or is tried against, the current window, and its latency;
        self.limit = self._base = self._bounded(start)
        self._window: Window | None = None
        self._latency_s = 0.0
        # what is known about the base and the trial;
        self._known: list[Level] = []
        self._trial: list[Level] = []
        # and the next trial: its step (below 0: fewer calls), the failures since a success, and when it may begin.
        self._step = STEP_WIDE
        self._failures = 0
        self._next_trial_at = -math.inf

    def on_answer(self, latency_s: float, now: float, in_flight: int) -> None:
        """Note that a call ended, with an answer or a timeout. `in_flight` includes it."""
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
        """Set the limit, and measure it once it has settled."""
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
        """Whether the base is known, and binds. Otherwise it is left as it is, with room for what varies."""
        is_known = len(self._known) >= ENOUGH or base.error <= FOLLOWS * abs(self._step)
        return is_known and base.in_flight >= NEARLY * self._base

    def _begin_trial(self, now: float) -> None:
        """Begin the next trial. Trials are worth 74 used, and those of fewer calls 11."""
        self._trial = []
        if self._stepped() == self._base and self._failures % 2 == 0:
            self._failures, self._step = self._failures + 1, -self._step
        if self._stepped() == self._base:
            self._fail(now)
        else:
            self._go(self._stepped(), now)

    def _stepped(self) -> int:
        """Return the limit of the next trial."""
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
        """Whether to try more: servers that work in batches level off, then rise; not after a fall. Worth 51 used."""
        has_not_fallen = self.limit == 2 * self._base and trial.throughput >= NEARLY * base.throughput
        return has_not_fallen and 4 * trial.latency_s <= self._timeout_s

    def _succeed(self, now: float) -> None:
        """Move the base, and begin the next trial, twice as wide, at once."""
        self._base, self._known = self.limit, self._trial
        self._failures = 1
        self._step = max(-STEP_WIDE / 2, min(2 * self._step, STEP_WIDE))
        self._begin_trial(now)

    def _fail(self, now: float) -> None:
        """Return to the base. The other direction is next; after both a smaller step, and then a longer pause."""
        self._failures += 1
        size = min(abs(self._step), STEP_FIRST) if self._failures % 2 else STEP_FIRST / 2
        self._step = math.copysign(size, -self._step)
        pause = min(PAUSE_FIRST * 2.0 ** min(max(0, self._failures // 2 - 1), 10), PAUSE_MOST)
        self._next_trial_at = now + pause * self._latency_s
        self._go(self._base, now)

    def _bounded(self, limit: int) -> int:
        return min(max(limit, self._lowest), self._highest)
