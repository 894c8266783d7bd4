"""Labels that come in other shares: the statistic, and how often it cries wolf."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from pipeline.quality import shift_of
from pipeline.quality.hypothesis_tests import _chi_squared_tail


@pytest.mark.parametrize(
    ("statistic", "degrees", "tail"),
    [
        (3.841, 1, 0.05),
        (5.991, 2, 0.05),
        (18.307, 10, 0.05),
        (10.828, 1, 0.001),
        (23.209, 10, 0.01),
        (124.342, 100, 0.05),
    ],
)
def test_the_tail_is_that_of_the_published_table(statistic: float, degrees: int, tail: float) -> None:
    assert _chi_squared_tail(statistic, degrees) == pytest.approx(tail, rel=0.25)


def test_equal_shares_are_no_shift_and_other_ones_are() -> None:
    before = Counter(a=500, b=300, c=200)
    distance, chance = shift_of(before, Counter(a=250, b=150, c=100))
    assert distance == 0
    assert chance > 0.99
    distance, chance = shift_of(before, Counter(a=100, b=150, c=250))
    assert distance == pytest.approx(0.3)
    assert chance < 1e-12


@pytest.mark.parametrize(("before", "now"), [({}, {}), ({"a": 5}, {}), ({"a": 5}, {"a": 9}), ({"a": 2}, {"b": 2})])
def test_too_little_tells_nothing(before: dict[str, int], now: dict[str, int]) -> None:
    assert shift_of(before, now)[1] == 1.0


def test_chance_alone_is_called_a_shift_as_often_as_it_says() -> None:
    rng = random.Random(7)
    weights = [50, 30, 15, 4, 1]
    draws = 1_000
    alarms = sum(
        shift_of(Counter(rng.choices("abcde", weights, k=1500)), Counter(rng.choices("abcde", weights, k=300)))[1]
        < 0.05
        for _ in range(draws)
    )
    assert 0.03 < alarms / draws < 0.075
