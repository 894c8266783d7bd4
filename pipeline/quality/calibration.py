"""Whether a stated confidence is what comes true: reliability table, expected calibration error, temperature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, exp, log, log1p

#: Confidences are told apart by so many steps; models give two digits.
_STEPS = 10_000
#: The nearest that a confidence may come to 0 or 1 where its log odds are taken.
_EDGE = 1e-6
#: Temperatures beyond these say that the confidence tells nothing, or all.
_COLDEST, _HOTTEST = 0.05, 20.0


@dataclass(frozen=True, slots=True)
class Bin:
    """The records whose confidence is above `low` and at most `high`: how sure they are, and how many are right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


class Calibration:
    """Counts confidences in flat memory, each with whether the label was right."""

    __slots__ = ("_counts", "left_out")

    def __init__(self) -> None:
        # All state that changes: by confidence (in steps) the records and those of them that are right; and how many
        # confidences were no number from 0 to 1.
        self._counts: dict[int, list[int]] = {}
        self.left_out = 0

    def add(self, confidence: float, is_right: bool) -> None:
        """One label with its confidence from 0 to 1."""
        if not 0 <= confidence <= 1:
            self.left_out += 1
            return
        found = self._counts.setdefault(round(confidence * _STEPS), [0, 0])
        found[0] += 1
        found[1] += is_right

    @property
    def n(self) -> int:
        """How many labels with a confidence there are."""
        return sum(n for n, _ in self._counts.values())

    def bins(self, number: int = 10) -> list[Bin]:
        """The reliability table: bins of equal width that hold any record; the lowest one includes 0."""
        tables: dict[int, list[float]] = {}
        for step, (n, right) in self._counts.items():
            table = tables.setdefault(max(0, ceil(step * number / _STEPS) - 1), [0, 0, 0])
            table[0] += n
            table[1] += n * step / _STEPS
            table[2] += right
        return [
            Bin(at / number, (at + 1) / number, int(n), total / n, right / n)
            for at, (n, total, right) in sorted(tables.items())
        ]

    def expected_error(self, number: int = 10) -> float | None:
        """The mean distance between confidence and accuracy over the bins, weighted by their records (ECE).

        Guo et al. (2017), "On calibration of modern neural networks". None without records.
        """
        n = self.n
        return sum(one.n * abs(one.accuracy - one.confidence) for one in self.bins(number)) / n if n else None

    def brier(self) -> float | None:
        """The mean squared distance between the confidence and what came true (1 right, 0 wrong)."""
        n = self.n
        total = sum(right * (1 - p) ** 2 + (count - right) * p * p for p, count, right in self._shares())
        return total / n if n else None

    def temperature(self) -> float | None:
        """What the log odds are to be divided by so that the confidence fits what came true best (least log loss).

        Above 1 the model is too sure, below 1 not sure enough. None where all labels are right, or none is: then no
        temperature fits.
        """
        n, right = self.n, sum(right for _, right in self._counts.values())
        if right in (0, n):
            return None
        low, high = log(_COLDEST), log(_HOTTEST)
        # The loss has one minimum in the inverse temperature: thirds of the span are cut off until it is found.
        for _ in range(80):
            one, other = low + (high - low) / 3, high - (high - low) / 3
            if self._loss(exp(one)) <= self._loss(exp(other)):
                high = other
            else:
                low = one
        return exp((low + high) / 2)

    def _loss(self, temperature: float) -> float:
        total = 0.0
        for p, n, right in self._shares():
            held = min(max(p, _EDGE), 1 - _EDGE)
            odds = log(held / (1 - held)) / temperature
            # -log(sigmoid(x)), without overflow
            total += right * _softplus(-odds) + (n - right) * _softplus(odds)
        return total

    def _shares(self) -> Iterator[tuple[float, int, int]]:
        for step, (n, right) in self._counts.items():
            yield step / _STEPS, n, right


def _softplus(x: float) -> float:
    return max(x, 0.0) + log1p(exp(-abs(x)))
