"""How well a share is known from the draws that were answered, and how many answers more would narrow it."""

from collections.abc import Sequence
from math import fsum

from pipeline.quality.bounds import Estimate, weighted_mean
from pipeline.quality.intervals import wilson

#: More answers than this are never asked for: nobody gives them.
_MOST = 1_000_000


def estimate_share(hits: Sequence[bool], probabilities: Sequence[float]) -> Estimate:
    """The share of hits in the file, from drawn records and the probability with which each was drawn.

    Where all probabilities are equal, Wilson's interval; else `weighted_mean`. Where all records are alike the interval
    of the latter has no width, so it is Wilson's for the effective number of answers, (sum of weights)^2 / sum of
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
    """How many answers more, about, until the interval of `estimate_share` reaches at most `half` to each side.

    It is worked out for the middle of the present interval, which is nearer to a half than the share is while there are
    few answers; so it rather falls than grows.
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
    # A weighted draw needs more for the same width: as many times as it needed for the present one.
    return max(1, round(fewest * _design_effect(estimate, middle)) - estimate.n)


def _design_effect(estimate: Estimate, middle: float) -> float:
    """The squared width of the interval beside that of a simple draw of as many, at least 1."""
    if estimate.n == 0 or estimate.low is None or estimate.high is None:
        return 1.0
    low, high = wilson(middle * estimate.n, estimate.n)
    return max(1.0, ((estimate.high - estimate.low) / (high - low)) ** 2)
