"""Near-duplicates: what the bands find, beside every pair measured."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from itertools import combinations

import pytest
from export_samples import texts
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exports.near_duplicates import (
    BINS,
    ENOUGH,
    RECALL,
    Texts,
    comparable_text,
    differences,
    jaccard,
    most_differences,
    rows_in_band,
    samples,
    shingles,
    signature,
    sketch,
)


def edited(text: str, edits: int, dice: random.Random) -> str:
    signs = list(text)
    for _ in range(edits):
        signs[dice.randrange(len(signs))] = dice.choice("abcdefgh가나다")
    return "".join(signs)


def found_in(some: list[str], threshold: float) -> set[tuple[int, int]]:
    database = sqlite3.connect("", isolation_level=None)
    kept = Texts(database, threshold)
    kept.add((at, text.encode(), text.encode()) for at, text in enumerate(some))
    found = set[tuple[int, int]]()
    for pair in kept.similar(lambda one, other: (min(one, other), max(one, other)) in found):
        found.add((min(pair), max(pair)))
    database.close()
    return found


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.88])
def test_every_similar_pair_is_found_and_no_other(threshold: float) -> None:
    dice = random.Random(3)
    some = [comparable_text(edited(text, edits, dice)) for text in texts(range(25)) for edits in (0, 1, 2, 4, 8)]
    hashes = [shingles(text) for text in some]
    wanted = {
        (one, other)
        for one, other in combinations(range(len(some)), 2)
        if jaccard(hashes[one], hashes[other]) >= threshold and some[one] != some[other]
    }
    assert found_in(some, threshold) == wanted
    assert 10 < len(wanted) < 400


def neighbors(dice: random.Random) -> Iterator[tuple[str, str]]:
    """Texts of 3 words to 8 kB, also without spaces, each with an edited one."""
    words = ["".join(dice.choices("abcdefghijklmnoprstu", k=dice.randint(2, 9))) for _ in range(9_000)]
    for at in range(300):
        if at % 5 == 4:
            text = "".join(chr(0x4E00 + dice.randrange(3_000)) for _ in range(dice.randint(8, 400)))
        else:
            text = " ".join(dice.sample(words, [dice.randint(3, 6), 15, 60, 1_200 if at % 50 == 3 else 100][at % 5]))
        place = dice.randrange(len(text))
        yield (
            text,
            [
                edited(text, 1 + len(text) // 50, dice),
                f"{text[:place]}, {text[place:]}!",
                f"{text} {' '.join(dice.sample(words, 2 + len(text) // 50))}",
                text[place:] + text[:place],
            ][at % 4],
        )


def test_edited_texts_are_found_whatever_their_length() -> None:
    """Typos, punctuation, words at the end, and parts that changed places."""
    pairs = [(comparable_text(one), comparable_text(other)) for one, other in neighbors(random.Random(5))]
    near = [(one, other) for one, other in pairs if 1 > jaccard(shingles(one), shingles(other)) >= 0.8]
    found = found_in([text for pair in near for text in pair], 0.8)
    assert len(near) > 150
    assert min(len(one) for one, _ in near) < 25 < 6_000 < max(len(one) for one, _ in near)
    assert sum((2 * at, 2 * at + 1) in found for at in range(len(near))) >= RECALL * len(near)


def test_of_a_long_text_a_sample_is_hashed() -> None:
    long = " ".join(texts(range(200)))
    (some,) = [hashes for level, hashes in samples(long, 0.8) if level]
    assert ENOUGH <= len(some) < 8 * ENOUGH
    assert some < shingles(long)
    assert [level for level, _ in samples("of a short one all are", 0.8)] == [0]


@given(st.sets(st.integers(0, 2**30 - 1), min_size=1, max_size=300))
def test_a_signature_has_a_number_in_each_bin(hashes: set[int]) -> None:
    found = signature(hashes)
    assert len(found) == BINS
    assert found == signature(frozenset(hashes)) != signature({one + 1 for one in hashes})


def test_bins_are_equal_as_often_as_the_sets_are_similar() -> None:
    dice = random.Random(5)
    equal = 0
    for _ in range(200):
        numbers = [dice.randrange(2**30) for _ in range(120)]
        one, other = signature(set(numbers[:100])), signature(set(numbers[20:]))
        equal += sum(a == b for a, b in zip(one, other, strict=True))
    assert equal / (200 * BINS) == pytest.approx(80 / 120, abs=0.02)


def test_a_sketch_tells_how_many_numbers_differ() -> None:
    one, other = (signature(shingles(text)) for text in ("as it was said before", "as it was said before, again"))
    apart = sum(a != b for a, b in zip(one, other, strict=True))
    read = [int.from_bytes(sketch(values), "little") for values in (one, other)]
    assert 0 < differences(*read) == apart < most_differences(0.8)


def test_fewer_bands_of_more_bins_for_a_higher_threshold() -> None:
    assert rows_in_band(0.5)[0] < rows_in_band(0.8)[0] < rows_in_band(0.9)[0]
    assert rows_in_band(1.0) == (BINS, 1)
