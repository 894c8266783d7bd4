"""Near-duplicates: what the bands find, beside every pair measured."""

from __future__ import annotations

import random
import sqlite3
from itertools import combinations

import pytest
from export_samples import texts
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exports.similar import BINS, RECALL, Texts, jaccard, normalized, rows_in_band, shingles, signature


def edited(text: str, edits: int, dice: random.Random) -> str:
    signs = list(text)
    for _ in range(edits):
        signs[dice.randrange(len(signs))] = dice.choice("abcdefgh가나다")
    return "".join(signs)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.88])
def test_every_similar_pair_is_found_and_no_other(threshold: float) -> None:
    dice = random.Random(3)
    some = [normalized(edited(text, edits, dice)) for text in texts(range(25)) for edits in (0, 1, 2, 4, 8)]
    database = sqlite3.connect("", isolation_level=None)
    kept = Texts(database, threshold)
    kept.add(list(enumerate(some)))
    found = {tuple(sorted(pair)) for pair in kept.similar(lambda _one, _other: False)}
    database.close()
    hashes = [shingles(text) for text in some]
    wanted = {
        (one, other)
        for one, other in combinations(range(len(some)), 2)
        if jaccard(hashes[one], hashes[other]) >= threshold and some[one] != some[other]
    }
    assert found == wanted
    assert 10 < len(wanted) < 400


@given(st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=300))
def test_a_signature_has_a_number_in_each_bin(hashes: set[int]) -> None:
    found = signature(hashes)
    assert len(found) == BINS
    assert found == signature(frozenset(hashes))


def test_bins_are_equal_as_often_as_the_sets_are_similar() -> None:
    dice = random.Random(5)
    equal = 0
    for _ in range(200):
        numbers = [dice.randrange(2**32) for _ in range(120)]
        one, other = signature(set(numbers[:100])), signature(set(numbers[20:]))
        equal += sum(a == b for a, b in zip(one, other, strict=True))
    assert equal / (200 * BINS) == pytest.approx(80 / 120, abs=0.02)


def test_the_bands_find_what_is_said() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9, 1.0):
        rows = rows_in_band(threshold)
        assert 1 - (1 - threshold**rows) ** (BINS // rows) >= RECALL
