"""Whether labels come in other shares than before: a run's input, or the model, may have changed."""

from collections.abc import Mapping
from math import sqrt
from statistics import NormalDist

#: Two counts are told apart by the chi-squared test only where at least so many are expected in each class.
_LEAST_EXPECTED = 5.0


def shift_of(before: Mapping[str, int], now: Mapping[str, int]) -> tuple[float, float]:
    """How far the shares `now` are from those `before`, and the chance to see that much where nothing has changed.

    The first is the total variation distance, 0 to 1. The second is the p-value of the chi-squared test of homogeneity
    with classes that are too rare put together, by the cube-root approximation of Wilson and Hilferty (1931); 1 where
    there is too little to tell.
    """
    n, m = sum(before.values()), sum(now.values())
    if not n or not m:
        return 0.0, 1.0
    names = before.keys() | now.keys()
    distance = sum(abs(before.get(name, 0) / n - now.get(name, 0) / m) for name in names) / 2
    cells = _cells(before, now, min(n, m) / (n + m))
    if len(cells) < 2:
        return distance, 1.0
    statistic = sum(_term(a, b, n, m) for a, b in cells)
    return distance, _chi_squared_tail(statistic, len(cells) - 1)


def _cells(before: Mapping[str, int], now: Mapping[str, int], share: float) -> list[tuple[int, int]]:
    """The two counts of each class; those of which too few are expected are put together."""
    cells, rare = [], (0, 0)
    for name in before.keys() | now.keys():
        a, b = before.get(name, 0), now.get(name, 0)
        if (a + b) * share >= _LEAST_EXPECTED:
            cells.append((a, b))
        else:
            rare = (rare[0] + a, rare[1] + b)
    return [*cells, rare] if sum(rare) * share >= _LEAST_EXPECTED else cells


def _term(a: int, b: int, n: int, m: int) -> float:
    both = (a + b) / (n + m)
    return (a - n * both) ** 2 / (n * both) + (b - m * both) ** 2 / (m * both)


def _chi_squared_tail(statistic: float, degrees: int) -> float:
    part = 2 / (9 * degrees)
    z = ((statistic / degrees) ** (1 / 3) - (1 - part)) / sqrt(part)
    return 1 - NormalDist().cdf(z)
