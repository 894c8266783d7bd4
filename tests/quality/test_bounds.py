"""Bounds from draws, against scipy, and against every draw that a small file allows."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.quality import betting_upper, clopper_pearson, most_wrong, weighted_mean, wrong_within


@st.composite
def draws(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """(records, wrong ones, drawn, wrong ones among them at most)."""
    n = draw(st.integers(1, 3000))
    return n, draw(st.integers(0, n)), draw(st.integers(0, n)), draw(st.integers(-1, n))


@given(draws())
def test_the_hypergeometric_distribution_is_that_of_scipy(case: tuple[int, int, int, int]) -> None:
    n, wrong, drawn, seen = case
    assert wrong_within(n, wrong, drawn, seen) == pytest.approx(
        stats.hypergeom.cdf(seen, n, wrong, drawn), rel=1e-7, abs=1e-12
    )


@given(draws(), st.sampled_from([0.1, 0.05, 0.001]))
def test_no_more_are_wrong_than_the_last_number_that_is_likely_enough(
    case: tuple[int, int, int, int], risk: float
) -> None:
    n, _, drawn, seen = case
    seen = min(max(seen, 0), drawn)
    most = most_wrong(n, drawn, seen, risk)
    assert stats.hypergeom.cdf(seen, n, most, drawn) > risk * (1 - 1e-6)
    if most < n - (drawn - seen):
        assert stats.hypergeom.cdf(seen, n, most + 1, drawn) <= risk


def test_a_file_that_was_drawn_whole_is_known() -> None:
    assert most_wrong(40, 40, 3, 0.05) == 3
    assert most_wrong(40, 0, 0, 0.05) == 40
    assert most_wrong(2_000_000, 400, 10, 0.05) / 2_000_000 == pytest.approx(0.04203, abs=1e-4)


@given(st.integers(1, 2000), st.integers(0, 2000), st.sampled_from([0.9, 0.95, 0.999]))
def test_clopper_and_pearson_is_that_of_scipy(drawn: int, seen: int, confidence: float) -> None:
    seen = min(seen, drawn)
    oracle = stats.binomtest(seen, drawn).proportion_ci(confidence, "exact")
    assert clopper_pearson(seen, drawn, confidence) == pytest.approx((oracle.low, oracle.high), abs=1e-9)


@pytest.mark.parametrize("wrong", [1, 3, 6])
def test_the_betting_bound_holds_over_all_draws_of_a_small_file(wrong: int) -> None:
    """Every draw of 4 out of 10: the share of those whose bound is below the truth is at most the risk."""
    below = [
        betting_upper([10 / 4] * len(set(range(wrong)) & set(drawn)), 10, 10 / 4, 0.3) < wrong / 10
        for drawn in combinations(range(10), 4)
    ]
    assert sum(below) / len(below) <= 0.3


@pytest.mark.parametrize("design", ["random", "strata", "union"])
def test_the_betting_bound_holds_for_weighted_draws_and_says_something(design: str) -> None:
    random = Random(7)
    n, risk, rounds = 400, 0.1, 200
    losses = [1.0 if random.random() < (0.4 if i < 80 else 0.05) else 0.0 for i in range(n)]
    chances = {
        "random": [0.25] * n,
        "strata": [0.75] * 80 + [0.125] * 320,
        "union": [1 - 0.5 * 0.8] * 80 + [0.2] * 320,
    }[design]
    most, truth, below, total = max(1 / one for one in chances), sum(losses) / n, 0, 0.0
    for _ in range(rounds):
        bound = betting_upper([losses[i] / chances[i] for i in _drawn(design, random)], n, most, risk)
        below += bound < truth
        total += bound
    assert below / rounds <= risk
    assert total / rounds < 2.5 * truth


def _drawn(design: str, random: Random) -> set[int]:
    """Records of 400, of which the first 80 are the uncertain ones."""
    if design == "random":
        return set(random.sample(range(400), 100))
    if design == "strata":
        return {*random.sample(range(80), 60), *random.sample(range(80, 400), 40)}
    return {*random.sample(range(80), 40), *random.sample(range(400), 80)}


def test_a_weighted_mean_is_right_on_average_and_its_interval_covers() -> None:
    random = Random(3)
    values = [float(i < 90) for i in range(300)]
    chances = [0.6 if i < 60 else 0.15 for i in range(300)]
    means, covered = [], 0
    for _ in range(600):
        drawn = [*random.sample(range(60), 36), *random.sample(range(60, 300), 36)]
        found = weighted_mean([values[i] for i in drawn], [chances[i] for i in drawn])
        assert found.mean is not None
        assert found.low is not None
        assert found.high is not None
        means.append(found.mean)
        covered += found.low <= 0.3 <= found.high
    assert sum(means) / 600 == pytest.approx(0.3, abs=0.006)
    assert 0.91 <= covered / 600 <= 0.99


def test_what_was_drawn_for_certain_has_no_width_and_one_answer_has_none() -> None:
    known = weighted_mean([1.0, 0.0, 0.0, 1.0], [1.0] * 4)
    assert (known.mean, known.low, known.high) == (0.5, 0.5, 0.5)
    assert weighted_mean([1.0], [0.5]).low is None
    assert weighted_mean([], []).mean is None
