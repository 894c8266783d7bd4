"""Computes intervals of a share or a mean from answered draws, and how many more answers would narrow them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from statistics import NormalDist

#: The most answers to ask for: nobody gives more.
_MOST = 1_000_000


def wilson(hits: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a share with `hits` in `n` random draws; (0, 1) if none was drawn.

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
    # At the ends the formula gives 0 and 1, but rounding may not.
    low = 0.0 if hits == 0 else max(0.0, (middle - half) / scale)
    high = 1.0 if hits == n else min(1.0, (middle + half) / scale)
    return low, high


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval, and the number of answers behind it. With too few, the others are None."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


def weighted_mean(values: Sequence[float], probabilities: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Return the mean over the file, with its interval, from drawn values and each one's probability to be drawn.

    Each value has the weight 1/probability (Horvitz and Thompson, 1952). Their sum is divided by that of the weights
    (Hájek, 1971), so that it stays right if some drawn records were not answered. The interval is the normal one, from
    the influence of each value: weight times distance from the mean. A record that was certain to be drawn adds nothing
    to its width. It is for display, not a guarantee: with few answers it is too narrow.
    """
    m = len(values)
    if m == 0:
        return Estimate(None, None, None, 0)
    weights = [1 / probability for probability in probabilities]
    total = fsum(weights)
    mean = fsum(weight * value for weight, value in zip(weights, values, strict=True)) / total
    if m == 1 and probabilities[0] < 1:
        return Estimate(mean, None, None, 1)
    spread = fsum(
        (1 - probability) * (weight * (value - mean)) ** 2
        for value, weight, probability in zip(values, weights, probabilities, strict=True)
    )
    half = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt(spread * m / max(1, m - 1)) / total
    return Estimate(mean, mean - half, mean + half, m)


def estimate_share(hits: Sequence[bool], probabilities: Sequence[float]) -> Estimate:
    """Return the share of hits in the file, from drawn records and each one's probability to be drawn.

    If all probabilities are equal, this is Wilson's interval; otherwise `weighted_mean`. If all records are alike, the
    latter's interval has no width, so it is Wilson's for the effective number of answers, (sum of weights)^2 / sum of
    squared weights (Kish, 1965, *Survey Sampling*).
    """
    if not hits:
        return Estimate(None, None, None, 0)
    n, right = len(hits), sum(hits)
    if len(set(probabilities)) == 1:
        return Estimate(right / n, *wilson(right, n), n)
    if right in (0, n):
        weights = [1 / probability for probability in probabilities]
        effective = fsum(weights) ** 2 / fsum(weight * weight for weight in weights)
        return Estimate(right / n, *wilson(effective if right else 0, effective), n)
    estimate = weighted_mean([float(hit) for hit in hits], probabilities)
    low, high = (0.0, 1.0) if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)
    return Estimate(estimate.mean, max(0.0, low), min(1.0, high), n)


def answers_needed(estimate: Estimate, half: float) -> int:
    """Return about how many more answers the interval of `estimate_share` needs to be at most `half` to each side.

    It is computed for the middle of the present interval, which is nearer to 0.5 than the share is while there are few
    answers, so it tends to fall, not to grow.
    """
    low, high = (0.0, 1.0) if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)
    if estimate.n and (high - low) / 2 <= half:
        return 0
    middle = (low + high) / 2
    fewest, most = 1, _MOST
    while fewest < most:
        n = (fewest + most) // 2
        lower, upper = wilson(middle * n, n)
        fewest, most = (fewest, n) if (upper - lower) / 2 <= half else (n + 1, most)
    # A weighted draw needs more answers for the same width, by the same factor as for the present one.
    return max(1, round(fewest * _design_effect(estimate, middle)) - estimate.n)


def _design_effect(estimate: Estimate, middle: float) -> float:
    """Return the squared width of the interval divided by that of a simple draw of the same size, at least 1."""
    if estimate.n == 0 or estimate.low is None or estimate.high is None:
        return 1.0
    low, high = wilson(middle * estimate.n, estimate.n)
    return max(1.0, ((estimate.high - estimate.low) / (high - low)) ** 2)
