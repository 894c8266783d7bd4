"""How well a drawn share is known, and how many answers more it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality import Estimate, answers_needed, estimate_share, weighted_mean, wilson


def test_equal_probabilities_are_wilsons() -> None:
    hits = [True] * 188 + [False] * 12
    assert estimate_share(hits, [0.025] * 200) == Estimate(0.94, *wilson(188, 200), 200)
    assert estimate_share([], []) == Estimate(None, None, None, 0)


def test_other_probabilities_are_the_weighted_mean() -> None:
    hits, chances = [True, True, False, True], [1.0, 0.1, 0.1, 0.5]
    expected = weighted_mean([1.0, 1.0, 0.0, 1.0], chances)
    found = estimate_share(hits, chances)
    assert (found.mean, found.n) == (expected.mean, 4)
    assert expected.low is not None
    assert found.low == max(0.0, expected.low)
    assert found.high == 1.0


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=30, unique=True), st.booleans())
def test_the_interval_has_a_width_where_all_are_alike(chances: list[float], hit: bool) -> None:
    found = estimate_share([hit] * len(chances), chances)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < found.high <= 1
    assert found.mean == float(hit)
    # Unequal weights never tell more than as many equal ones.
    low, high = wilson(len(chances) * hit, len(chances))
    assert found.high - found.low >= (high - low) * (1 - 1e-9)


@pytest.mark.parametrize(("right", "n"), [(47, 50), (94, 100), (10, 20), (30, 30)])
def test_as_many_more_are_enough(right: int, n: int) -> None:
    found = estimate_share([True] * right + [False] * (n - right), [0.1] * n)
    more = answers_needed(found, 0.02)
    assert found.low is not None
    assert found.high is not None
    middle, total = (found.low + found.high) / 2, n + more
    widths = [high - low for low, high in (wilson(middle * size, size) for size in (total - 1, total))]
    assert widths[1] / 2 <= 0.02 < widths[0] / 2
    assert answers_needed(estimate_share([True] * 600 + [False] * 20, [0.1] * 620), 0.02) == 0
