"""The limit that really holds: the config's, cut by what the server's headers and refusals teach. Arithmetic only.

The config is a cap that is never passed. A server that says less (`x-ratelimit-limit-*`) is believed at once. A server
that only refuses (429) is learned: when more than a few of the latest calls were refused, the rate falls to what
passes; then it grows with the answers, slowly at first, until a few refusals say that it is the same rate still. Single
refusals among many answers cut nothing: they are noise, and their Retry-After is obeyed anyway. Of what a server says
it gives, other users of the key get theirs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from itertools import takewhile

from pipeline.limits.baseline import NOISE_SHARE, Baseline
from pipeline.limits.other_clients import OtherClients
from pipeline.units import MINUTE_RESET_S

#: How much is remembered: so many steps of a second in which something came back. At low rates that is longer. So many
#: calls that passed are also enough to measure what does.
STEPS = ENOUGH_PASSED = 20
#: Fewer refusals than these are noise, which is worth 67 used and 20 refused; and in fewer answers in a row a lower
#: limit may be a slip.
NOISE_COUNT = SLIP_ANSWERS = 3
#: The accepted rate is measured over at least so many answers and seconds.
MEASURE_ANSWERS, MEASURE_S = 6, 2.0
#: Or, of what was sent since the refusals began, over this many seconds and times what the server asked to wait. They
#: begin anew after as long without any as the other measurement takes.
SINCE_S, SINCE_WAITS, SINCE_MOST = 0.5, 3.0, 1000
#: The share of the accepted rate that is aimed at after a cut (worth 59 used); the deepest cut at once, soon after
#: another cut, and of a rate that was only guessed.
CUT_TO, DEEPEST_CUT, GENTLE_CUT, GUESS_CUT = 0.98, 0.5, 0.85, 0.2
#: For so long and so many answers after a cut the rate grows slowly, and a further cut is gentle.
NEAR_S, NEAR_ANSWERS = 30.0, 300
#: Growth a second and, at most, an answer: at a low rate each refusal weighs more, so it has to come more rarely.
#: So many times as much far from the last cut, and as many times that while the rate is only guessed.
GROW, GROW_MOST, FASTER = 0.002, 0.0005, 10


class _Step:
    """What came back within one second, and how many were sent since."""

    __slots__ = ("answers", "refused", "sent", "since", "units")

    def __init__(self, since: float) -> None:
        self.since = since
        self.units = 0.0
        self.answers = 0
        self.refused = 0
        self.sent = 0


class _Since:
    """How many passed of the calls that were sent since refusals began. What there was in store is gone by then.

    Those are what was sent and not refused: a refusal comes at once, an answer may take long.
    """

    __slots__ = ("_refused_sent_at", "_sent_at", "_slowest_s", "at", "refused_at", "wait_s")

    def __init__(self, now: float) -> None:
        self.at = self.refused_at = now
        self.wait_s = self._slowest_s = 0.0
        self._sent_at: deque[float] = deque(maxlen=SINCE_MOST)
        self._refused_sent_at: deque[float] = deque(maxlen=SINCE_MOST)

    def on_send(self, now: float) -> None:
        """A call leaves."""
        self._sent_at.append(now)

    def on_refusal(self, now: float, sent_at: float, wait_s: float) -> None:
        """One more."""
        self.refused_at = now
        self.wait_s = max(self.wait_s, wait_s)
        self._slowest_s = max(self._slowest_s, now - sent_at)
        if sent_at >= self.at:
            self._refused_sent_at.append(sent_at)

    def is_young(self, now: float) -> bool:
        """Refusals have only begun, and the server asks for moments."""
        return SINCE_WAITS * self.wait_s < MEASURE_S and now - self.at < MEASURE_S

    def calls_per_s(self, now: float, enough: int) -> float | None:
        """Of those that were sent so long ago that a refusal would be there; None while less than enough passed."""
        since = self.at if len(self._sent_at) < SINCE_MOST else self._sent_at[0]
        until = now - self._slowest_s
        sent = sum(sent_at <= until for sent_at in self._sent_at)
        passed = sent - sum(since <= sent_at <= until for sent_at in self._refused_sent_at)
        if passed < enough or until - since < max(SINCE_S, SINCE_WAITS * self.wait_s):
            return None
        return passed / (until - since)


class Pace:
    """Units a minute that may be sent now; None while nothing limits. `now` is the run's clock in seconds."""

    def __init__(self, configured: float | None) -> None:
        self._configured = configured
        # All state that changes.
        self._told: float | None = None
        self._slips = 0
        self._learned: float | None = None
        self._others = OtherClients()
        self._steps: deque[_Step] = deque(maxlen=STEPS)
        self._sent_first = 0
        self._since: _Since | None = None
        self._found: float | None = None
        self._met: float | None = None
        self._baseline = Baseline()
        self._cut_at = self._guessed_at = float("-inf")
        self._answers_since_cut = 0
        self._grown_at = 0.0

    @property
    def per_minute(self) -> float | None:
        """The limit in force."""
        if self._told is None and self._learned is None:
            return self._configured
        ours = None if self._told is None else self._told * self._others.share
        return _least(self._configured, ours, self._learned)

    @property
    def configured(self) -> float | None:
        """What the config says; None without a limit."""
        return self._configured

    @property
    def _is_guess(self) -> bool:
        """Whether the rate is not measured yet."""
        return self._learned is not None and self._met is None

    @property
    def learned(self) -> float | None:
        """The limit of the server as far as it is known: what it says, or what passed when it was met; None if neither.

        Other users' share of it, and what a rate has grown to since, are no part of that.
        """
        return self._told or self._met

    @property
    def is_estimate(self) -> bool:
        """Whether no header states the limit that was learned: it was estimated from refusals."""
        return self._told is None and self._met is not None

    def configure(self, limit: float | None) -> None:
        """Take over another cap from the config."""
        self._configured = limit

    def on_headers(self, limit: int | None, reset_s: float | None, left: int | None = None) -> None:
        """Take over what the headers of an answer say: worth 11 refused. Limits a day are none of this meter's.

        That a slip has to be said again is worth 97 used.
        """
        if limit is None or limit <= 0 or (reset_s is not None and reset_s > MINUTE_RESET_S):
            return
        if self._told is not None and limit < self._told and self._slips < SLIP_ANSWERS - 1:
            self._slips += 1
            return
        self._told, self._slips = float(limit), 0
        if left is not None and reset_s is not None:
            self._others.on_headers(self._told, left, reset_s)

    def on_send(self, now: float) -> None:
        """A call leaves."""
        self._baseline.on_send()
        if self._steps:
            self._steps[-1].sent += 1
        else:
            self._sent_first += 1
        if self._since is not None:
            self._since.on_send(now)

    def on_answer(self, units: float, now: float, sent_at: float | None = None) -> None:
        """An answer came: `units` passed the server's limit."""
        step = self._step(now)
        step.units += units
        step.answers += 1
        if sent_at is not None:
            self._on_return(sent_at, now, refused=False)
        self._others.on_answer(units, now)
        if self._learned is not None:
            self._grow(self._learned, now)

    def on_refusal(self, now: float, sent_at: float, wait_s: float = 0.0) -> bool:
        """A 429 came. True: such come whatever the rate, so it says nothing to other calls.

        Those of calls that were sent before the last cut are its reason once more, and not counted.
        """
        if self._on_return(sent_at, now, refused=True):
            return True
        share = self._baseline.share(now)
        return not self._is_cut(now, sent_at, wait_s, share) and share > 0

    def _on_return(self, sent_at: float, now: float, *, refused: bool) -> bool:
        """True: the last cut has not helped, and is taken back."""
        before = self._baseline.on_return(sent_at, now, refused=refused)
        if before is None:
            return False
        (self._learned,) = before
        self._cut_at = self._grown_at = now
        self._found = self._met = self._since = None  # whether there is a limit at all is open again
        self._steps.clear()
        return True

    def _is_cut(self, now: float, sent_at: float, wait_s: float, share: float) -> bool:
        """Whether the refusal is one of those that a limit makes; the rate falls when there are enough of them.

        Worth 40 used, 60 refused.
        """
        if sent_at <= self._cut_at:
            return False
        if self._since is None or now - self._since.refused_at > MEASURE_S + self._since.wait_s:
            self._since = _Since(now)
        self._since.on_refusal(now, sent_at, wait_s)
        self._step(now).refused += 1
        refused = sum(step.refused for step in self._steps)
        # A refusal comes sooner than an answer: where calls are long, few of those that were sent have come back.
        calls = sum(max(step.sent, step.refused + step.answers) for step in self._steps)
        noise = (NOISE_SHARE + share) * calls
        is_much = refused >= NOISE_COUNT and refused > noise + (2 if share else 1) * math.sqrt(noise)
        if is_much and not self._baseline.is_testing:
            self._cut(now)
            if self.per_minute is None:
                self._guess(now)
        if self._is_guess and sent_at >= self._guessed_at:
            self._guess_lower(now)
        return is_much

    def _guess(self, now: float) -> None:
        """No limit is known, but there is one: until it is measured, half of what was accepted, evenly.

        Else all that wait would leave at once after each moment of waiting. Worth 3 used, 25 refused.
        """
        seconds = now - self._steps[0].since
        if seconds > 0 and (passed := _per_minute(self._steps, seconds)):
            self._test(now)
            self._since = None  # what follows is another rate
            self._take_guess(DEEPEST_CUT * passed, now)

    def _test(self, now: float) -> None:
        """The rate falls: does that help?"""
        refused = sum(step.refused for step in self._steps)
        self._baseline.test(self._learned, refused, sum(step.sent for step in self._steps), now)

    def _guess_lower(self, now: float) -> None:
        """Since the last guess more is refused than answered: what is in store was counted too. Worth 2 refused."""
        since = [step for step in self._steps if step.since >= self._guessed_at]
        refused, sent = sum(step.refused for step in since), sum(step.sent for step in since)
        if self._learned is not None and max(2 * NOISE_COUNT, sent) <= 2 * refused and any(s.answers for s in since):
            self._take_guess(DEEPEST_CUT * self._learned, now)
            self._steps.clear()  # what was in store is in them

    def _take_guess(self, per_minute: float, now: float) -> None:
        self._learned, self._met = max(1.0, per_minute), None
        self._guessed_at = self._grown_at = now

    def _step(self, now: float) -> _Step:
        if not self._steps or now - self._steps[-1].since >= 1.0:
            self._steps.append(_Step(now))
            self._steps[-1].sent, self._sent_first = self._sent_first, 0
        return self._steps[-1]

    def _cut(self, now: float) -> None:
        steps = self._measured(now)
        answers = sum(step.answers for step in steps)
        refused = sum(step.refused for step in steps)
        exact = self._exact(now)
        is_little = answers < MEASURE_ANSWERS or now - steps[-1].since < MEASURE_S
        if exact is None and (is_little or self._is_soon_known(now)):
            return
        accepted = (exact or _per_minute(steps, now - steps[-1].since)) / (1 - self._baseline.share(now))
        if exact is None and (self._is_guess or self.per_minute is None):
            # A window that was used up in a burst: of late little was sent, and no limit says how little is too little.
            accepted = max(accepted, _per_minute(self._steps, now - self._steps[0].since))
        current = self.per_minute or exact or accepted * (answers + refused) / answers
        deepest = self._deepest(now, is_most_refused=refused >= 2 * answers) / CUT_TO * current
        if exact is not None and self._found is not None:
            deepest = min(deepest, self._found)  # it was measured twice
        is_still_guess = self._is_guess and not deepest <= accepted < current
        self._test(now)
        self._cut_to(min(max(accepted, deepest), current), now)
        if is_still_guess:
            self._met = None
        if exact is not None:
            self._found = exact

    def _exact(self, now: float) -> float | None:
        """What passes now that nothing is in store. The first time it has to be known soon, then without much noise.

        Worth 17 refused.
        """
        units = self._units_per_call(now)
        if self._since is None or units is None:
            return None
        per_s = self._since.calls_per_s(now, ENOUGH_PASSED if self._found is None else 3 * ENOUGH_PASSED)
        return None if per_s is None else per_s * units * 60

    def _units_per_call(self, now: float) -> float | None:
        """What a call uses; None if none was answered of late, for then nothing that is measured means anything."""
        if not sum(step.answers for step in self._measured(now)):
            return None
        return sum(step.units for step in self._steps) / sum(step.answers for step in self._steps)

    def _is_soon_known(self, now: float) -> bool:
        """The first such measurement is about to come. Until then steps would count what was in store.

        Worth 23 refused.
        """
        return self._found is None and self._since is not None and self._since.is_young(now)

    def _deepest(self, now: float, *, is_most_refused: bool) -> float:
        """The share of the rate that is left by a cut, whatever was accepted: worth 27 used, and if gentle 6."""
        if self._is_guess:
            return GUESS_CUT
        return GENTLE_CUT if self._is_near(now) and not is_most_refused else DEEPEST_CUT

    def _cut_to(self, per_minute: float, now: float) -> None:
        self._learned, self._met = max(1.0, CUT_TO * per_minute), per_minute
        self._since = None
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
        """Whether the last cut is fresh: then the server's limit is not far. Worth 73 used, 5 refused."""
        return self._learned is not None and (now - self._cut_at < NEAR_S or self._answers_since_cut < NEAR_ANSWERS)

    def _faster(self, now: float) -> int:
        """How many times as fast it grows: far from the last cut worth 26 used, after a guess 82."""
        if self._is_guess:
            return FASTER**2
        return 1 if self._is_near(now) else FASTER

    def _grow(self, learned: float, now: float) -> None:
        """With each answer; so neither while the gate is shut nor in an outage. Worth 81 used."""
        passed_s, self._grown_at = now - self._grown_at, now
        self._answers_since_cut += 1
        grown = learned * (1 + self._faster(now) * min(GROW * passed_s, GROW_MOST))
        cap = _least(self._configured, self._told)
        # Without a cap a limit that was not met for long is forgotten when it is out of reach.
        self._learned = None if grown >= (cap or 1e9) else grown
        if self._learned is None:
            self._found = self._met = None


def _per_minute(steps: Iterable[_Step], seconds: float) -> float:
    return sum(step.units for step in steps) / seconds * 60


def _least(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
