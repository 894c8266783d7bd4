"""Finds the labels to keep so that, with a stated confidence, at most a stated share of the file is wrong.

Probably approximately correct labels: Candès, Ilyas and Zrnic (2025), arXiv 2506.10908. The records are in an order
that was fixed before anybody was asked, from the most certain to the least. People check a random draw of them. The
result is the longest beginning of this order that may keep its labels; people check the rest.

Records of the draw are corrected by those who check them, so what counts is how many of the others are wrong. Let K be
the number of wrong ones in a beginning, and X the number of those that were drawn: K - X remain. `max_wrong` bounds K
from X, and a beginning is accepted if that bound minus X is at most what is allowed. This holds as long as X is at most
`acceptance`, a number that is known before anybody answers.

Searching for the longest such beginning does not weaken the guarantee. X grows by at most one with each record, so the
longest beginning is either the whole file, or one with exactly `acceptance` drawn wrong records, whose bound B for K is
known beforehand. Suppose that the guarantee fails: K is above its bound. There are two kinds of files.

1. More than B records of the file are wrong. Then there is a shortest beginning with more than B wrong ones; it depends
   only on the file, not on the draw. The guarantee fails only if at least this beginning is accepted, so that it has at
   most `acceptance` drawn wrong records: one event about one fixed set, with probability at most `risk`.
2. At most B are wrong. Then it fails only if the whole file is accepted, which is a fixed set as well.

So no correction for many looks is needed. For the same reason it is safe to look while people are still working, if
each missing answer counts as a wrong label: what is accepted then is never longer than at the end.

The draw is without replacement, and the probabilities are the hypergeometric ones: exact, not approximate.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor
from typing import Any, TypeVar

from pipeline.quality.bounds import hypergeometric_cdf, is_unlikely, max_wrong

#: A place in an order: anything that sorts.
_T = TypeVar("_T", bound=Any)
#: The first draw is large enough that a file with half of the allowed error is certified without further checks this
#: often. With 0.9, each draw would be a third larger, to save checks in one file of ten.
POWER = 0.8
#: An error of 0.07 of 100 records, for example, is 7 records, although the product is slightly less as a float.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Design:
    """What is fixed before the first answer.

    `n` records are certified, of which nobody had checked `population`. `drawn` of these are drawn at random. At most
    `error` of the `n` may be wrong at the end, except with probability `risk`. `acceptance` is the most wrong records
    of the draw that an accepted beginning may have.
    """

    n: int
    population: int
    drawn: int
    error: float
    risk: float
    acceptance: int

    @property
    def allowed(self) -> int:
        """The most records that may be wrong."""
        return allowed_of(self.n, self.error)


def allowed_of(n: int, error: float) -> int:
    """Return the most records of `n` that may be wrong if a share of `error` may be."""
    return floor(n * error + _ROUNDING)


def make_design(n: int, error: float, risk: float, *, checked: int = 0, drawn: int | None = None) -> Design:
    """Create the design for `n` records, of which `checked` were checked before; `drawn` None: use `draw_size`.

    Raises ValueError if `drawn` is so small that nothing could be accepted even if no drawn record is wrong.
    """
    population = n - checked
    allowed = allowed_of(n, error)
    size = draw_size(population, allowed, risk) if drawn is None else min(drawn, population)
    acceptance = acceptance_of(population, size, allowed, risk)
    if acceptance < 0:
        least = _least_draw(population, allowed + 1, 0, risk)
        raise ValueError(f"{size:,} records are too few for a certificate; at least {least:,} are needed")
    return Design(n, population, size, error, risk, acceptance)


def acceptance_of(population: int, drawn: int, allowed: int, risk: float) -> int:
    """Return the most wrong records of the draw that make more than `allowed` others unlikely; -1: not even 0 does.

    Unlikely means that a draw from a file with one more than that has so few with probability at most `risk`.
    """
    if drawn == population:
        return population
    acceptance = -1
    while acceptance < drawn and is_unlikely(
        hypergeometric_cdf(population, allowed + acceptance + 2, drawn, acceptance + 1), risk
    ):
        acceptance += 1
    return acceptance


def draw_size(population: int, allowed: int, risk: float) -> int:
    """Return the size of the first draw: 0 if nothing needs to be known, and at most the population.

    The smallest with which a file with half of the allowed wrong records is accepted whole with probability `POWER`:
    the two-point plan of acceptance sampling (Schilling and Neubauer, "Acceptance sampling in quality control").
    """
    if population <= allowed:
        return 0
    good = allowed // 2
    for acceptance in range(population):
        size = _least_draw(population, allowed + acceptance + 1, acceptance, risk)
        if hypergeometric_cdf(population, good, size, acceptance) >= POWER:
            return size
    return population


def _least_draw(population: int, wrong: int, acceptance: int, risk: float) -> int:
    """Return the smallest draw that has at most `acceptance` of the `wrong` records with probability at most `risk`."""
    low, high = acceptance + 1, population
    while low < high:
        middle = (low + high) // 2
        if is_unlikely(hypergeometric_cdf(population, wrong, middle, acceptance), risk):
            high = middle
        else:
            low = middle + 1
    return low


def first_to_check(design: Design, wrong: Iterable[_T]) -> _T | None:
    """Return the place in the order from which people must check the labels; None: all of them may be kept.

    `wrong` are the places of the draw's records that are wrong, unclear, or unanswered, as anything that sorts like the
    order. No two records may share a place.
    """
    places = sorted(wrong)
    return places[design.acceptance] if len(places) > design.acceptance else None


def error_bound(design: Design, wrong: int) -> float:
    """Return the upper bound for the share of the `n` records that stay wrong after `wrong` of the draw were corrected.

    It holds at the design's level for the whole file, if `wrong` counts all wrong records of the draw, and for the
    beginning before `first_to_check`, if it counts those in it, although that beginning was searched for (see above).
    """
    if not design.population:
        return 0.0
    return (max_wrong(design.population, design.drawn, wrong, design.risk) - wrong) / design.n
