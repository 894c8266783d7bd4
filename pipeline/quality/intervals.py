"""Intervals of a share."""

from math import sqrt
from statistics import NormalDist


def wilson(hits: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share of which `hits` of `n` random draws were seen; (0, 1) where none was drawn.

    Wilson's score interval without continuity correction: Wilson (1927), "Probable inference, the law of succession,
    and statistical inference".
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / n
    middle = share + z * z / (2 * n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the formula gives 0 and 1; rounding does not.
    low = 0.0 if hits == 0 else max(0.0, (middle - half) / scale)
    high = 1.0 if hits == n else min(1.0, (middle + half) / scale)
    return low, high
