"""The limit that really holds: the config's, cut by what the server's headers and refusals teach. Arithmetic only.

The config is a cap that is never passed. A server that says less (`x-ratelimit-limit-*`) is believed at once. A server
that only refuses is learned by one law:

    measure   once more is refused than by chance, of the calls that were sent since, those that passed: what was in
              store is used up by then, so that is the rate that the server gives (delivery rate, as BBR has it)
    cut       to a little less than that
    grow      by time since the cut: soon back at the rate, slowly past it, then ever faster (as CUBIC)
    judge     below a limit nothing is refused any more. Where as much is refused as before, the cut did not help: it is
              taken back, and that share of refusals is known to come whatever the rate (baseline refusals)
"""

from __future__ import annotations

import math

from pipeline.limits.other_clients import OtherClients
from pipeline.units import MINUTE_RESET_S

#: Fewer refusals than these, or a smaller share, are chance.
CHANCE_COUNT, CHANCE_SHARE, CHANCE_DEVIATIONS = 4, 0.015, 1.5
#: A rate is measured over at least so many calls that passed, so many times as many once it is known, and over so many
#: seconds and times that a refusal takes to come back.
PASSED, AGAIN, MEASURE_S, MEASURE_LAGS = 10, 3, 0.5, 3.0
#: An episode of refusals ends after so many seconds and calls without one.
QUIET_S, QUIET_CALLS = 3.0, 50
#: The share of the measured rate that is aimed at, the deepest cut of a rate that was found before, and the cut where
#: nothing can be measured yet.
CUT_TO, GENTLE_CUT, HALF = 0.98, 0.9, 0.5
#: Growth: back at the measured rate after so long, where each answer counts for so long at most; a second, of a guess.
BACK_S, ANSWER_S, GROW_GUESS = 15.0, 0.15, 0.2
#: A cut is judged by so many refusals, or by as many calls as should have brought so many. It has helped when the share
#: is below this part of the one before. A larger share than the last one is a limit, whatever the cuts show.
JUDGE_REFUSED, JUDGE_EXPECTED, HELPED, MOST_SHARE = 5, 10, 0.6, 0.35
#: What was found is half forgotten after so long: the next cut tests it again.
HALF_LIFE_S = 300.0
#: A told limit that falls below this share of the one before may be a slip: so many answers in a row have to say it.
SLIP_SHARE, SLIP_ANSWERS = 0.25, 3
#: What a call uses follows by this weight.
UNITS_WEIGHT = 0.05


class _Span:
    """The calls that were sent since a moment, and how many of these were refused."""

    __slots__ = ("at", "early", "held_until", "lag_s", "passed", "quiet", "rate", "refused", "seconds", "sent")

    def __init__(self, at: float, rate: float | None = None) -> None:
        self.at = self.held_until = at
        self.rate = rate
        # All state that changes.
        self.sent = self.refused = self.early = self.quiet = 0
        self.lag_s = self.seconds = 0.0
        self.passed = 0

    def refuse(self, now: float, sent_at: float, wait_s: float) -> None:
        """One more; it counts where its call was sent since."""
        passed = self.sent - self.refused - 1
        if now > self.held_until and sent_at >= self.at and passed > self.passed:
            self.passed, self.seconds = passed, now - self.at
        self.held_until = max(self.held_until, now + wait_s)
        self.quiet = 0
        self.lag_s = max(self.lag_s, now - sent_at)
        if sent_at >= self.at:
            self.refused += 1
        else:
            self.early += 1

    @property
    def share(self) -> float:
        """The share that was refused."""
        return self.refused / max(1, self.sent)

    @property
    def least_share(self) -> float:
        """The same, less what may be chance: an episode begins where by chance more is refused."""
        return (self.refused - CHANCE_DEVIATIONS * math.sqrt(self.refused)) / max(1, self.sent)

    def passed_per_s(self, enough: int) -> float | None:
        """Calls a second that were sent and not refused: a refusal comes soon, an answer may take long.

        It is taken when refusals begin again after a wait, as they had when the span began: so whole turns of a server
        that counts windows are seen. None while that is too few, or too short.
        """
        if self.passed < enough or self.seconds < max(MEASURE_S, MEASURE_LAGS * self.lag_s):
            return None
        return self.passed / self.seconds


