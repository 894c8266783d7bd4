"""Which labels may be kept so that, with a stated confidence, at most a stated share of the file is wrong.

Probably approximately correct labels: Candès, Ilyas and Zrnic (2025), arXiv 2506.10908. The records stand in an order
that was fixed before anybody was asked, from the most certain one to the least. A random draw of them is checked by
people. What is looked for is how long a beginning of this order may keep its labels; people check the rest.

Why looking for that length does not weaken the promise. Let `allowed` be the most records that may be wrong, and call a
beginning bad if more than that are wrong in it. Longer beginnings hold more wrong records, so there is a shortest bad
one. It depends on the file only, not on the draw. A beginning is accepted if at most `acceptance` wrong records of the
draw lie in it, and that count, too, only grows with the length. If a bad beginning is accepted, then the shortest bad
one would be accepted as well: that is one event, about one fixed set of records, and `acceptance` is chosen so that its
probability is at most `risk`. No correction for many looks is needed. For the same reason it does no harm to look while
people are still at work, if each answer that is not there yet counts as a wrong label: what is accepted then is never
longer than what is accepted at the end.

The draw is without replacement, and the probability of that event is the hypergeometric one: exact, not approximate.
The promise is about the labels as they were. Those of the draw that were wrong and are corrected make the file better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log

from pipeline.quality.bounds import is_unlikely, log_money, most_wrong, wrong_within

#: The first draw is large enough that a file with half of the error allowed is certified without further checks this
#: often. With 0.9 a third more would be checked each time, to save checks in one file of ten.
POWER = 0.8
#: Errors such as 0.07 of 100 records are 7 records, although the product is a little less as a float.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Design:
    """What is fixed before the first answer.

    `n` records are certified, of which `population` had not been checked by anybody. `drawn` of these are drawn at
    random. At most `error` of the `n` may be wrong, except with probability `risk`. `acceptance` is the most wrong
    records of the draw that a beginning may hold to be accepted; -1: the draw is too small to accept any.
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
    """The most records of `n` that may be wrong where a share of `error` may be."""
    return floor(n * error + _ROUNDING)


def design_of(n: int, error: float, risk: float, *, checked: int = 0, drawn: int | None = None) -> Design:
    """The design for `n` records of which `checked` were checked before; `drawn` None: as many as `draw_size` says."""
    population = n - checked
    allowed = allowed_of(n, error)
    size = draw_size(population, allowed, risk) if drawn is None else min(drawn, population)
    return Design(n, population, size, error, risk, acceptance_of(population, size, allowed, risk))


def acceptance_of(population: int, drawn: int, allowed: int, risk: float) -> int:
    """The most wrong records of the draw with which `allowed` + 1 wrong ones in the file are unlikely; -1: not even 0.

    Unlikely means that a draw of a file with that many would hold so few with probability `risk` at most.
    """
    if population <= allowed:
        return population
    seen = -1
    while is_unlikely(wrong_within(population, allowed + 1, drawn, seen + 1), risk):
        seen += 1
    return seen


def draw_size(population: int, allowed: int, risk: float) -> int:
    """How many records to draw at first: 0 where nothing needs to be known, and never more than there are.

    The least with which a file with half of the allowed wrong records is accepted whole with probability `POWER`: the
    plan of acceptance sampling with two points (Schilling and Neubauer, "Acceptance sampling in quality control").
    """
    if population <= allowed:
        return 0
    good = allowed // 2
    for acceptance in range(allowed + 1):
        size = _least_draw(population, allowed + 1, acceptance, risk)
        if wrong_within(population, good, size, acceptance) >= POWER:
            return size
    return population


def _least_draw(population: int, wrong: int, acceptance: int, risk: float) -> int:
    """The smallest draw in which at most `acceptance` of the `wrong` records are found with probability `risk`."""
    low, high = acceptance + 1, population
    while low < high:
        middle = (low + high) // 2
        if is_unlikely(wrong_within(population, wrong, middle, acceptance), risk):
            high = middle
        else:
            low = middle + 1
    return low


def accepted(design: Design, wrong: Sequence[int]) -> int:
    """How many records from the most certain one on may keep their labels, of the design's `population`.

    `wrong` are the places (from 0) of those records of the draw that are wrong, unclear or not answered yet.
    """
    if design.acceptance < 0:
        return 0
    if len(wrong) <= design.acceptance:
        return design.population
    return sorted(wrong)[design.acceptance]


def error_bound(design: Design, wrong: int) -> float:
    """The upper bound for the share of the `n` records that are wrong in a beginning with `wrong` of the draw's.

    It holds at the design's level for the whole file, and for the beginning that `accepted` gives, although that one
    was looked for. A shorter beginning than the whole file holds exactly `acceptance` wrong records of the draw, so its
    bound is a number B that was fixed before. Either more than B records of the file are wrong: then the bound fails
    only if the shortest beginning with more than B is accepted, which is one event about one fixed set. Or not more
    than B are: then it can fail for the whole file only, which is a fixed set as well.
    """
    if not design.population:
        return 0.0
    return most_wrong(design.population, design.drawn, wrong, design.risk) / design.n


def accepted_weighted(
    wrong: Sequence[tuple[int, float]], population: int, n: int, error: float, most_weight: float, risk: float
) -> int:
    """`accepted` for a draw whose records had different probabilities: by betting instead of counting.

    `wrong` are places and probabilities of the wrong records of the draw; `most_weight` is the largest 1/probability of
    all records. The money against the mean `error` (see `betting_upper`) only falls with each further wrong record, so
    the argument above holds. A beginning is accepted while the money is 1/`risk` or more.
    """
    # The mean is over the records that were open to the draw; those checked before hold no error.
    mean = min(1.0, error * n / population) if population else 1.0
    found: Counter[float] = Counter()
    if log_money(found, population, most_weight, mean) < -log(risk):
        return 0
    for place, probability in sorted(wrong):
        found[1 / probability] += 1
        if log_money(found, population, most_weight, mean) < -log(risk):
            return place
    return population
