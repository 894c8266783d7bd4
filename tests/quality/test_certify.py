"""The promise of a certificate, by simulation: it fails no more often than it says, and it is worth having."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality import (
    Design,
    draw_size,
    error_bound,
    first_to_check,
    hypergeometric_cdf,
    make_design,
    max_wrong,
)

FILES = 1_000
RISK = 0.05
#: Three standard errors of a share of 0.05 in 1,000 files.
SLACK = 3 * sqrt(RISK * (1 - RISK) / FILES)


def errors_of(kind: str, design: Design, random: Random) -> list[bool]:
    """Whether each record is wrong, in the order of uncertainty."""
    n = design.n
    if kind == "just too many":
        # The hardest file for the promise: accepted whole with `acceptance` found, one too many stays.
        return _exactly(design.allowed + design.acceptance + 1, n, random)
    if kind == "useful":
        # A tenth is wrong, and most of that stands among the least certain fifth.
        return [random.random() < (0.42 if 5 * i > 4 * n else 0.02) for i in range(n)]
    if kind == "useless":
        return [random.random() < 0.1 for _ in range(n)]
    if kind == "misleading":
        return [random.random() < (0.42 if 5 * i < n else 0.02) for i in range(n)]
    return [random.random() < 0.02 for _ in range(n)]


def _exactly(wrong: int, n: int, random: Random) -> list[bool]:
    flags = [True] * wrong + [False] * (n - wrong)
    random.shuffle(flags)
    return flags


def accepted(design: Design, wrong: Sequence[int]) -> int:
    """How many records from the most certain one on may keep their labels. `wrong` are places, from 0."""
    first = first_to_check(design, wrong)
    return design.population if first is None else first


@dataclass(frozen=True)
class Result:
    """`kept` labels of which `stay` are wrong at the end, `seen` wrong ones of the draw among them, `checks` in all."""

    kept: int
    stay: int
    seen: int
    checks: int


def certify(errors: Sequence[bool], design: Design, random: Random) -> Result:
    """People check the draw, then what follows, and correct what is wrong."""
    drawn = random.sample(range(len(errors)), design.drawn)
    wrong = [place for place in drawn if errors[place]]
    kept = accepted(design, wrong)
    seen = sum(place < kept for place in wrong)
    checks = design.drawn + len(errors) - kept - sum(place >= kept for place in drawn)
    return Result(kept, sum(errors[:kept]) - seen, seen, checks)


@pytest.mark.parametrize("n", [150, 600])
@pytest.mark.parametrize("kind", ["just too many", "useful", "useless", "misleading", "good"])
def test_the_promise_holds_over_a_thousand_files(kind: str, n: int) -> None:
    random = Random(f"{kind} {n}")
    design = make_design(n, 0.05, RISK)
    too_wrong = beyond_bound = 0
    for _ in range(FILES):
        result = certify(errors_of(kind, design, random), design, random)
        too_wrong += result.stay > design.allowed
        beyond_bound += result.stay > error_bound(design, result.seen) * n + 1e-9
    assert too_wrong / FILES <= RISK + SLACK
    assert beyond_bound / FILES <= RISK + SLACK


@pytest.mark.parametrize(("drawn", "risk"), [(3, 0.3), (4, 0.2), (5, 0.2)])
def test_the_promise_holds_for_every_small_file_over_all_of_its_draws(drawn: int, risk: float) -> None:
    """Not a sample: each pattern of errors in eight records, with each draw. Two may stay wrong."""
    design = make_design(8, 0.25, risk, drawn=drawn)
    most = [round(error_bound(design, seen) * 8) for seen in range(drawn + 1)]
    draws = list(combinations(range(8), drawn))
    for pattern in range(2**8):
        failed = beyond = 0
        for draw in draws:
            wrong = [place for place in draw if pattern >> place & 1]
            kept = accepted(design, wrong)
            seen = sum(place < kept for place in wrong)
            stay = (pattern & (1 << kept) - 1).bit_count() - seen
            failed += stay > design.allowed
            beyond += stay > most[seen]
        assert max(failed, beyond) <= risk * len(draws)


def test_the_hardest_file_comes_close_to_the_risk() -> None:
    """A bound that never fails would ask for too many checks: with the exact one, the risk is nearly used up."""
    random = Random(11)
    design = make_design(1000, 0.05, RISK)
    hardest = [certify(errors_of("just too many", design, random), design, random) for _ in range(FILES)]
    exact = hypergeometric_cdf(1000, design.allowed + design.acceptance + 1, design.drawn, design.acceptance)
    assert RISK / 2 < exact <= RISK
    assert sum(one.stay > design.allowed for one in hardest) / FILES == pytest.approx(exact, abs=SLACK)


def test_useful_uncertainty_saves_most_of_the_checks() -> None:
    random = Random(5)
    design = make_design(4000, 0.05, RISK)

    def mean_checks(kind: str) -> float:
        return sum(certify(errors_of(kind, design, random), design, random).checks for _ in range(100)) / 100

    useful, useless = mean_checks("useful"), mean_checks("useless")
    assert useful < 0.45 * useless
    assert useless < 4000
    # A good file needs the first draw and, mostly, nothing else.
    assert mean_checks("good") < 1.5 * design.drawn


@given(
    st.integers(1, 400),
    st.sampled_from([0.01, 0.05, 0.2]),
    st.sampled_from([0.05, 0.2]),
    st.integers(0, 2**32),
    st.data(),
)
def test_looking_early_accepts_no_more_than_the_end(
    n: int, error: float, risk: float, seed: int, data: st.DataObject
) -> None:
    """Answers that are not there yet count as wrong, so each look is within what the complete draw accepts."""
    random = Random(seed)
    design = make_design(n, error, risk)
    drawn = random.sample(range(n), design.drawn)
    wrong = {place for place in drawn if random.random() < error * 1.5}
    at_the_end = accepted(design, sorted(wrong))
    missing = set(drawn[: data.draw(st.integers(0, len(drawn)))])
    assert accepted(design, sorted(wrong | missing)) <= at_the_end


@given(st.integers(1, 5000), st.sampled_from([0.005, 0.05, 0.3]), st.sampled_from([0.01, 0.05]), st.integers(0, 100))
def test_the_acceptance_number_is_the_largest_whose_bound_is_within_the_error(
    n: int, error: float, risk: float, checked: int
) -> None:
    checked = min(checked, n)
    design = make_design(n, error, risk, checked=checked)
    if design.population <= design.allowed:
        assert design.drawn == 0
        assert accepted(design, []) == design.population
        return

    def stay(seen: int) -> int:
        return max_wrong(design.population, design.drawn, seen, risk) - seen

    assert design.acceptance >= 0
    assert all(stay(seen) <= design.allowed for seen in range(min(design.acceptance, design.drawn) + 1))
    if design.acceptance < design.drawn:
        assert stay(design.acceptance + 1) > design.allowed


def test_a_draw_that_is_too_small_is_refused_with_the_least_size() -> None:
    with pytest.raises(ValueError, match="at least 56 are needed"):
        make_design(1000, 0.05, 0.05, drawn=55)
    design = make_design(1000, 0.05, 0.05, drawn=56)
    assert design.acceptance == 0
    assert (accepted(design, []), accepted(design, [700, 30])) == (1000, 30)


def test_the_size_of_the_draw_is_known_beforehand() -> None:
    assert draw_size(8000, 400, 0.05) == 324
    # 95 would leave exactly the risk, and a rounded probability is not trusted so far.
    assert draw_size(100, 0, 0.05) == 96
    assert draw_size(30, 30, 0.05) == 0
    # A file of a hundred times as many records needs hardly more.
    assert draw_size(800_000, 40_000, 0.05) <= 1.12 * 324
