"""A test that may be looked at after every answer: is the accuracy clearly below what was asked for?"""

from functools import cache
from math import exp, fsum, inf, log

#: The accuracies that are bet on, evenly spread below the one to be tested.
_GUESSES = 40


def evidence_below(right: int, n: int, floor: float) -> float:
    """The evidence that the accuracy is below `floor`, after `right` of `n` answers: an e-value, 1 at the start.

    While the accuracy is `floor` or more, the chance that it *ever* reaches 1/a is at most a (Ville's inequality). So
    it may be looked at after each answer, for as long as one likes. 20 is what a test at 5 % asks for.

    It is the money of somebody who bets that answers are wrong more often than `floor` says: an average, over guesses q
    below `floor`, of the likelihood ratio of q to `floor`. With an accuracy of `floor` or more no such bet gains in
    expectation. Waudby-Smith and Ramdas (2024); Ramdas et al. (2023), "Game-theoretic statistics and safe anytime-valid
    inference". The answers have to be drawn at random from all of the gold records, each with the same chance.
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
    """For each guess the logarithm of what a right answer, and a wrong one, multiplies its money by."""
    guesses = [floor * (step + 0.5) / _GUESSES for step in range(_GUESSES)]
    return tuple((log(guess / floor), log((1 - guess) / (1 - floor))) for guess in guesses)


def is_clearly_below(right: int, n: int, floor: float, confidence: float = 0.99) -> bool:
    """Whether the accuracy is below `floor` at this confidence, however often that was asked before.

    A run whose accuracy is `floor` or more is stopped with probability 1 - `confidence` at most.
    """
    return evidence_below(right, n, floor) >= 1 / (1 - confidence)
