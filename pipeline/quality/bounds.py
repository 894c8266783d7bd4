"""How large a mean may be, from a random draw: bounds that hold for every file and every number of records.

Everything here is about a file that is fixed. What is random is the draw, and it is made without replacement. So a
simple random draw is bounded by the hypergeometric distribution itself, which is exact, and no draw is treated as if
its records had been put back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, exp, fsum, inf, lgamma, log, log1p, sqrt
from statistics import NormalDist

#: Probabilities come from differences of log factorials, which are off by up to about 1e-9 for files of millions.
#: A tail counts as small enough only if it stays so with this error.
_ROUNDING = 1e-8
#: Beside the first term of a tail, what follows a term of this size does not change the sum.
_NOTHING = 1e-18
#: The bets of `betting_upper`, as shares of the largest bet allowed: that one is best where there are no errors, small
#: ones where there are many. More bets cost more money each than they win.
_BETS = tuple(0.6**step for step in range(7))
#: Halvings of the span from 0 to 1: what is left is nothing beside what a draw can tell.
_HALVINGS = 40


def wrong_within(n: int, wrong: int, drawn: int, seen: int) -> float:
    """The probability of at most `seen` wrong records in a random draw of `drawn` out of `n`, of which `wrong` are.

    The draw is without replacement: the distribution function of the hypergeometric distribution.
    """
    lowest, highest = max(0, drawn - (n - wrong)), min(drawn, wrong)
    if seen < lowest:
        return 0.0
    if seen >= highest:
        return 1.0

    def log_chance(k: int) -> float:
        return _log_choose(wrong, k) + _log_choose(n - wrong, drawn - k) - _log_choose(n, drawn)

    def ratio(k: int) -> float:
        return (wrong - k + 1) * (drawn - k + 1) / (k * (n - wrong - drawn + k))

    return _within(seen, lowest, highest, drawn * wrong / n, log_chance, ratio)


def _within(
    seen: int,
    lowest: int,
    highest: int,
    mean: float,
    log_chance: Callable[[int], float],
    ratio: Callable[[int], float],
) -> float:
    """The probability of at most `seen`, from that of one number and the ratio of each to the one before.

    The terms are added from `seen` away from the mean, where they only get smaller: from the far side the first of them
    may be too small for a float.
    """
    if seen <= mean:
        return min(1.0, _tail(exp(log_chance(seen)), (1 / ratio(k) for k in range(seen, lowest, -1))))
    return max(0.0, 1 - _tail(exp(log_chance(seen + 1)), map(ratio, range(seen + 2, highest + 1))))


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


def most_wrong(n: int, drawn: int, seen: int, risk: float) -> int:
    """The most records of `n` that may be wrong, where a random draw of `drawn` holds `seen` wrong ones.

    More than this many are wrong with probability `risk` at most, whatever the file is. Exact for draws without
    replacement: the largest number under which so few would be seen with a probability above `risk`.
    """
    low, high = seen, n - (drawn - seen)
    while low < high:
        middle = (low + high + 1) // 2
        if is_unlikely(wrong_within(n, middle, drawn, seen), risk):
            high = middle - 1
        else:
            low = middle
    return low


def is_unlikely(tail: float, risk: float) -> bool:
    """Whether a probability is at most `risk`, its rounding included."""
    return tail <= risk * (1 - _ROUNDING)


def clopper_pearson(seen: int, drawn: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share of which `seen` of `drawn` independent draws were seen.

    For a draw from a file, which is without replacement, use `most_wrong`. Clopper and Pearson (1934), "The use of
    confidence or fiducial limits illustrated in the case of the binomial".
    """
    risk = (1 - confidence) / 2
    low = 0.0 if seen == 0 else 1 - _binomial_upper(drawn - seen, drawn, risk)
    return low, _binomial_upper(seen, drawn, risk)


def _binomial_upper(seen: int, drawn: int, risk: float) -> float:
    """The share under which at most `seen` of `drawn` come with probability `risk`."""
    if seen >= drawn:
        return 1.0
    return _first(lambda share: _binomial_within(drawn, share, seen) <= risk)


def _binomial_within(drawn: int, share: float, seen: int) -> float:
    """The distribution function of the binomial distribution; `seen` is below `drawn`."""
    if share <= 0:
        return 1.0
    if share >= 1:
        return 0.0

    def log_chance(k: int) -> float:
        return _log_choose(drawn, k) + k * log(share) + (drawn - k) * log1p(-share)

    def ratio(k: int) -> float:
        return (drawn - k + 1) * share / (k * (1 - share))

    return _within(seen, 0, drawn, drawn * share, log_chance, ratio)


def _first(is_so: Callable[[float], bool]) -> float:
    """The smallest number from 0 to 1 for which it is so, for what stays so once it is; 1 where it never is."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if is_so(middle):
            high = middle
        else:
            low = middle
    return high


# -- draws with other probabilities --------------------------------------------------------------------------------


def betting_upper(weighted: Iterable[float], n: int, most_weight: float, risk: float) -> float:
    """An upper bound at level 1 - `risk` for the mean loss of `n` records, from draws with known probabilities.

    `weighted` holds loss/probability for each record that was drawn, the loss from 0 to 1; zeros may be left out.
    `most_weight` is the largest 1/probability of all records, drawn or not. Between 0 and 1.

    Someone bets against the hypothesis that the mean is m: for each record of the file the money is multiplied by
    1 + b (m - z), where z is 0 or, if it was drawn, its weighted loss. If the mean is m, the money is 1 or less in
    expectation, so it reaches 1/`risk` with probability `risk` at most. The bound is the smallest m at which it does.

    Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by betting". Their bets follow the
    draws one by one; these are fixed, and the money is spread over several (`_BETS`). That is what makes the bound hold
    without replacement: with a fixed bet each factor only falls as its record is drawn, and whether records are drawn
    is negatively associated in random and stratified draws, in independent ones, and in unions of these (Joag-Dev and
    Proschan, 1983). So the expectation of the product is at most the product of the expectations, 1 + b (m - loss),
    and that is at most 1 because a geometric mean is below the arithmetic one.
    """
    found = Counter(weighted)
    return _first(lambda mean: log_money(found, n, most_weight, mean) >= -log(risk))


def log_money(weighted: Mapping[float, int], n: int, most_weight: float, mean: float) -> float:
    """The logarithm of the money of `betting_upper` against this mean. It grows with the mean, falls with each loss.

    `weighted` says how often each weighted loss was drawn.
    """
    parts = []
    for share in _BETS:
        bet = share / most_weight
        gain = 1 + bet * mean
        kept = [(1 - bet * value / gain, times) for value, times in weighted.items()]
        if all(factor > 0 for factor, _ in kept):
            parts.append(n * log(gain) + fsum(times * log(factor) for factor, times in kept))
    if not parts:
        return -inf
    top = max(parts)
    return top + log(fsum(exp(part - top) for part in parts) / len(_BETS))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval, and how many answers it rests on. All three are None where there is too little."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


def weighted_mean(values: Sequence[float], probabilities: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean over the file from drawn values and the probability with which each was drawn, with its interval.

    Each value counts 1/probability (Horvitz and Thompson, 1952), divided by the sum of these weights (Hájek, 1971), so
    that it stays right where some of the drawn records were not answered. The interval is the normal one, from the
    influence of each value: weight times distance from the mean. A record that was certain to be drawn adds nothing to
    its width. To display, not to promise: with few answers it is too narrow (see `betting_upper`).
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