class Pace:
    """Units a minute that may be sent now; None while nothing limits. `now` is the run's clock in seconds."""

    def __init__(self, configured: float | None) -> None:
        # All state that changes: what is said,
        self._configured = configured
        self._told: float | None = None
        self._slips = 0
        self._others = OtherClients()
        # what is learned: the rate in force, the one that was measured, and how far it has grown since,
        self._rate: float | None = None
        self._met: float | None = None
        self._changed_at = self._grown_at = float("-inf")
        self._grown_s = 0.0
        # what is under way: since refusals began, since the rate changed, and before that,
        self._episode: _Span | None = None
        self._since = _Span(0.0)
        self._before: _Span | None = None
        self._origin: float | None = None
        # and what is known of calls: refused whatever the rate, units of each, how many a second.
        self._baseline = 0.0
        self._baseline_at = 0.0
        self._units = 0.0
        self._answers = 0

    @property
    def per_minute(self) -> float | None:
        """The limit in force."""
        ours = None if self._told is None else self._told * self._others.share
        return _least(self._configured, ours, self._rate)

    @property
    def configured(self) -> float | None:
        """What the config says; None without a limit."""
        return self._configured

    @property
    def learned(self) -> float | None:
        """The limit of the server as far as it is known: what it says, or what passed when it was met; None if neither.

        Other clients' share of it, and what a rate has grown to since, are no part of that.
        """
        return self._told or self._met

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
            self._others.seen(self._told, left, reset_s, latency_s)

    def send(self, now: float) -> None:
        """A call leaves."""
        self._since.sent += 1
        if self._episode is not None:
            self._episode.sent += 1
            self._episode.quiet += 1

    def accept(self, units: float, now: float, sent_at: float | None = None) -> None:
        """An answer came: `units` passed the server's limit."""
        if not self._units:
            self._units, self._since = units, _Span(now)
        self._units += UNITS_WEIGHT * (units - self._units)
        self._answers += 1
        self._others.used(units, now)
        self._judge_less(now)
        if self._rate is not None:
            self._grow(self._rate, now)

    def refuse(self, now: float, sent_at: float, wait_s: float = 0.0) -> bool:
        """A 429 came. True: such come whatever the rate, so it says nothing to other calls."""
        if self._is_old(sent_at):
            return False
        self._since.refuse(now, sent_at, wait_s)
        if self._is_unhelped(now):
            return True
        if self._episode is None or self._is_over(self._episode, now):
            self._episode = _Span(now, self.per_minute)
        self._episode.refuse(now, sent_at, wait_s)
        if not self._is_much(self._episode, now):
            return self.baseline(now) > 0
        if not self._is_judging:
            self._cut(self._episode, now)
        return False

    def _is_old(self, sent_at: float) -> bool:
        """Whether the call was sent before the last cut: it is the cut's reason once more."""
        return self._met is not None and sent_at <= self._changed_at

    @staticmethod
    def _is_over(episode: _Span, now: float) -> bool:
        return now - episode.held_until > QUIET_S and episode.quiet > QUIET_CALLS

    @property
    def _is_judging(self) -> bool:
        """Whether it is still open if the last cut has helped: another one would tell less."""
        return self._before is not None and self.per_minute is not None

    def baseline(self, now: float) -> float:
        """The share of calls that is refused whatever the rate; 0 where none is known."""
        share: float = self._baseline * 0.5 ** ((now - self._baseline_at) / HALF_LIFE_S)
        return share if share >= CHANCE_SHARE / 3 else 0.0

    # -- the law -------------------------------------------------------------------------------------------------

    def _is_much(self, episode: _Span, now: float) -> bool:
        """Whether more is refused than by chance; without a limit also of the calls that were in flight."""
        baseline = self.baseline(now)
        refused, sent = episode.refused, episode.sent
        if self.per_minute is None and not baseline:
            refused, sent = refused + episode.early, sent + episode.early
        chance = (CHANCE_SHARE + baseline) * sent
        return refused >= CHANCE_COUNT and refused > chance + (2 if baseline else 1) * math.sqrt(chance)

    def _cut(self, episode: _Span, now: float) -> None:
        """To a little less than what passes. The second time that has to be known better, unless much is refused."""
        is_known = self._met is not None and episode.share < MOST_SHARE
        per_s = episode.passed_per_s(AGAIN * PASSED if is_known else PASSED)
        if per_s is None:
            self._guess(now)
            return
        self._episode = None
        measured = per_s * self._units * 60 / (1 - self.baseline(now))
        floor = 0.0
        if self._met is not None and episode.rate is not None and episode.rate > self._met:
            # It has grown past the rate that was found, and passed until now. A small bucket refuses every second call
            # of a rate that is only a little too high, so that less passes than could.
            floor = GENTLE_CUT * episode.rate
        if self.per_minute is None or max(measured, floor) < self.per_minute:
            self._judge_by(episode if measured >= floor else None)
            self._met, self._grown_s = max(measured, floor), 0.0
            self._change(CUT_TO * self._met, now)

    def _guess(self, now: float) -> None:
        """Nothing is measured yet: half of what was answered so far, and half of that while half is refused.

        Else all that wait would leave at once after each moment of waiting.
        """
        since = self._since
        if not self._answers:
            return  # refused for hours, and nothing was learned
        if self.per_minute is None and now > since.at:
            self._change(HALF * self._answers * self._units / (now - since.at) * 60, now)
        elif self._met is None and self._rate is not None and since.refused >= max(CHANCE_COUNT - 1, HALF * since.sent):
            self._change(HALF * self._rate, now)

    def _judge_by(self, episode: _Span | None) -> None:
        """The rate falls: does that help? Not asked where so much is refused that it is a limit in any case."""
        if self._before is None:
            self._origin = self._rate
        self._before = episode if episode is not None and episode.least_share <= MOST_SHARE else None

    def _change(self, rate: float, now: float) -> None:
        self._rate = max(1.0, rate)
        self._changed_at = self._grown_at = now
        self._since, self._answers = _Span(now), 0

    def _judge_less(self, now: float) -> None:
        """The cut has helped where far less is refused since."""
        before, since = self._before, self._since
        if before is None or since.share >= HELPED * before.least_share:
            return
        if since.sent * before.least_share >= JUDGE_EXPECTED:
            self._baseline, self._baseline_at = min(self.baseline(now), since.share), now
            self._before = None

    def _is_unhelped(self, now: float) -> bool:
        """The cut did not help: it is taken back."""
        before, since = self._before, self._since
        if before is None or since.refused < JUDGE_REFUSED or since.share < HELPED * before.least_share:
            return False
        self._before = None
        share = (before.refused + since.refused) / max(1, before.sent + since.sent)
        if share > MOST_SHARE:
            return False
        self._baseline, self._baseline_at = share, now
        self._rate, self._met, self._episode = self._origin, None, None
        self._changed_at = self._grown_at = now
        return True

    def _grow(self, rate: float, now: float) -> None:
        """With each answer; so neither while the gate is shut nor in an outage."""
        passed_s, self._grown_at = min(now - self._grown_at, ANSWER_S), now
        if self._met is None:
            rate *= 1 + GROW_GUESS * passed_s
        else:
            self._grown_s += passed_s
            rate = self._met * (1 + (1 - CUT_TO) * (self._grown_s / BACK_S - 1) ** 5)
        cap = _least(self._configured, self._told)
        # Without a cap a limit that was not met for long is forgotten when it is out of reach.
        self._rate = None if rate >= (cap or 1e9) else rate
        if self._rate is None:
            self._met = None


def _least(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
