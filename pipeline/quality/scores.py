"""Compares labels with gold: classes, several labels at once, numbers, and texts.

A share with a denominator of 0 is 0, as is scikit-learn's default (`zero_division`).
"""

import unicodedata
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from random import Random
from typing import Generic, TypeVar

from pipeline.quality.agreement import margins

_T = TypeVar("_T", bound=Hashable)

#: The most distinct pairs of numbers that are kept for a rank correlation. If there are more, this many are sampled.
PAIRS_MOST = 100_000


@dataclass(frozen=True, slots=True)
class ClassScore:
    """The score of one class. `support` is how often gold has it."""

    precision: float
    recall: float
    f1: float
    support: int


def class_scores(pairs: Mapping[tuple[_T, _T], int], order: Iterable[_T] = ()) -> dict[_T, ClassScore]:
    """Return the score of each class of gold or labels, from the count of each (gold, label).

    The classes of `order` come first, then the others, sorted by their text.
    """
    golds, labels = margins(pairs)
    right = Counter({gold: count for (gold, label), count in pairs.items() if gold == label})
    return _ordered_scores(right, labels, golds, order)


def _ordered_scores(
    right: Counter[_T], labels: Counter[_T], golds: Counter[_T], order: Iterable[_T]
) -> dict[_T, ClassScore]:
    values = golds.keys() | labels.keys()
    first = [value for value in dict.fromkeys(order) if value in values]
    return {
        value: score(right[value], labels[value], golds[value])
        for value in [*first, *sorted(values - set(first), key=str)]
    }


def score(right: int, predicted: int, support: int) -> ClassScore:
    """Return the score of a class from how often it was predicted, predicted rightly, and found in gold."""
    f1 = 2 * right / (predicted + support) if predicted + support else 0.0
    return ClassScore(right / predicted if predicted else 0.0, right / support if support else 0.0, f1, support)


def macro_f1(classes: Mapping[_T, ClassScore]) -> float | None:
    """Return the mean F1 of the classes; None without any."""
    return sum(one.f1 for one in classes.values()) / len(classes) if classes else None


def weighted_f1(classes: Mapping[_T, ClassScore]) -> float | None:
    """Return the mean F1 of the classes, weighted by how often gold has them; None without any."""
    support = sum(one.support for one in classes.values())
    if not classes:
        return None
    return sum(one.f1 * one.support for one in classes.values()) / support if support else 0.0


class SetTally(Generic[_T]):
    """Counts records with several labels at once."""

    __slots__ = ("_golds", "_labels", "_right", "exact", "jaccard_sum", "n")

    def __init__(self) -> None:
        # Mutable state: the records, those with equal sets, and the sum of their Jaccard indices; for each label, how
        # often gold has it, the records' labels have it, and both have it.
        self.n = self.exact = 0
        self.jaccard_sum = 0.0
        self._golds: Counter[_T] = Counter()
        self._labels: Counter[_T] = Counter()
        self._right: Counter[_T] = Counter()

    def add(self, gold: Collection[_T], label: Collection[_T], times: int = 1) -> None:
        """Add one record, or several identical ones."""
        golds, labels = frozenset(gold), frozenset(label)
        both = golds & labels
        self.n += times
        self.exact += (golds == labels) * times
        # Two empty sets count 0, as in scikit-learn.
        self.jaccard_sum += len(both) / len(golds | labels) * times if golds or labels else 0.0
        for counts, values in ((self._golds, golds), (self._labels, labels), (self._right, both)):
            for one in values:
                counts[one] += times

    @property
    def jaccard(self) -> float | None:
        """The mean of intersection over union; None without records."""
        return self.jaccard_sum / self.n if self.n else None

    def classes(self, order: Iterable[_T] = ()) -> dict[_T, ClassScore]:
        """Return the score of each label, each as a separate yes or no."""
        return _ordered_scores(self._right, self._labels, self._golds, order)

    @property
    def micro(self) -> ClassScore:
        """The score of all labels as one class."""
        return score(self._right.total(), self._labels.total(), self._golds.total())


