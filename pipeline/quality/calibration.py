"""Measures whether stated confidences are right: reliability table, expected calibration error, and two ways to refit.

These are temperature scaling and isotonic regression.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp, log, log1p

#: The number of steps into which confidences are divided; models give two digits.
_STEPS = 10_000
#: How close a confidence may be to 0 or 1 before its log odds are computed.
_EDGE = 1e-6
#: Temperatures outside these show that the confidence means nothing, or everything.
_COLDEST, _HOTTEST = 0.05, 20.0
#: Folds for cross-fitting, and the fewest records for isotonic regression: with fewer, its result is mostly noise.
FOLDS, ISOTONIC_LEAST = 5, 50


@dataclass(frozen=True, slots=True)
class Bin:
    """The records whose confidence is above `low` and at most `high`: their mean confidence, and how many are right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Isotonic:
    """The confidence as refitted by isotonic regression, and the errors after refitting.

    `curve` has points (confidence, share that is right), with straight lines between them. The errors are cross-fitted:
    each record is refitted by a curve made without it, so they are not too optimistic.
    """

    expected_error: float
    brier: float
    curve: tuple[tuple[float, float], ...]


class Calibration:
    """Counts confidences in flat memory, each with whether the label was right."""

    __slots__ = ("_folds", "left_out", "n")

    def __init__(self) -> None:
        # Mutable state: for each fold, by confidence (in steps), how many records there are and how many of them are
        # right; how many labels have a confidence; and how many confidences were no number from 0 to 1.
        self._folds: list[dict[int, list[int]]] = [{} for _ in range(FOLDS)]
        self.n = self.left_out = 0

    def add(self, confidence: float, is_right: bool, n: int = 1) -> None:
        """Add a label with its confidence from 0 to 1, or `n` identical ones."""
        if not 0 <= confidence <= 1:
            self.left_out += n
            return
        counts = self._folds[self.n % FOLDS].setdefault(round(confidence * _STEPS), [0, 0])
        counts[0] += n
        counts[1] += n * is_right
        self.n += n

    def bins(self, number: int = 10) -> list[Bin]:
        """Return the reliability table: the bins of equal width that are not empty. The lowest bin includes 0."""
        tables: dict[int, list[float]] = {}
        for step, n, right in _counted(self._folds):
            table = tables.setdefault(max(0, ceil(step * number / _STEPS) - 1), [0, 0, 0])
            table[0] += n
            table[1] += n * step / _STEPS
            table[2] += right
        return [
            Bin(at / number, (at + 1) / number, int(n), total / n, right / n)
            for at, (n, total, right) in sorted(tables.items())
        ]

    def expected_error(self) -> float | None:
        """Return the mean distance between confidence and accuracy over the bins, weighted by their records (ECE).

        Guo et al. (2017), "On calibration of modern neural networks". None without records.
        """
        n = self.n
        return sum(one.n * abs(one.accuracy - one.confidence) for one in self.bins()) / n if n else None

    def brier(self) -> float | None:
        """Return the mean squared distance between the confidence and the result (1 right, 0 wrong)."""
        n = self.n
        total = sum(right * (1 - p) ** 2 + (count - right) * p * p for p, count, right in self._shares())
        return total / n if n else None

    def temperature(self) -> float | None:
        """Return the divisor of the log odds with which the confidence fits the results best (least log loss).

        Above 1 the model is overconfident, below 1 underconfident. None if all labels are right, or none is: then no
        temperature fits.
        """
        if sum(right for _, _, right in _counted(self._folds)) in (0, self.n):
            return None
        low, high = log(_COLDEST), log(_HOTTEST)
        # The loss has one minimum in the inverse temperature: ternary search.
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
            bounded = min(max(p, _EDGE), 1 - _EDGE)
            odds = log(bounded / (1 - bounded)) / temperature
            # -log(sigmoid(x)), without overflow
            total += right * _softplus(-odds) + (n - right) * _softplus(odds)
        return total

    def _shares(self) -> Iterator[tuple[float, int, int]]:
        for step, n, right in _counted(self._folds):
            yield step / _STEPS, n, right

    def isotonic(self) -> Isotonic | None:
        """Return the best fit that only rises with the confidence; None for fewer than ISOTONIC_LEAST records.

        Zadrozny and Elkan (2002), "Transforming classifier scores into accurate multiclass probability estimates".
        """
        if self.n < ISOTONIC_LEAST:
            return None
        refitted = Calibration()
        for fold in self._folds:
            curve = _isotonic_curve(_counted([one for one in self._folds if one is not fold]))
            for step, (n, right) in fold.items():
                share = _interpolate(curve, step / _STEPS)
                refitted.add(share, is_right=True, n=right)
                refitted.add(share, is_right=False, n=n - right)
        curve = _isotonic_curve(_counted(self._folds))
        return Isotonic(refitted.expected_error() or 0.0, refitted.brier() or 0.0, tuple(curve))


def _counted(folds: Sequence[Mapping[int, Sequence[int]]]) -> Iterator[tuple[int, int, int]]:
    """Yield each confidence (in steps), the lowest first, with its records and how many of them are right."""
    for step in sorted(frozenset[int]().union(*folds)):
        counts = [fold[step] for fold in folds if step in fold]
        yield step, sum(n for n, _ in counts), sum(right for _, right in counts)


def _isotonic_curve(counted: Iterable[tuple[int, int, int]]) -> list[tuple[float, float]]:
    """Return the ends of each level, with its share of right ones: isotonic regression, pooling adjacent violators."""
    levels: list[list[int]] = []
    for step, n, right in counted:
        levels.append([step, step, n, right])
        # As long as the previous level is as high, merge the two.
        while len(levels) > 1 and levels[-2][3] * levels[-1][2] >= levels[-1][3] * levels[-2][2]:
            upper, lower = levels.pop(), levels.pop()
            levels.append([lower[0], upper[1], lower[2] + upper[2], lower[3] + upper[3]])
    return [(end / _STEPS, right / n) for first, last, n, right in levels for end in dict.fromkeys((first, last))]


def _interpolate(curve: Sequence[tuple[float, float]], confidence: float) -> float:
    at = bisect_left(curve, (confidence, -1.0))
    if at in (0, len(curve)):
        return curve[min(at, len(curve) - 1)][1]
    (left, low), (right, high) = curve[at - 1], curve[at]
    return low + (high - low) * (confidence - left) / (right - left)


def _softplus(x: float) -> float:
    return max(x, 0.0) + log1p(exp(-abs(x)))
