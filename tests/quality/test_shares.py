"""Corrected shares and pseudo-outcomes: right on average where the labels are not."""

from __future__ import annotations

from collections import Counter
from random import Random
from statistics import NormalDist, mean

import pytest

from pipeline.quality import AnsweredRecord, class_shares, pseudo_outcome

ANSWERS = ["a"] * 300 + ["b"] * 150 + ["c"] * 50
#: The labels take a third of b for a, and never know c.
LABELS = ["a"] * 300 + ["a"] * 50 + ["b"] * 100 + ["b"] * 50


def drawn(places: list[int], probability: float) -> list[AnsweredRecord]:
    return [AnsweredRecord(LABELS[i], ANSWERS[i], probability) for i in places]


def test_corrected_shares_are_right_on_average_and_their_intervals_cover() -> None:
    random = Random(4)
    found: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    covered: Counter[str] = Counter()
    for _ in range(400):
        shares = class_shares(Counter(LABELS), drawn(random.sample(range(500), 80), 80 / 500))
        for one, truth in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
            share = shares[one]
            assert share.corrected is not None
            assert share.low is not None
            assert share.high is not None
            found[one].append(share.corrected)
            covered[one] += share.low <= truth <= share.high
    assert mean(found["a"]) == pytest.approx(0.6, abs=0.01)
    assert mean(found["b"]) == pytest.approx(0.3, abs=0.01)
    assert mean(found["c"]) == pytest.approx(0.1, abs=0.01)
    assert all(0.92 <= count / 400 <= 1 for count in covered.values())


def test_the_interval_is_that_of_bonett_and_price() -> None:
    """8 changes to the class and 3 away from it in 100 answers, from a file so large that the draw is a small part."""
    answered = (
        [AnsweredRecord("x", "y", 1e-9)] * 8
        + [AnsweredRecord("y", "x", 1e-9)] * 3
        + [AnsweredRecord("x", "x", 1e-9)] * 89
    )
    share = class_shares({"x": 50, "y": 50}, answered)["y"]
    up, down = 9 / 102, 4 / 102
    half = NormalDist().inv_cdf(0.975) * ((up + down - (up - down) ** 2) / 102) ** 0.5
    assert share.corrected == pytest.approx(0.5 + 0.05)
    assert (share.low, share.high) == pytest.approx((0.5 + up - down - half, 0.5 + up - down + half), rel=1e-3)


def test_answers_for_all_records_leave_nothing_uncertain() -> None:
    shares = class_shares(Counter(LABELS), drawn(list(range(500)), 1.0))
    assert {one: (share.raw, share.corrected, share.low, share.high) for one, share in shares.items()} == {
        "a": pytest.approx((0.7, 0.6, 0.6, 0.6)),
        "b": pytest.approx((0.3, 0.3, 0.3, 0.3)),
        "c": pytest.approx((0.0, 0.1, 0.1, 0.1)),
    }


def test_without_answers_there_is_no_correction() -> None:
    share = class_shares({"a": 3, "b": 1}, [])["a"]
    assert (share.raw, share.corrected, share.n) == (0.75, None, 0)
    assert class_shares({}, []) == {}


def test_no_change_seen_is_not_certainty() -> None:
    share = class_shares({"a": 50, "b": 50}, [AnsweredRecord("a", "a", 0.1)] * 10)["a"]
    assert share.corrected == 0.5
    assert share.low is not None
    assert share.high is not None
    assert share.low < 0.45 < 0.55 < share.high


def test_a_regression_on_pseudo_outcomes_finds_the_true_difference() -> None:
    """The labels are wrong in one group only: their difference of means is wrong, the pseudo-outcomes' is not."""
    random = Random(6)
    group = [i % 2 for i in range(1000)]
    answer = [float(random.random() < 0.5) for _ in range(1000)]
    label = [0.0 if one and random.random() < 0.4 else value for one, value in zip(group, answer, strict=True)]
    differences = []
    for _ in range(120):
        chosen = set(random.sample(range(1000), 200))
        pseudo = [pseudo_outcome(label[i], answer[i] if i in chosen else None, 0.2) for i in range(1000)]
        differences.append(_difference(pseudo, group))
    assert _difference(label, group) < _difference(answer, group) - 0.15
    assert mean(differences) == pytest.approx(_difference(answer, group), abs=0.03)


def _difference(values: list[float], group: list[int]) -> float:
    return mean(v for v, g in zip(values, group, strict=True) if g) - mean(
        v for v, g in zip(values, group, strict=True) if not g
    )
