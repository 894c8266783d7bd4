"""Texts that are nearly the same: MinHash signatures, candidates by bands, and each candidate pair measured.

The measure is the Jaccard similarity of two texts: how many of their shingles (runs of 5 characters of the normalized
text) they share, of all that either has. Candidates come from locality-sensitive hashing (Leskovec, Rajaraman, Ullman,
Mining of Massive Datasets, chapter 3): texts are compared where one band of their signatures is equal. A signature is
made by one permutation hashing (Li, Owen, Zhang 2012), repeated with other permutations for short texts; a bin that
stays empty is a copy of another one (Shrivastava 2017, Optimal densification). Two bins are equal with a probability
that is just the similarity.

All of it is here, because the packages for it (datasketch) bring numpy and scipy into every installation.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Sequence, Set
from functools import lru_cache
from zlib import crc32

from pipeline.codec import digest128

#: Characters in a shingle.
SHINGLE = 5
#: Bins in a signature, a power of 2: more cost time for each text, fewer find less of what is similar.
BINS = 128
#: The share of pairs just at the threshold that the bands must find; of pairs above it they find more.
RECALL = 0.995
#: So many shingles are put into bins: of fewer, bins that are copies of others would find less.
STEPS = BINS * 3 // 2
#: A text is compared with at most this many others of one band, or a million texts of one template would take days.
LOOKS = 32
#: Texts whose shingles are kept while a band is looked at: one of 200 kB takes 800 kB.
KEPT = 2 * LOOKS
#: Texts that are hashed together.
_BLOCK = 500

_SPACE = re.compile(r"\s+")
#: What Unicode calls default ignorable: soft hyphens, zero-width spaces and joiners, marks of direction, byte order
#: marks, variation selectors. Two texts that differ only in these look the same.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)
_MASK = 2**32 - 1
#: As far is the number of the bin in a hash.
_SHIFT = 32 - BINS.bit_length() + 1
#: Above every hash: nothing is in the bin.
_NONE = 2**64
#: An odd number: a product with it, in 32 bits, puts all numbers in another order.
_FACTOR = 0x9E3779B1
#: For each bin the other ones, in an order of its own.
_OTHERS = [
    sorted(set(range(BINS)) - {place}, key=lambda other: crc32(b"%d %d" % (place, other))) for place in range(BINS)
]


def normalized(text: str) -> str:
    """The text without what makes no difference: case, spacing, compatibility characters, and what is not seen."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", _UNSEEN.sub("", text))
    return _SPACE.sub(" ", plain.casefold()).strip()


def shingles(text: str) -> Set[int]:
    """The hashes of the runs of 5 characters of a normalized text; of a shorter text that of all of it."""
    starts = range(max(1, len(text) - SHINGLE + 1))
    if text.isascii():
        data = text.encode()
        return {crc32(data[start : start + SHINGLE]) for start in starts}
    return {crc32(text[start : start + SHINGLE].encode("utf-8", "surrogatepass")) for start in starts}


def jaccard(one: Set[int], other: Set[int]) -> float:
    """The share of the shingles of either that both have, 0 to 1."""
    both = len(one & other)
    return both / (len(one) + len(other) - both)


def signature(hashes: Set[int]) -> list[int]:
    """BINS numbers; each is equal in two signatures with the probability of the two sets' similarity."""
    found, factor = [_NONE] * BINS, _FACTOR
    for turn in range(-(-STEPS // len(hashes))):
        # What an earlier permutation put into a bin is smaller, and stays.
        base = turn << 32
        for one in hashes:
            mixed = one * factor & _MASK
            place = mixed >> _SHIFT
            mixed += base
            if mixed < found[place]:
                found[place] = mixed
        factor = factor * _FACTOR & _MASK
    return [value if value != _NONE else _copied(found, place) for place, value in enumerate(found)]


def _copied(found: Sequence[int], place: int) -> int:
    """What stands for an empty bin: the first full one in an order of its own."""
    return next(found[other] for other in _OTHERS[place] if found[other] != _NONE)


def rows_in_band(threshold: float) -> int:
    """As many bins to a band as still find pairs at the threshold: `1 - (1 - t^rows)^bands` is RECALL or more."""
    fitting = [rows for rows in range(1, BINS + 1) if 1 - (1 - threshold**rows) ** (BINS // rows) >= RECALL]
    return max(fitting, default=1)


def bands(hashes: Set[int], rows: int) -> list[int]:
    """A number for each band of the signature: texts that share one are candidates."""
    values = signature(hashes)
    return [hash((start, *values[start : start + rows])) for start in range(0, BINS - rows + 1, rows)]


# -- many texts, in a file ---------------------------------------------------------------------------------------------


class Texts:
    """Normalized texts by their numbers, and which of them are similar. They lie in a database file, not in memory."""

    def __init__(self, database: sqlite3.Connection, threshold: float) -> None:
        self._database = database
        self._threshold = threshold
        self._rows = rows_in_band(threshold)
        database.execute("CREATE TABLE texts (id INTEGER PRIMARY KEY, digest BLOB, text BLOB)")
        database.execute("CREATE TABLE bands (band INTEGER, id INTEGER)")

    def add(self, texts: list[tuple[int, str]]) -> None:
        """Keep these texts under their numbers."""
        rows = ((number, text.encode("utf-8", "surrogatepass")) for number, text in texts)
        self._database.executemany(
            "INSERT INTO texts VALUES (?, ?, ?)", ((at, digest128(data), data) for at, data in rows)
        )

    def similar(self, is_known: Callable[[int, int], bool]) -> Iterator[tuple[int, int]]:
        """The pairs of similar texts; of those that are known to belong together only some.

        Of texts that are the same, only the first is looked at.
        """
        self._fill_bands()
        known_hashes = lru_cache(KEPT)(self._hashes)
        found = self._database.execute("SELECT band, id FROM bands ORDER BY band, id")
        last, before = None, list[int]()
        for band, number in found:
            if band != last:
                last, before = band, [number]
                continue
            for other in before[-LOOKS:]:
                if not is_known(other, number) and self._are_similar(known_hashes(other), known_hashes(number)):
                    yield other, number
            before.append(number)

    def _fill_bands(self) -> None:
        distinct = self._database.execute(
            "SELECT id, text FROM texts WHERE id IN (SELECT MIN(id) FROM texts GROUP BY digest)"
        )
        while block := distinct.fetchmany(_BLOCK):
            found = ((number, shingles(data.decode("utf-8", "surrogatepass"))) for number, data in block)
            # Another text whose only shingle it is is the same text.
            rows = ((band, at) for at, hashes in found if len(hashes) > 1 for band in bands(hashes, self._rows))
            self._database.executemany("INSERT INTO bands VALUES (?, ?)", rows)

    def _hashes(self, number: int) -> array[int]:
        """As an array, which takes a tenth of what a set takes."""
        (data,) = self._database.execute("SELECT text FROM texts WHERE id = ?", (number,)).fetchone()
        return array("I", shingles(data.decode("utf-8", "surrogatepass")))

    def _are_similar(self, one: array[int], other: array[int]) -> bool:
        shorter, longer = sorted((len(one), len(other)))
        return shorter >= self._threshold * longer and jaccard(set(one), set(other)) >= self._threshold
