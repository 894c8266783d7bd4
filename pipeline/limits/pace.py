"""The limit that really holds: the config's, cut by what the server's headers and refusals teach. Arithmetic only.

The config is a cap that is never passed. A server that says less (`x-ratelimit-limit-*`) is believed at once. A server
that only refuses (429) is learned: when more than a few of the latest calls were refused, the rate falls to what was
accepted of late; then it grows with the answers, slowly at first. Single refusals among many answers cut nothing: they
are noise, and their Retry-After is obeyed anyway. Of what a server says it gives, other users of the key get theirs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from itertools import takewhile

from pipeline.limits.company import Company

#: How much is remembered: so many steps of a second in which something came back. At low rates that is longer.
STEPS = 20
#: Fewer refusals than these are noise.
NOISE_COUNT, NOISE_SHARE = 3, 0.015
#: The accepted rate is measured over at least so many answers and seconds.
MEASURE_ANSWERS, MEASURE_S = 6, 2.0
#: Or, of what was sent since the refusals began, over at least this many answers, seconds, and times what the server
#: asked to wait. They begin anew after so long without any.
SINCE_ANSWERS, SINCE_S, SINCE_WAITS, SINCE_GAP_S, SINCE_MOST = 25, 0.5, 3.0, 3.0, 1000
#: The share of the accepted rate that is aimed at after a cut; the deepest cut at once, soon after another cut, and of
#: a rate that was only guessed.
CUT_TO, DEEPEST_CUT, GENTLE_CUT, GUESS_CUT = 0.98, 0.5, 0.85, 0.2
#: For so long and so many answers after a cut the rate grows slowly, and a further cut is gentle.
NEAR_S, NEAR_ANSWERS = 30.0, 300
#: Growth a second and, at most, an answer: at a low rate each refusal weighs more, so it has to come more rarely.
GROW_NEAR, GROW_FAR, GROW_GUESS = (0.003, 0.0005), (0.02, 0.01), (0.2, 0.02)
#: A told limit that falls below this share of the one before may be a slip: so many answers in a row have to say it.
SLIP_SHARE, SLIP_ANSWERS = 0.25, 3
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


class _Since:
    """What was accepted of the calls that were sent since refusals began. What was there in store is gone by then."""

    __slots__ = ("_accepted", "_latency_s", "at", "refused_at", "wait_s")

    def __init__(self, now: float) -> None:
        self.at = self.refused_at = now
        self.wait_s = self._latency_s = 0.0
        self._accepted: deque[tuple[float, float]] = deque(maxlen=SINCE_MOST)

    def accept(self, units: float, now: float, sent_at: float) -> None:
        """An answer came."""
        if sent_at >= self.at:
            self._accepted.append((sent_at, units))
            self._latency_s = max(self._latency_s, now - sent_at)

    def refuse(self, now: float, wait_s: float) -> None:
        """One more."""
        self.refused_at = now
        self.wait_s = max(self.wait_s, wait_s)

    def per_minute(self, now: float) -> float | None:
        """The rate of what was sent so long ago that its answers are there; None while too little is known."""
        until = now - self._latency_s
        known = [units for sent_at, units in self._accepted if sent_at <= until]
        if len(known) < SINCE_ANSWERS or until - self.at < max(SINCE_S, SINCE_WAITS * self.wait_s):
            return None
        return sum(known) / (until - self.at) * 60


class Pace:
    """Units a minute that may be sent now; None while nothing limits. `now` is the run's clock in seconds."""

    def __init__(self, configured: float | None) -> None:
        self._configured = configured
        # All state that changes.
        self._told: float | None = None
        self._slips = 0
        self._learned: float | None = None
        self._company = Company()
        self._steps: deque[_Step] = deque(maxlen=STEPS)
        self._is_guess = False
        self._guessed_at = float("-inf")
        self._guess_refused = self._guess_answered = 0
        self._since: _Since | None = None
        self._cut_at = float("-inf")
        self._answers_since_cut = 0
        self._grown_at = 0.0

    @property
    def per_minute(self) -> float | None:
        """The limit in force."""
        ours = None if self._told is None else self._told * self._company.share
        return _least(self._configured, ours, self._learned)

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

    def tell(
        self, limit: int | None, reset_s: float | None, left: int | None = None, *, latency_s: float = 0.0
    ) -> None:
        """Take over what the headers of an answer say. Limits a day are none of this meter's."""
        if limit is None or limit <= 0 or (reset_s is not None and reset_s > MINUTE_RESET_S):
            return
        if self._told is not None and limit < SLIP_SHARE * self._told and self._slips < SLIP_ANSWERS - 1:
            self._slips += 1
            return
        self._told, self._slips = float(limit), 0
        if left is not None and reset_s is not None:
            self._company.seen(self._told, left, reset_s, latency_s)

    def accept(self, units: float, now: float, sent_at: float | None = None) -> None:
        """An answer came: `units` passed the server's limit."""
        if self._since is not None:
            self._since.accept(units, now, now if sent_at is None else sent_at)
        step = self._step(now)
        step.units += units
        step.answers += 1
        self._guess_answered += sent_at is not None and sent_at >= self._guessed_at
        self._company.used(units, now)
        if self._learned is not None:
            self._grow(self._learned, now)

    def refuse(self, now: float, sent_at: float, wait_s: float = 0.0) -> None:
        """A 429 came. Those of calls that were sent before the last cut are its reason once more, and not counted."""
        if sent_at <= self._cut_at:
            return
        if self._since is None or now - self._since.refused_at > SINCE_GAP_S + self._since.wait_s:
            self._since = _Since(now)
        self._since.refuse(now, wait_s)
        self._step(now).refused += 1
        refused = sum(step.refused for step in self._steps)
        noise = NOISE_SHARE * (refused + sum(step.answers for step in self._steps))
        if refused >= NOISE_COUNT and refused > noise + math.sqrt(noise):
            self._cut(now)
            if self.per_minute is None:
                self._guess(now)
        if self._is_guess and sent_at >= self._guessed_at:
            self._guess_lower(now)

    def _guess(self, now: float) -> None:
        """No limit is known, but there is one: until it is measured, half of what was accepted, evenly.

        Else all that wait would leave at once after each moment of waiting.
        """
        seconds = now - self._steps[0].since
        if seconds > 0 and (passed := _per_minute(self._steps, seconds)):
            self._is_guess, self._grown_at = True, now
            self._since = None  # what follows is another rate
            self._take_guess(DEEPEST_CUT * passed, now)

    def _guess_lower(self, now: float) -> None:
        """Of what was sent since the last guess more is refused than answered: what is in store was counted too."""
        self._guess_refused += 1
        enough = self._guess_answered > 0 and self._guess_refused >= max(NOISE_COUNT, self._guess_answered)
        if enough and self._learned is not None:
            self._take_guess(DEEPEST_CUT * self._learned, now)
            self._steps.clear()  # what was in store is in them

    def _take_guess(self, per_minute: float, now: float) -> None:
        self._learned = max(1.0, per_minute)
        self._guessed_at, self._guess_refused, self._guess_answered = now, 0, 0

    def _step(self, now: float) -> _Step:
        if not self._steps or now - self._steps[-1].since >= 1.0:
            self._steps.append(_Step(now))
        return self._steps[-1]

    def _cut(self, now: float) -> None:
        steps = self._measured(now)
        answers = sum(step.answers for step in steps)
        since = None if self._since is None or not answers else self._since.per_minute(now)
        if since is None and (answers < MEASURE_ANSWERS or now - steps[-1].since < MEASURE_S):
            return
        refused = sum(step.refused for step in steps)
        accepted = since or _per_minute(steps, now - steps[-1].since)
        if since is None and (self._is_guess or self.per_minute is None):
            # A window that was used up in a burst: of late little was sent, and no limit says how little is too little.
            accepted = max(accepted, _per_minute(self._steps, now - self._steps[0].since))
        current = self.per_minute or accepted * (answers + refused) / answers
        deepest = GENTLE_CUT if self._is_near(now) and refused < 2 * answers else DEEPEST_CUT
        if self._is_guess:
            self._cut_to(max(accepted, GUESS_CUT * current), now)
        else:
            self._cut_to(min(max(accepted, deepest / CUT_TO * current), current), now)

    def _cut_to(self, per_minute: float, now: float) -> None:
        self._learned = max(1.0, CUT_TO * per_minute)
        self._since, self._is_guess = None, False
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
        near = GROW_NEAR if self._is_near(now) else GROW_FAR
        a_second, an_answer = GROW_GUESS if self._is_guess else near
        grown = learned * (1 + min(a_second * passed_s, an_answer))
        cap = _least(self._configured, self._told)
        # Without a cap a limit that was not met for long is forgotten when it is out of reach.
        self._learned = None if grown >= (cap or 1e9) else grown


def _per_minute(steps: Iterable[_Step], seconds: float) -> float:
    return sum(step.units for step in steps) / seconds * 60


def _least(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
