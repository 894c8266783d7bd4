"""Bounds for a mean from a random draw, valid for every file and every number of records.

The file is fixed. Only the draw is random, and it is made without replacement. So the hypergeometric distribution
bounds a simple random draw exactly, and no draw is treated as if its records had been put back.
"""

from collections.abc import Iterable
from math import comb, exp, fsum, lgamma, log

#: Probabilities come from differences of log factorials, with errors up to about 1e-9 for files of millions.
#: A tail counts as small enough only if it is so despite this error.
_ROUNDING = 1e-8
#: Once a term is this small relative to the first term of a tail, the rest does not change the sum.
_NOTHING = 1e-18


def hypergeometric_cdf(n: int, wrong: int, sample_size: int, observed: int) -> float:
    """Return the probability of at most `observed` wrong records in a random draw of `sample_size`.

    `wrong` of the `n` records are wrong. The draw is without replacement, so this is the distribution function of the
    hypergeometric distribution.
    """
    lowest, highest = max(0, sample_size - (n - wrong)), min(sample_size, wrong)
    if observed < lowest:
        return 0.0
    if observed >= highest:
        return 1.0

    def log_chance(k: int) -> float:
        return _log_choose(wrong, k) + _log_choose(n - wrong, sample_size - k) - _log_choose(n, sample_size)

    def ratio(k: int) -> float:
        """Return the probability of `k` divided by that of `k` - 1."""
        return (wrong - k + 1) * (sample_size - k + 1) / (k * (n - wrong - sample_size + k))

    # The terms are added from `observed` away from the mean, so that they only get smaller: from the far end, the first
    # of them may be too small for a float.
    if observed <= sample_size * wrong / n:
        return min(1.0, _tail(exp(log_chance(observed)), (1 / ratio(k) for k in range(observed, lowest, -1))))
    return max(0.0, 1 - _tail(exp(log_chance(observed + 1)), map(ratio, range(observed + 2, highest + 1))))


def _tail(term: float, ratios: Iterable[float]) -> float:
    terms = [term]
    for ratio in ratios:
        term *= ratio
        terms.append(term)
        if term < terms[0] * _NOTHING:
            break
    return fsum(terms)


def _log_choose(n: int, k: int) -> float:
    if n < 60:
        return log(comb(n, k))
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def max_wrong(n: int, sample_size: int, observed: int, risk: float) -> int:
    """Return the most records of `n` that may be wrong if a random draw of `sample_size` has `observed` wrong ones.

    More than this many are wrong with probability at most `risk`, whatever the file is. Exact for draws without
    replacement: the largest number for which so few wrong ones are observed with a probability above `risk`.
    """
    low, high = observed, n - (sample_size - observed)
    while low < high:
        middle = (low + high + 1) // 2
        if is_unlikely(hypergeometric_cdf(n, middle, sample_size, observed), risk):
            high = middle - 1
        else:
            low = middle
    return low


def is_unlikely(tail: float, risk: float) -> bool:
    """Whether a probability is at most `risk`, including its rounding error."""
    return tail <= risk * (1 - _ROUNDING)
