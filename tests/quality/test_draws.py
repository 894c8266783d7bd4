"""A draw's probabilities are right: over many seeds each record is drawn as often as it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import comb, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality import DrawPart, certain_part, draw_records, lowest_scores, random_part, stratified_part, uniform

KEYS = [f"k{number}" for number in range(12)]
CLASSES = {key: "rare" if number < 3 else "usual" for number, key in enumerate(KEYS)}
#: two are below the last place, which five share
SCORES = {key: [0.1, 0.2, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9][min(number, 7)] for number, key in enumerate(KEYS)}
SEEDS = 3_000

WAYS: dict[str, Callable[[int], Sequence[DrawPart]]] = {
    "sample": lambda seed: [random_part(KEYS, 5, seed)],
    "per_class": lambda seed: [stratified_part(CLASSES, 2, seed)],
    "least": lambda seed: [lowest_scores(SCORES, 4, seed)],
    "mixture": lambda seed: [
        random_part(KEYS, 3, seed),
        stratified_part(CLASSES, 1, seed),
        lowest_scores(SCORES, 3, seed),
        certain_part(KEYS[-1:], kind="where"),
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_each_record_is_drawn_as_often_as_its_probability_says(way: str) -> None:
    """Within five standard errors, so that chance alone fails it about once in 100,000 records."""
    counts: Counter[str] = Counter()
    for seed in range(SEEDS):
        counts.update(pick.key for pick in draw_records(WAYS[way](seed), seed))
    parts = WAYS[way](0)
    chances = dict.fromkeys(KEYS, 1.0)
    for key in KEYS:
        for part in parts:
            chances[key] *= 1 - part.probability(key)
    for key, none in chances.items():
        chance = 1 - none
        assert abs(counts[key] / SEEDS - chance) <= 5 * sqrt(chance * none / SEEDS) + 1e-12, key
    told = {pick.key: pick.probability for pick in draw_records(parts, 0)}
    assert told == {key: pytest.approx(1 - chances[key]) for key in told}


def test_every_sample_is_equally_likely() -> None:
    """Not only each record: with 5 records, each of the ten pairs."""
    pairs = Counter(random_part(KEYS[:5], 2, seed).keys for seed in range(SEEDS))
    chance = 1 / comb(5, 2)
    assert len(pairs) == comb(5, 2)
    for count in pairs.values():
        assert abs(count / SEEDS - chance) <= 5 * sqrt(chance * (1 - chance) / SEEDS)


def test_two_parts_are_independent() -> None:
    both = sum(
        "k0" in random_part(KEYS, 6, seed).keys & stratified_part(CLASSES, 1, seed).keys for seed in range(SEEDS)
    )
    chance = 1 / 2 * 1 / 3
    assert abs(both / SEEDS - chance) <= 5 * sqrt(chance * (1 - chance) / SEEDS)


@given(st.sets(st.text(max_size=3), max_size=30), st.integers(0, 40), st.integers(0, 40), st.integers())
def test_a_larger_draw_holds_the_smaller_one_and_growth_displaces_little(
    keys: set[str], n: int, more: int, seed: int
) -> None:
    part = random_part(keys, n, seed)
    assert len(part.keys) == min(n, len(keys))
    assert part.keys <= random_part(keys, n + more, seed).keys
    grown = random_part(keys | {"added"}, n, seed)
    assert len(part.keys - grown.keys) <= 1


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=20), st.integers(0, 25), st.integers())
def test_the_least_certain_come_first(scores: dict[str, float], n: int, seed: int) -> None:
    part = lowest_scores(scores, n, seed)
    assert sorted(scores[key] for key in part.keys) == sorted(scores.values())[:n]
    assert sum(part.probability(key) for key in scores) == pytest.approx(min(n, len(scores)))


def test_a_small_class_is_drawn_whole_and_told() -> None:
    part = stratified_part(CLASSES, 4, 1)
    picks = draw_records([part], 1)
    assert {pick.key: pick.probability for pick in picks if pick.stratum == "rare"} == {"k0": 1, "k1": 1, "k2": 1}
    assert {pick.probability for pick in picks if pick.stratum == "usual"} == {4 / 9}
    assert part.spec == {"kind": "per_class", "n": 4, "strata": {"rare": 3, "usual": 9}}


def test_a_hash_is_of_the_seed_the_way_and_the_key() -> None:
    values = {uniform(seed, way, key) for seed in (0, 1) for way in ("a", "b") for key in ("x", "y\udc80")}
    assert len(values) == 8
    assert all(0 <= value < 1 for value in values)