class NumberTally:
    """Counts records whose labels are numbers, or places in an order."""

    __slots__ = ("_absolute", "_pair_sample", "_pairs", "_random", "_square", "exact", "n", "within_one")

    def __init__(self) -> None:
        # Mutable state: the records, those that are equal or at most 1 apart, the sums of the differences, and the
        # pairs for the ranks: all of them or, if too many are distinct, a random sample.
        self.n = self.exact = self.within_one = 0
        self._absolute = self._square = 0.0
        self._pairs: Counter[tuple[float, float]] = Counter()
        self._pair_sample: list[tuple[float, float]] = []
        self._random = Random(0)  # noqa: S311 - a sample, the same each time

    def add(self, gold: float, label: float, times: int = 1) -> None:
        """Add one record, or several identical ones; for whole numbers, the sums are the same either way."""
        apart = abs(gold - label)
        self.n += times
        self.exact += (gold == label) * times
        self.within_one += (apart <= 1) * times
        self._absolute += apart * times
        self._square += apart * apart * times
        self._keep((gold, label), times)

    @property
    def mae(self) -> float | None:
        """The mean absolute error."""
        return self._absolute / self.n if self.n else None

    @property
    def rmse(self) -> float | None:
        """The root of the mean squared error."""
        return sqrt(self._square / self.n) if self.n else None

    @property
    def ranked(self) -> int:
        """The number of records behind the rank correlation."""
        return len(self._pair_sample) or self.n

    @property
    def spearman(self) -> float | None:
        """Spearman's rank correlation of the `ranked` records."""
        return spearman(Counter(self._pair_sample) if self._pair_sample else self._pairs)

    def _keep(self, pair: tuple[float, float], times: int) -> None:
        if self._pair_sample:
            # Each record so far is in the sample with the same probability (Vitter's algorithm R).
            if (at := self._random.randrange(self.n)) < PAIRS_MOST:
                self._pair_sample[at] = pair
            return
        self._pairs[pair] += times
        if len(self._pairs) > PAIRS_MOST:
            self._pair_sample = self._random.sample(list(self._pairs), PAIRS_MOST, counts=self._pairs.values())
            self._pairs.clear()


def spearman(pairs: Mapping[tuple[float, float], int]) -> float | None:
    """Return Spearman's rank correlation, with mean ranks for ties; None if one side has only one value."""
    n = sum(pairs.values())
    firsts, seconds = margins(pairs)
    mine, yours, mean = _ranks(firsts), _ranks(seconds), (n + 1) / 2
    spread = _spread(mine, firsts, mean) * _spread(yours, seconds, mean)
    if spread <= 0:
        return None
    joint = sum(count * (mine[one] - mean) * (yours[other] - mean) for (one, other), count in pairs.items())
    return joint / sqrt(spread)


def _ranks(counts: Mapping[float, int]) -> dict[float, float]:
    ranks, before = {}, 0
    for value in sorted(counts):
        ranks[value] = before + (counts[value] + 1) / 2
        before += counts[value]
    return ranks


def _spread(ranks: Mapping[float, float], counts: Mapping[float, int], mean: float) -> float:
    return sum(counts[value] * (rank - mean) ** 2 for value, rank in ranks.items())


class TextTally:
    """Counts records whose labels are texts."""

    __slots__ = ("alike", "exact", "n")

    def __init__(self) -> None:
        # Mutable state: the records, and those with equal or similar texts.
        self.n = self.exact = self.alike = 0

    def add(self, gold: str, label: str, times: int = 1) -> None:
        """Add one record, or several identical ones."""
        self.n += times
        self.exact += (gold == label) * times
        self.alike += (gold == label or normalize_text(gold) == normalize_text(label)) * times


def normalize_text(text: str) -> str:
    """Return the text without differences of case, white space, or the forms of a character (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
