"""Agreement beyond chance: Cohen's kappa for two raters, Krippendorff's alpha for more, or with missing answers."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal, TypeVar

_T = TypeVar("_T", bound=Hashable)

#: How values differ: not by degree, by rank, or as numbers.
Level = Literal["nominal", "ordinal", "interval"]


def cohen_kappa(pairs: Mapping[tuple[_T, _T], int], order: Sequence[_T] | None = None) -> float | None:
    """Return Cohen's kappa of two raters from the counts of value pairs; None if chance explains all agreement.

    With `order`, all values from the lowest to the highest, a disagreement is weighted by the squared distance between
    the two places (quadratic weights). Cohen (1960), "A coefficient of agreement for nominal scales", and (1968).
    """
    n = sum(pairs.values())
    if not n:
        return None
    firsts, seconds = margins(pairs)
    if order is None:
        expected = 1 - sum(count * seconds[value] for value, count in firsts.items()) / (n * n)
        observed = 1 - sum(count for (one, other), count in pairs.items() if one == other) / n
        return 1 - observed / expected if expected > 0 else None
    place = {value: index for index, value in enumerate(order)}
    observed = sum(count * (place[one] - place[other]) ** 2 for (one, other), count in pairs.items()) / n
    expected = sum(
        mine * yours * (place[one] - place[other]) ** 2
        for one, mine in firsts.items()
        for other, yours in seconds.items()
    ) / (n * n)
    return 1 - observed / expected if expected > 0 else None


def margins(pairs: Mapping[tuple[_T, _T], int]) -> tuple[Counter[_T], Counter[_T]]:
    """Return how often each value occurs as the first of a pair, and as the second."""
    firsts: Counter[_T] = Counter()
    seconds: Counter[_T] = Counter()
    for (one, other), count in pairs.items():
        firsts[one] += count
        seconds[other] += count
    return firsts, seconds


class Coincidences:
    """Counts answers unit by unit, for Krippendorff's alpha. Memory grows only with the distinct values.

    Krippendorff (2011), "Computing Krippendorff's alpha-reliability".
    """

    __slots__ = ("_counts", "units")

    def __init__(self) -> None:
        # Mutable state: how often two values occur for one unit, and the units with at least two answers.
        self._counts: Counter[tuple[Any, Any]] = Counter()
        self.units = 0

    def add(self, answers: Sequence[Hashable], units: int = 1) -> None:
        """Add the answers for one unit, or for several identical ones, without the missing answers.

        A single answer shows nothing about agreement.
        """
        m = len(answers)
        if m < 2:
            return
        self.units += units
        counts = Counter(answers)
        for one, mine in counts.items():
            for other, yours in counts.items():
                pairs = mine * (yours - 1) if one == other else mine * yours
                if pairs:
                    self._counts[one, other] += units * pairs / (m - 1)  # type: ignore[assignment]

    def alpha(self, level: Level = "nominal", order: Sequence[Hashable] | None = None) -> float | None:
        """Return Krippendorff's alpha; None if it is undefined: no unit with two answers, or only one value.

        `order` lists the values from the lowest to the highest, for "ordinal"; None: as they sort. "interval" requires
        numbers.
        """
        sizes: Counter[Any] = Counter()
        for (one, _), count in self._counts.items():
            sizes[one] += count
        n = sum(sizes.values())
        distance = _distance(level, sizes, order)
        observed = sum(count * distance(one, other) for (one, other), count in self._counts.items())
        expected = sum(
            mine * yours * distance(one, other) for one, mine in sizes.items() for other, yours in sizes.items()
        )
        return 1 - (n - 1) * observed / expected if expected > 0 else None


def _distance(level: Level, sizes: Mapping[Any, float], order: Sequence[Any] | None) -> Callable[[Any, Any], float]:
    """Return the function that computes the squared difference of two values at this level."""
    if level == "nominal":
        return lambda one, other: float(one != other)
    if level == "interval":
        return lambda one, other: float((one - other) ** 2)
    values = [value for value in (sorted(sizes) if order is None else order) if value in sizes]
    # The ranks between two values, with half of each end: a running sum to the middle of each value's share.
    ends = [0.0, *accumulate(float(sizes[value]) for value in values)]
    middle = {value: (before + after) / 2 for value, (before, after) in zip(values, pairwise(ends), strict=True)}
    return lambda one, other: (middle[one] - middle[other]) ** 2
