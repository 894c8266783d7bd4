"""Tests which of two runs is right more often, whether an accuracy is too low, and whether shares have changed."""

from collections.abc import Mapping
from functools import cache
from math import exp, fsum, inf, lgamma, log, sqrt
from statistics import NormalDist

#: The number of accuracies that are bet on, evenly spread below the tested one.
_GUESSES = 40
#: Classes with a lower expected count are pooled for the chi-squared test.
_LEAST_EXPECTED = 5.0


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test; 1 if both are right on the same records.

    `only_first` is how many records only the first has right, `only_second` only the second. Under the null hypothesis,
    each of these is a toss of a fair coin. McNemar (1947); the exact form is the binomial test.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0 or only_first == only_second:
        return 1.0
    constant = lgamma(n + 1) - n * log(2)
    tail = fsum(exp(constant - lgamma(i + 1) - lgamma(n - i + 1)) for i in range(k + 1))
    return min(1.0, 2 * tail)


def evidence_below(right: int, n: int, floor: float) -> float:
    """Return the evidence that the accuracy is below `floor`, after `right` of `n` answers: an e-value, 1 at the start.

    If the accuracy is `floor` or more, the probability that it *ever* reaches 1/a is at most a (Ville's inequality). So
    it may be checked after each answer, for any length of time. A test at 5 % requires 20.

    It is the wealth of a bettor who bets that answers are wrong more often than `floor` implies: an average, over
    guesses q below `floor`, of the likelihood ratio of q to `floor`. If the accuracy is `floor` or more, no such bet
    gains in expectation. Waudby-Smith and Ramdas (2024); Ramdas et al. (2023), "Game-theoretic statistics and safe
    anytime-valid inference". The answers must be drawn at random from all gold records, each with the same probability.
    Raises ValueError if `floor` is not above 0 and at most 1.
    """
    if not 0 < floor <= 1:
        raise ValueError(f"the accuracy to be tested is {floor}; expected more than 0 and at most 1")
    wrong = n - right
    if floor == 1:
        return inf if wrong else 1.0
    logs = [right * loss + wrong * gain for loss, gain in _bets(floor)]
    top = max(logs)
    if top > 600:
        return inf
    return exp(top) * fsum(exp(one - top) for one in logs) / _GUESSES


@cache
def _bets(floor: float) -> tuple[tuple[float, float], ...]:
    """Return for each guess the log factors by which a right and a wrong answer multiply the bettor's wealth."""
    guesses = [floor * (step + 0.5) / _GUESSES for step in range(_GUESSES)]
    return tuple((log(guess / floor), log((1 - guess) / (1 - floor))) for guess in guesses)


def is_clearly_below(right: int, n: int, floor: float, confidence: float = 0.99) -> bool:
    """Whether the accuracy is below `floor` at this confidence, however often this was checked before.

    A run whose accuracy is `floor` or more is stopped with probability at most 1 - `confidence`.
    """
    return evidence_below(right, n, floor) >= 1 / (1 - confidence)


def shift_of(before: Mapping[str, int], now: Mapping[str, int]) -> tuple[float, float]:
    """Return the distance of the shares `now` from `before`, and its probability if nothing has changed.

    The first is the total variation distance, 0 to 1. The second is the p-value of the chi-squared test of homogeneity
    with rare classes pooled, by the cube-root approximation of Wilson and Hilferty (1931); 1 if there is too little
    data.
    """
    n, m = sum(before.values()), sum(now.values())
    if not n or not m:
        return 0.0, 1.0
    names = before.keys() | now.keys()
    distance = sum(abs(before.get(name, 0) / n - now.get(name, 0) / m) for name in names) / 2
    cells = _pooled_cells(before, now, min(n, m) / (n + m))
    if len(cells) < 2:
        return distance, 1.0
    statistic = sum(_chi_squared_term(a, b, n, m) for a, b in cells)
    return distance, _chi_squared_tail(statistic, len(cells) - 1)


def _pooled_cells(before: Mapping[str, int], now: Mapping[str, int], share: float) -> list[tuple[int, int]]:
    """Return the two counts of each class; classes with too low an expected count are pooled."""
    cells, rare = [], (0, 0)
    for name in before.keys() | now.keys():
        a, b = before.get(name, 0), now.get(name, 0)
        if (a + b) * share >= _LEAST_EXPECTED:
            cells.append((a, b))
        else:
            rare = (rare[0] + a, rare[1] + b)
    return [*cells, rare] if sum(rare) * share >= _LEAST_EXPECTED else cells


def _chi_squared_term(a: int, b: int, n: int, m: int) -> float:
    both = (a + b) / (n + m)
    return (a - n * both) ** 2 / (n * both) + (b - m * both) ** 2 / (m * both)


def _chi_squared_tail(statistic: float, degrees: int) -> float:
    part = 2 / (9 * degrees)
    z = ((statistic / degrees) ** (1 / 3) - (1 - part)) / sqrt(part)
    return 1 - NormalDist().cdf(z)
