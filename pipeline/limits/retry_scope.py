"""Tests whether the wait that a refusal asks for applies to other calls: some servers refuse single ones."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.limits.baseline import MOST_SHARE
from pipeline.units import MINUTE_RESET_S

#: A shorter wait is not worth a trial; one longer than MINUTE_RESET_S is not about a rate per minute.
LEAST_WAIT_S = 0.1
#: A trial begins at a refusal after this many answers in a row: a limit that is used up refuses more than one call.
ANSWERS_BEFORE = 5
#: A trial fails if more than MOST_SHARE of what it sent is refused, or of what was in flight when it began; of few
#: calls, more than this many. After this many calls it succeeds, and the next one begins.
MOST_OF_FEW, ENOUGH_SENT = 2, 50
#: Seconds from the beginning of a failed trial to the next one. Worth 9 used, 18 refused.
NEXT_TRIAL_S = 60.0


@dataclass(slots=True)
class _Trial:
    """The results of calls that left after a refusal and despite it, and of those in flight at that time."""

    begun_at: float
    in_flight: int
    refused_in_flight: int = 0
    sent: int = 0
    refused: int = 0

    @property
    def is_bad(self) -> bool:
        """Whether more is refused than by a server that is only busy."""
        return _is_much(self.refused, self.sent) or _is_much(self.refused_in_flight, self.in_flight)


class RetryScope:
    """Decides by refusal whether all calls wait: worth 18 used. `now` and `sent_at` are seconds of the run's clock.

    If a limit is used up, what is sent before the wait is over is refused too. If that is answered, the server is only
    busy, or asks for too much: to wait with all calls for each refusal would cost most of the time.
    """

    def __init__(self) -> None:
        # Mutable state: the last trial (one follows another while they succeed), and the answers since the last
        # refusal.
        self._trial: _Trial | None = None
        self._answers = 0

    def on_send(self, now: float, in_flight: int) -> None:
        """Note that a call leaves."""
        trial = self._trial
        if trial is not None and not trial.is_bad:
            if trial.sent >= ENOUGH_SENT:
                trial = self._trial = _Trial(now, in_flight)
            trial.sent += 1

    def on_answer(self) -> None:
        """Note an answer."""
        self._answers += 1

    def is_for_all(self, wait_s: float, sent_at: float, now: float, in_flight: int) -> bool:
        """Note a 429 that asks for this wait. Return whether all calls must wait."""
        answers, self._answers = self._answers, 0
        if not LEAST_WAIT_S <= wait_s <= MINUTE_RESET_S:
            return True
        trial = self._trial
        if trial is None or (trial.is_bad and now >= trial.begun_at + NEXT_TRIAL_S):
            self._trial = _Trial(now, in_flight) if answers >= ANSWERS_BEFORE else None
            return self._trial is None
        if sent_at > trial.begun_at:
            trial.refused += 1
        else:
            trial.refused_in_flight += 1
        return trial.is_bad


def _is_much(refused: int, calls: int) -> bool:
    return refused > max(MOST_OF_FEW, MOST_SHARE * calls)
