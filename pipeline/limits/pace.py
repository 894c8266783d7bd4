"""Finds the limit that really holds: the config's, cut by what headers and refusals teach. Arithmetic only.

The config is a cap that is never exceeded. A server that reports less (`x-ratelimit-limit-*`) is believed at once. The
limit of a server that only refuses (429) is learned: if more than a few of the latest calls were refused, the rate
falls to what passes. Then it grows with the answers, slowly near that rate and faster beyond. A few refusals among
many answers cut nothing; their Retry-After is obeyed anyway.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from pipeline.limits.baseline import NOISE_SHARE, Baseline
from pipeline.limits.other_clients import OtherClients
from pipeline.units import MINUTE_RESET_S

#: How much is remembered: this many steps of a second in which something came back. At low rates that is longer. As
#: many calls that passed are also enough to measure what does.
STEPS = ENOUGH_PASSED = 20
#: Fewer refusals than these are noise, which is worth 67 used and 22 refused; and in fewer answers in a row a lower
#: limit may be a slip, which is worth 97 used.
NOISE_COUNT = SLIP_ANSWERS = 3
#: The accepted rate is measured over at least this many answers and seconds.
MEASURE_ANSWERS, MEASURE_S = 6, 2.0
#: Or over what was sent since the refusals began, for this many seconds and times the wait that the server asked for
#: (of at most SINCE_MOST calls). They begin again after as long without any as the other measurement takes.
SINCE_S, SINCE_WAITS, SINCE_MOST = 0.5, 3.0, 1000
#: The share of the accepted rate that is aimed at after a cut (worth 57 used); and the share that a single cut leaves
#: at least: far from the last cut, near it, and of a guessed rate.
CUT_TO, DEEPEST_CUT, GENTLE_CUT, GUESS_CUT = 0.98, 0.5, 0.85, 0.2
#: Below this many times what passed at the last cut, and for the time of this many answers after it, the rate grows
#: slowly, and a further cut is gentle.
NEAR, NEAR_ANSWERS = 1.05, 400
#: Growth per second and, at most, per answer: at a low rate each refusal weighs more, so it must come less often. This
#: many times as much far from the last cut, and that many times again while the rate is only guessed.
GROW, GROW_MOST, FASTER = 0.002, 0.0005, 10


@dataclass(slots=True)
class _Step:
    """What came back within a time, and how many calls were sent in it. Mutable state: all but `since`."""

    since: float
    units: float = 0.0
    answers: int = 0
    refused: int = 0
    sent: int = 0

    @property
    def calls(self) -> int:
        """Calls sent or returned. Refusals come before answers: of long calls, few of those sent have come back."""
        return max(self.sent, self.refused + self.answers)

    def per_minute(self, now: float) -> float:
        """Return the units per minute that were accepted."""
        return self.units / (now - self.since) * 60


class _Refusing:
    """Measures how many calls passed of those sent since refusals began. Any burst allowance is used up by then.

    Passed means sent and not refused: a refusal comes at once, an answer may take long.
    """

    def __init__(self, now: float) -> None:
        self._began_at = now
        # Mutable state: the latest refusal, the longest wait asked for, the slowest refusal, and when calls were sent.
        self.refused_at = now
        self.wait_s = self._slowest_s = 0.0
        self.sent_at: deque[float] = deque(maxlen=SINCE_MOST)
        self._refused_sent_at: deque[float] = deque(maxlen=SINCE_MOST)

    def on_refusal(self, now: float, sent_at: float, wait_s: float) -> None:
        """Note one more refusal."""
        self.refused_at = now
        self.wait_s, self._slowest_s = max(self.wait_s, wait_s), max(self._slowest_s, now - sent_at)
        if sent_at >= self._began_at:
            self._refused_sent_at.append(sent_at)

    def is_young(self, now: float) -> bool:
        """Whether refusals have only begun, and the server asks for short waits."""
        return SINCE_WAITS * self.wait_s < MEASURE_S and now - self._began_at < MEASURE_S

    def passed_per_s(self, now: float, enough: int) -> float | None:
        """Return the rate that passed, of calls old enough to be refused by now; None: too few passed so far."""
        since = self._began_at if len(self.sent_at) < SINCE_MOST else self.sent_at[0]
        until = now - self._slowest_s
        sent = sum(sent_at <= until for sent_at in self.sent_at)
        passed = sent - sum(since <= sent_at <= until for sent_at in self._refused_sent_at)
        if passed < enough or until - since < max(SINCE_S, SINCE_WAITS * self.wait_s):
            return None
        return passed / (until - since)


class Pace:
    """Units per minute that may be sent now; None while nothing limits. `now` is the run's clock in seconds.

    `configured` is the config's limit; None: no limit.
    """

    def __init__(self, configured: float | None) -> None:
        # Mutable state: the parts; the calls sent before the first step; the rate that refusals teach; what passed when
        # it was last cut (None: it is only guessed); the current refusals; and when it was last cut, guessed, and
        # grown.
        self.configured = configured
        self._limits: deque[float] = deque(maxlen=SLIP_ANSWERS)
        self._others = OtherClients(0.0)
        self._baseline = Baseline()
        self._steps: deque[_Step] = deque(maxlen=STEPS)
        self._sent_first = 0
        self._rate: float | None = None
        self._passed: float | None = None
        self._refusing: _Refusing | None = None
        self._cut_at = self._guessed_at = self._grown_at = float("-inf")

    @property
    def per_minute(self) -> float | None:
        """The limit in force."""
        limit = self._server_limit
        if limit is None and self._rate is None:
            return self.configured
        return _least(self.configured, None if limit is None else limit * self._others.share, self._rate)

    @property
    def _server_limit(self) -> float | None:
        """What the server reports. One answer that reports less may be a slip."""
        return max(self._limits) if self._limits else None

    @property
    def learned(self) -> float | None:
        """The server's limit as far as it is known: what it reports, or what passed when it was met; None if neither.

        Other users' share of it, and later growth of the rate, are not part of that.
        """
        return self._server_limit or self._passed

    @property
    def is_estimate(self) -> bool:
        """Whether the learned limit was estimated from refusals, because no header states it."""
        return not self._limits and self._passed is not None

    @property
    def _is_guess(self) -> bool:
        """Whether the rate is not measured yet."""
        return self._rate is not None and self._passed is None

    def _is_near(self, units: float, now: float) -> bool:
        """Whether the rate is near the server's limit: worth 73 used, 6 refused. `units` is what a call uses."""
        if self._rate is None or self._passed is None:
            return False
        return self._rate < NEAR * self._passed or now - self._cut_at < NEAR_ANSWERS * 60 * units / self._rate

    def on_headers(self, limit: int | None, reset_s: float | None, left: int | None = None) -> None:
        """Apply the headers of an answer: worth 11 refused. Daily limits are ignored here."""
        if limit is None or limit <= 0 or (reset_s is not None and reset_s > MINUTE_RESET_S):
            return
        self._limits.append(float(limit))
        if limit == self._server_limit and left is not None and reset_s is not None:
            if limit != self._others.limit:
                self._others = OtherClients(limit)
            self._others.on_headers(left, reset_s)

    def on_send(self, now: float) -> None:
        """Note that a call leaves."""
        self._baseline.on_send()
        if self._steps:
            self._steps[-1].sent += 1
        else:
            self._sent_first += 1
        if self._refusing is not None:
            self._refusing.sent_at.append(now)

    def on_answer(self, units: float, now: float, sent_at: float | None = None) -> None:
        """Note an answer: `units` passed the server's limit."""
        step = self._step(now)
        step.units += units
        step.answers += 1
        if sent_at is not None:
            self._on_return(sent_at, now, refused=False)
        if self._rate is not None:
            self._grow(self._rate, units, now)

    def on_refusal(self, now: float, sent_at: float, wait_s: float = 0.0) -> bool:
        """Note a 429. Return whether such come at any rate, so that it does not concern other calls."""
        if self._on_return(sent_at, now, refused=True):
            return True
        share = self._baseline.share(now)
        return not self._is_cut(now, sent_at, wait_s, share) and share > 0

    def _on_return(self, sent_at: float, now: float, *, refused: bool) -> bool:
        """Note a call that came back. Return whether it undoes a useless cut."""
        before = self._baseline.on_return(sent_at, now, refused=refused)
        if before is None:
            return False
        (self._rate,) = before
        self._cut_at = self._grown_at = now
        self._passed = self._refusing = None  # whether there is a limit at all is open again
        self._steps.clear()
        return True

    def _is_cut(self, now: float, sent_at: float, wait_s: float, share: float) -> bool:
        """Whether the refusal is one of those that a limit makes. The rate falls if there are enough of them.

        Refusals of calls that were sent before the last cut are its reason once more. Worth 40 used, 60 refused.
        """
        if sent_at <= self._cut_at:
            return False
        if self._refusing is None or now - self._refusing.refused_at > MEASURE_S + self._refusing.wait_s:
            self._refusing = _Refusing(now)
        self._refusing.on_refusal(now, sent_at, wait_s)
        self._step(now).refused += 1
        refused, noise = _sum(self._steps).refused, (NOISE_SHARE + share) * sum(step.calls for step in self._steps)
        is_much = refused >= NOISE_COUNT and refused > noise + (2 if share else 1) * math.sqrt(noise)
        if is_much and not self._baseline.is_testing:
            self._cut(now, self._refusing)
            if self.per_minute is None:
                self._guess(now)
        if self._is_guess and sent_at >= self._guessed_at:
            self._guess_lower(now)
        return is_much

    def _guess(self, now: float) -> None:
        """Guess an unknown limit: until it is measured, send half of what was accepted, evenly.

        Otherwise all waiting calls would leave at once after each short wait. Worth 7 used, 24 refused.
        """
        total = _sum(self._steps)
        if total.units and now > total.since:
            self._fall_to(DEEPEST_CUT * total.per_minute(now), None, now)
            self._guessed_at = now

    def _guess_lower(self, now: float) -> None:
        """Lower a guess after which more is refused than answered: it counted a burst allowance. Worth 14 refused."""
        steps = [step for step in self._steps if step.since >= self._guessed_at]
        total = _sum(steps)
        if self._rate is not None and max(2 * NOISE_COUNT, total.sent) <= 2 * total.refused and total.answers:
            self._rate, self._guessed_at = max(1.0, DEEPEST_CUT * self._rate), now
            self._steps.clear()  # they contain the burst allowance

    def _step(self, now: float) -> _Step:
        if not self._steps or now - self._steps[-1].since >= 1.0:
            self._steps.append(_Step(now, sent=self._sent_first))
            self._sent_first = 0
        return self._steps[-1]

    def _cut(self, now: float, refusing: _Refusing) -> None:
        latest = self._latest(now)
        exact = self._exact(refusing, latest, now)
        is_little = latest.answers < MEASURE_ANSWERS or now - latest.since < MEASURE_S
        if exact is None and (is_little or self._is_soon_known(now, refusing)):
            return
        accepted = (exact or latest.per_minute(now)) / (1 - self._baseline.share(now))
        if exact is None and (self._is_guess or self.per_minute is None):
            # A window was used up in a burst: little was sent lately, and no limit shows how little is too little.
            accepted = max(accepted, _sum(self._steps).per_minute(now))
        current = self.per_minute or exact or accepted * (latest.answers + latest.refused) / latest.answers
        deepest = self._deepest(latest, now) / CUT_TO * current
        if exact is not None and self._passed is not None:
            deepest = min(deepest, self._passed)  # it was measured twice
        is_still_guess = self._is_guess and not deepest <= accepted < current
        passed = min(max(accepted, deepest), current)
        self._fall_to(CUT_TO * passed, None if is_still_guess else passed, now)
        self._cut_at = now
        self._steps.clear()

    def _fall_to(self, rate: float, passed: float | None, now: float) -> None:
        """Lower the rate, and test whether that helps."""
        total = _sum(self._steps)
        self._baseline.test(self._rate, total.refused, total.sent, now)
        self._rate, self._passed = max(1.0, rate), passed
        self._refusing, self._grown_at = None, now

    def _exact(self, refusing: _Refusing, latest: _Step, now: float) -> float | None:
        """Return what passes without a burst allowance: the first time soon, later without much noise; None: unknown.

        Worth 5 used, 8 refused. If nothing was answered lately, it means nothing.
        """
        per_s = refusing.passed_per_s(now, ENOUGH_PASSED if self._passed is None else 3 * ENOUGH_PASSED)
        if per_s is None or not latest.answers:
            return None
        total = _sum(self._steps)
        return per_s * 60 * total.units / total.answers

    def _is_soon_known(self, now: float, refusing: _Refusing) -> bool:
        """Whether the first such measurement is about to come. Until then, steps would count the burst allowance.

        Worth 22 refused.
        """
        return self._passed is None and refusing.is_young(now)

    def _deepest(self, latest: _Step, now: float) -> float:
        """Return the share of the rate that a cut leaves at least: worth 75 used, and if gentle 3."""
        if self._is_guess:
            return GUESS_CUT
        is_most_refused = latest.refused >= 2 * latest.answers
        return DEEPEST_CUT if is_most_refused or not self._is_near(latest.units / latest.answers, now) else GENTLE_CUT

    def _latest(self, now: float) -> _Step:
        """Return the latest steps as one, only as many as a measurement needs."""
        answers = 0

        def wanted(step: _Step) -> bool:
            nonlocal answers
            before, answers = answers, answers + step.answers
            return before < MEASURE_ANSWERS or now - step.since < MEASURE_S + 1.0

        return _sum(takewhile(wanted, reversed(self._steps)))

    def _faster(self, units: float, now: float) -> int:
        """Return how many times as fast it grows: far from the last cut worth 24 used, after a guess 83."""
        if self._is_guess:
            return FASTER**2
        return 1 if self._is_near(units, now) else FASTER

    def _grow(self, rate: float, units: float, now: float) -> None:
        """Grow with each answer; so neither while the gate is shut nor in an outage. Worth 83 used."""
        passed_s, self._grown_at = now - self._grown_at, now
        grown = rate * (1 + self._faster(units, now) * min(GROW * passed_s, GROW_MOST))
        # Without a cap, a limit that was not met for long is forgotten when it is out of reach.
        if grown < (_least(self.configured, self._server_limit) or 1e9):
            self._rate = grown
        else:
            self._rate = self._passed = None


def _sum(steps: Iterable[_Step]) -> _Step:
    """Return several steps as one."""
    known = list(steps)
    since = min((step.since for step in known), default=0.0)
    units, answers = sum(step.units for step in known), sum(step.answers for step in known)
    return _Step(since, units, answers, sum(step.refused for step in known), sum(step.sent for step in known))


def _least(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
