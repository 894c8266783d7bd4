"""The limit that really holds: the config's, cut by what the server's headers and refusals teach. Arithmetic only.

The config is a cap that is never passed. A server that says less (`x-ratelimit-limit-*`) is believed at once. A server
that only refuses (429) is learned: when more than a few of the latest calls were refused, the rate falls to what was
accepted of late; then it grows with the answers, slowly at first. Single refusals among many answers cut nothing: they
are noise, and their Retry-After is obeyed anyway.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import takewhile

#: How much is remembered: so many steps of a second in which something came back. At low rates that is longer.
STEPS = 20
#: Fewer refusals than these are noise.
NOISE_COUNT, NOISE_SHARE = 3, 0.015
#: The accepted rate is measured over at least so many answers and seconds.
MEASURE_ANSWERS, MEASURE_S = 6, 2.0
#: The share of the accepted rate that is aimed at after a cut; the deepest cut at once; and soon after another cut.
CUT_TO, DEEPEST_CUT, GENTLE_CUT = 0.98, 0.5, 0.85
#: For so long and so many answers after a cut the rate grows slowly, and a further cut is gentle.
NEAR_S, NEAR_ANSWERS = 30.0, 300
#: Growth a second and, at most, an answer: at a low rate each refusal weighs more, so it has to come more rarely.
GROW_NEAR, GROW_FAR = (0.003, 0.0005), (0.02, 0.01)
#: A reset further away than this belongs to a limit a day.
MINUTE_RESET_S = 65.0


class _Step:
    """What came back within one second."""

    __slots__ = ("answers", "refused", "since", "units")

    def __init__(self, since: float) -> None:
        self.since = since
        self.units = 0.0
        self.answers = 0
        self.refused = 0


class Pace:
    """Units a minute that may be sent now; None while nothing limits. `now` is the run's clock in seconds."""

    def __init__(self, configured: float | None) -> None:
        self._configured = configured
        # All state that changes.
        self._told: float | None = None
        self._learned: float | None = None
        self._steps: deque[_Step] = deque(maxlen=STEPS)
        self._cut_at = float("-inf")
        self._answers_since_cut = 0
        self._grown_at = 0.0

    @property
    def per_minute(self) -> float | None:
        """The limit in force."""
        return _least(self._configured, self._told, self._learned)

    @property
    def configured(self) -> float | None:
        """What the config says; None without a limit."""
        return self._configured

    @property
    def learned(self) -> float | None:
        """What the server taught, by its headers or its refusals; None if nothing."""
        return _least(self._told, self._learned)

    def configure(self, limit: float | None) -> None:
        """Take over another cap from the config."""
        self._configured = limit

    def tell(self, limit: int | None, reset_s: float | None) -> None:
        """Take over what a header says. Limits a day are none of this meter's."""
        if limit is None or limit <= 0 or (reset_s is not None and reset_s > MINUTE_RESET_S):
            return
        self._told = float(limit)

    def accept(self, units: float, now: float) -> None:
        """An answer came: `units` passed the server's limit."""
        step = self._step(now)
        step.units += units
        step.answers += 1
        if self._learned is not None:
            self._grow(self._learned, now)

    def refuse(self, now: float, sent_at: float) -> None:
        """A 429 came. Those of calls that were sent before the last cut are its reason once more, and not counted."""
        if sent_at <= self._cut_at:
            return
        self._step(now).refused += 1
        refused = sum(step.refused for step in self._steps)
        noise = NOISE_SHARE * (refused + sum(step.answers for step in self._steps))
        if refused >= NOISE_COUNT and refused > noise + math.sqrt(noise):
            self._cut(now)

    def _step(self, now: float) -> _Step:
        if not self._steps or now - self._steps[-1].since >= 1.0:
            self._steps.append(_Step(now))
        return self._steps[-1]

    def _cut(self, now: float) -> None:
        steps = self._measured(now)
        answers = sum(step.answers for step in steps)
        if answers < MEASURE_ANSWERS or now - steps[-1].since < MEASURE_S:
            return
        refused = sum(step.refused for step in steps)
        accepted = sum(step.units for step in steps) / (now - steps[-1].since) * 60
        current = self.per_minute or accepted * (answers + refused) / answers
        deepest = GENTLE_CUT if self._is_near(now) and refused < 2 * answers else DEEPEST_CUT
        self._learned = max(1.0, min(max(CUT_TO * accepted, deepest * current), CUT_TO * current))
        self._cut_at = self._grown_at = now
        self._answers_since_cut = 0
        self._steps.clear()

    def _measured(self, now: float) -> list[_Step]:
        """The latest steps, newest first: as many as a measurement needs, no more."""
        answers = 0

        def wanted(step: _Step) -> bool:
            nonlocal answers
            before, answers = answers, answers + step.answers
            return before < MEASURE_ANSWERS or now - step.since < MEASURE_S + 1.0

        return list(takewhile(wanted, reversed(self._steps)))

    def _is_near(self, now: float) -> bool:
        """Whether the last cut is fresh: then the server's limit is not far."""
        return self._learned is not None and (now - self._cut_at < NEAR_S or self._answers_since_cut < NEAR_ANSWERS)

    def _grow(self, learned: float, now: float) -> None:
        """With each answer; so neither while the gate is shut nor in an outage."""
        passed_s, self._grown_at = now - self._grown_at, now
        self._answers_since_cut += 1
        a_second, an_answer = GROW_NEAR if self._is_near(now) else GROW_FAR
        grown = learned * (1 + min(a_second * passed_s, an_answer))
        cap = _least(self._configured, self._told)
        # Without a cap a limit that was not met for long is forgotten when it is out of reach.
        self._learned = None if grown >= (cap or 1e9) else grown


def _least(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
