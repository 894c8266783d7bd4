"""The test of canaries, looked at after every answer."""

from __future__ import annotations

from random import Random

import pytest

from pipeline.quality import evidence_below, is_clearly_below


def stops_at(accuracy: float, floor: float, answers: int, random: Random) -> int | None:
    """After how many answers the run is stopped; None where it is not."""
    right = 0
    for n in range(1, answers + 1):
        right += random.random() < accuracy
        if is_clearly_below(right, n, floor, 0.9):
            return n
    return None


def test_a_run_at_the_floor_is_rarely_stopped_however_often_it_is_looked_at() -> None:
    random = Random(1)
    stopped = sum(stops_at(0.85, 0.85, 200, random) is not None for _ in range(150))
    assert stopped / 150 <= 0.1 + 3 * (0.1 * 0.9 / 150) ** 0.5


def test_a_bad_run_is_stopped_soon() -> None:
    random = Random(2)
    ends = [stops_at(0.6, 0.85, 300, random) for _ in range(40)]
    assert sorted(end or 301 for end in ends)[36] <= 100


def test_the_evidence_is_the_money_of_a_bet_without_gain() -> None:
    """On average the next answer changes nothing if the accuracy is the floor."""
    for right, n, floor in [(0, 0, 0.8), (7, 10, 0.8), (40, 61, 0.55)]:
        now = evidence_below(right, n, floor)
        rising, falling = evidence_below(right, n + 1, floor), evidence_below(right + 1, n + 1, floor)
        assert floor * falling + (1 - floor) * rising == pytest.approx(now)
        assert rising > now > falling


def test_the_ends() -> None:
    assert evidence_below(0, 0, 0.9) == 1
    assert evidence_below(50, 50, 1.0) == 1
    assert is_clearly_below(49, 50, 1.0)
    assert is_clearly_below(0, 10**6, 0.9)
    assert not is_clearly_below(10**6, 10**6, 0.9)
    with pytest.raises(ValueError, match="is 0"):
        evidence_below(1, 2, 0)
