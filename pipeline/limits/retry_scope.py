"""Whether what a refusal asks for holds for other calls too: that is tried out, for some servers refuse single ones."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.limits.baseline import MOST_SHARE
from pipeline.units import MINUTE_RESET_S

#: A shorter wait is not worth a trial; a longer one than MINUTE_RESET_S is about no rate a minute.
LEAST_WAIT_S = 0.1
#: A trial begins at a refusal that comes after so many answers in a row: a limit that is used up refuses more than one.
ANSWERS_BEFORE = 5
#: A trial ends badly when more than this share of what it sent is refused, or of what was in flight when it began: of
#: few calls more than so many. After so many calls it ends well, and the next one begins.
MOST_OF_FEW, ENOUGH_SENT = 2, 50
#: From the beginning of one that ended badly, the next is this far. Worth 9 used, 18 refused.
NEXT_TRIAL_S = 60.0


@dataclass(slots=True)
class _Trial:
    """What came of calls that left after a refusal, against its word; and of those that were in flight by then."""

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
    """Says of each refusal whether all have to wait: worth 18 used. `now` and `sent_at` are the run's clock in seconds.

    Where a limit is used up, what is sent before the wait is over is refused as well. Where it is answered, the server
    is only busy, or asks for too much: to wait with all calls for each refusal would cost most of the time.
    """

    def __init__(self) -> None:
        # All state that changes: the last trial (one after the other as long as they end well), and the answers since
        # the last refusal.
        self._trial: _Trial | None = None
        self._answers = 0

    def on_send(self, now: float, in_flight: int) -> None:
        """A call leaves."""
        trial = self._trial
        if trial is not None and not trial.is_bad:
            if trial.sent >= ENOUGH_SENT:
                trial = self._trial = _Trial(now, in_flight)
            trial.sent += 1

    def on_answer(self) -> None:
        """An answer came."""
        self._answers += 1

    def is_for_all(self, wait_s: float, sent_at: float, now: float, in_flight: int) -> bool:
        """A 429 came that asks for this wait: whether everyone has to."""
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
