"""Measures refusals that come at any rate: some servers refuse a few calls in a hundred because they are busy.

At one rate they look like those of a limit. They differ once the rate falls: below a limit nothing is refused anymore,
but a busy server refuses as many as before. So each cut of the rate is also a test, and one without effect is undone.
Arithmetic only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: A larger share means a limit, or a server to leave alone; a smaller one is noise.
MOST_SHARE, NOISE_SHARE = 0.25, 0.015
#: A test takes this many refusals, or so many calls that the earlier share would have refused twice as many. A share is
#: smaller below this part of the earlier one, and larger if this many standard deviations lie between.
ENOUGH_REFUSED, SMALLER, APART = 5, 0.6, 1.5
#: A finding is half forgotten after this long. Then the next cut tests it again, which costs a few calls' time.
HALF_LIFE_S = 300.0
#: If soon this many times as much is refused, it was a limit after all: for a half-life no test is trusted. Worth 2
#: used, 6 refused.
FAR_MORE = 2.5


@dataclass(slots=True)
class _Test:
    """A cut: how many calls were sent and refused before it and since.

    Refusals come sooner than answers, so a share is that of calls sent, not of calls that came back.
    """

    refused_before: int
    sent_before: int
    at: float
    #: The rate before the first of the cuts that have not been found to help.
    origin: float | None
    refused: int = 0
    sent: int = 0

    @property
    def is_over(self) -> bool:
        """Whether enough was refused since. If the cut has not reached the limit, the test stays until the next cut."""
        return self.refused >= ENOUGH_REFUSED and not self.is_less

    @property
    def is_less(self) -> bool:
        """Whether a clearly smaller share has been refused since."""
        return self.refused * self.sent_before < SMALLER * self.refused_before * self.sent

    @property
    def is_more(self) -> bool:
        """Whether a clearly larger share has been, or one above MOST_SHARE. Worth 5 refused."""
        least, most = _bound(self.refused, -APART, self.sent), _bound(self.refused_before, APART, self.sent_before)
        return least > min(most, MOST_SHARE)


class Baseline:
    """The share of calls that is refused at any rate: worth 80 used. `now` and `sent_at` are seconds of one clock."""

    def __init__(self) -> None:
        # Mutable state: the share, when it was measured, and the test of the last cut.
        self._share, self._measured_at = 0.0, float("-inf")
        self._test: _Test | None = None

    def share(self, now: float) -> float:
        """Return the known share; 0 if there is none. Forgetting it is worth 62 used, 5 refused."""
        share: float = self._share * 0.5 ** ((now - self._measured_at) / HALF_LIFE_S)
        return share if share >= NOISE_SHARE else 0.0

    def test(self, rate: float | None, refused: int, sent: int, now: float) -> None:
        """Note that the rate falls from this one, at which this many calls were refused and sent."""
        if 0 < FAR_MORE * self.share(now) < refused / max(1, sent):
            self._share, self._measured_at = 0.0, now
        is_distrusted = self._share == 0 and now < self._measured_at + HALF_LIFE_S
        may_be = not is_distrusted and refused > 0 and _bound(refused, -APART, sent) <= MOST_SHARE
        origin = rate if self._test is None else self._test.origin
        self._test = _Test(refused, sent, now, origin) if may_be else None

    @property
    def is_testing(self) -> bool:
        """Whether the effect of the last cut is still open, so that another one would show less. Worth 53 used."""
        return self._test is not None and not self._test.is_over

    def on_send(self) -> None:
        """Note that a call leaves."""
        if self._test is not None and not self._test.is_over:
            self._test.sent += 1

    def on_return(self, sent_at: float, now: float, *, refused: bool) -> tuple[float | None] | None:
        """Note an answer or a refusal. If it shows that cuts had no effect, return the rate before them, in a tuple."""
        test = self._test
        if test is None or test.is_over or sent_at <= test.at:
            return None
        test.refused += refused
        if test.is_less:
            if test.sent * test.refused_before >= 2 * ENOUGH_REFUSED * test.sent_before:
                if known := self.share(now):
                    self._share, self._measured_at = min(known, max(NOISE_SHARE, test.refused / test.sent)), now
                self._test = None
        elif test.refused >= ENOUGH_REFUSED:
            share = (test.refused + test.refused_before) / (test.sent + test.sent_before)
            if share <= MOST_SHARE and not test.is_more:  # else it is a limit that the cut has not reached
                self._share, self._measured_at, self._test = share, now, None
                return (test.origin,)
        return None


def _bound(count: int, deviations: float, of: int) -> float:
    """Return the share of this count plus this many standard deviations."""
    return (count + deviations * math.sqrt(count)) / max(1, of)
