"""Bounds from draws, against scipy, and a weighted mean over many draws."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import stats

from pipeline.quality import hypergeometric_cdf, max_wrong, weighted_mean


@st.composite
def draws(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """(records, wrong ones, drawn, wrong ones among them at most)."""
    n = draw(st.integers(1, 3000))
    return n, draw(st.integers(0, n)), draw(st.integers(0, n)), draw(st.integers(-1, n))


@given(draws())
def test_the_hypergeometric_distribution_is_that_of_scipy(case: tuple[int, int, int, int]) -> None:
    n, wrong, drawn, seen = case
    assert hypergeometric_cdf(n, wrong, drawn, seen) == pytest.approx(
        stats.hypergeom.cdf(seen, n, wrong, drawn), rel=1e-7, abs=1e-12
    )


@given(draws(), st.sampled_from([0.1, 0.05, 0.001]))
def test_no_more_are_wrong_than_the_last_number_that_is_likely_enough(
    case: tuple[int, int, int, int], risk: float
) -> None:
    n, _, drawn, seen = case
    seen = min(max(seen, 0), drawn)
    most = max_wrong(n, drawn, seen, risk)
    assert stats.hypergeom.cdf(seen, n, most, drawn) > risk * (1 - 1e-6)
    if most < n - (drawn - seen):
        assert stats.hypergeom.cdf(seen, n, most + 1, drawn) <= risk


def test_a_file_that_was_drawn_whole_is_known() -> None:
    assert max_wrong(40, 40, 3, 0.05) == 3
    assert max_wrong(40, 0, 0, 0.05) == 40
    assert max_wrong(2_000_000, 400, 10, 0.05) / 2_000_000 == pytest.approx(0.04203, abs=1e-4)


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
