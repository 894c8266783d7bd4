"""Finds nearly identical texts: MinHash signatures, candidates by bands, and a measurement of each candidate pair.

The measure is the Jaccard similarity of two texts: how many of their shingles (runs of 5 characters of the normalized
text) they share, of all that either has. Candidates come from locality-sensitive hashing (Leskovec, Rajaraman, Ullman,
Mining of Massive Datasets, chapter 3): texts are compared if one band of their signatures is equal. A signature is
computed by one permutation hashing (Li, Owen, Zhang 2012), repeated with other permutations for short texts; a bin that
stays empty is a copy of another one (Shrivastava 2017, Optimal densification). The probability that two bins are equal
is the similarity. Of a long text only a sample of the shingles is hashed, chosen by a hash of their characters, so that
similar texts choose the same ones.

A candidate pair is compared first by one byte of each bin (Li, König 2010, b-bit minwise hashing), and by all of its
shingles only if these do not decide it.

This is our own code, because the packages for it (datasketch) bring numpy and scipy into every installation.
"""

from __future__ import annotations

import sqlite3
import unicodedata
from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from functools import lru_cache
from itertools import compress, islice, pairwise
from math import comb, sqrt
from operator import itemgetter
from re import compile as pattern

from pipeline.codec import digest64

#: Characters in a shingle.
SHINGLE = 5
#: Bins in a signature, a power of 2. More take more time for each text; fewer find fewer similar texts.
BINS = 32
#: The share of pairs exactly at the threshold that the bands must find. They find more of the pairs above it.
RECALL = 0.995
#: How many hashes to put into bins: with fewer, bins that are copies of others would find less.
STEPS = 2 * BINS
#: The most bands: with more, a band may have more bins, and fewer texts share one by chance.
BANDS = 32
#: Enough shingles of a text: longer texts are sampled.
ENOUGH = BINS
#: A text is compared with at most this many others of one band, or a million texts of one template would take days.
LOOKS = 32
#: How many texts' shingles are cached while a band is processed.
CACHED_SHINGLES = 2 * LOOKS
#: More shingles than this are stored as an array: those of 200 kB take 16 MB as a set.
_LONG = 10_000
#: How many texts are hashed together.
_BLOCK = 500
#: How many numbers of a band are processed together: sorted, they take 20 MB.
_TOGETHER = 500_000

#: What Unicode calls default ignorable: soft hyphens, zero-width spaces and joiners, direction marks, byte order marks,
#: variation selectors. Two texts that differ only in these look the same.
_UNSEEN = pattern(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)


def _shuffled(count: int, salt: int) -> list[int]:
    """Return the numbers below `count` in an order that looks random and never changes."""
    return sorted(range(count), key=lambda number: digest64(b"%d %d" % (salt, number)))


#: Bits of a hash: with more, each step on it takes twice as long. The lowest bits are the number of its bin.
_BITS = 30
_MASK = 2**_BITS - 1
_PLACE = BINS - 1
_PLACES = set(range(BINS))
#: An odd number: a product with it, in 30 bits, permutes all numbers.
_FACTOR = 0x9E3779B1
#: For each bin, all bins in an order of its own.
_OTHERS = [_shuffled(BINS, salt) for salt in range(BINS)]
#: For each place in a shingle, a hash of a byte.
_HASHES = [bytes(_shuffled(256, place)) for place in range(SHINGLE)]
#: For each level of sampling, a table that marks the chosen hashes: a quarter of those of the level below.
_CHOSEN = [bytes(value < 256 >> 2 * level for value in range(256)) for level in range(5)]
#: Marks the lowest bit of each byte of a sketch.
_LOWEST = int("01" * BINS, 16)


def comparable_text(text: str) -> str:
    """Return the text without differences of case, spacing, compatibility characters, and invisible characters."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", _UNSEEN.sub("", text))
    return " ".join(plain.casefold().split())


def shingles(text: str, level: int = 0) -> Set[int]:
    """Return the hashes of the runs of 5 characters of a normalized text; of a shorter text, that of all of it.

    On a higher level, this is a sample, which may be empty: a quarter of those of the level below.
    """
    lows = text.encode() if text.isascii() else text.encode("utf-32-le", "surrogatepass")
    signs = lows if text.isascii() else array("I", lows)
    runs: Iterator[tuple[int, ...]] = zip(*(signs[place:] for place in range(SHINGLE)), strict=False)
    if level:
        runs = compress(runs, _sampling(lows if text.isascii() else lows[::4]).translate(_CHOSEN[level]))
    hashes = map(hash, runs) if level or len(signs) >= SHINGLE else [hash(tuple(signs))]
    return {one & _MASK for one in hashes}


def _sampling(lows: bytes) -> bytes:
    """Return a one-byte hash of each shingle from the low bytes of its characters: large numbers avoid a loop."""
    count, mixed = len(lows) - SHINGLE + 1, 0
    for place, hashes in enumerate(_HASHES):
        mixed ^= int.from_bytes(lows[place : place + count].translate(hashes), "little")
    return mixed.to_bytes(count, "little")


def samples(text: str, threshold: float) -> Iterator[tuple[int, Set[int]]]:
    """Yield the shingles of a text for its signatures, with their level: similar texts have a level in common."""
    # A text that is a little longer than a similar one may have enough on a level on which the other has fewer.
    nearly = ENOUGH * threshold * 0.8
    level = min(len(_CHOSEN) - 1, max(0, int(len(text) / nearly).bit_length() - 1) // 2)
    while True:
        hashes = shingles(text, level)
        if len(hashes) >= nearly or not level:
            yield level, hashes
        if len(hashes) >= ENOUGH or not level:
            return
        level -= 1


def jaccard(one: Set[int], other: Set[int]) -> float:
    """Return the share of all shingles that both sets have, 0 to 1."""
    both = len(one & other)
    return both / (len(one) + len(other) - both)


def signature(hashes: Set[int]) -> list[int]:
    """Return BINS numbers. The probability that one is equal in two signatures is the similarity of the two sets."""
    full: dict[int, int] = {}
    # A power of 2, so that two sets of similar size are rarely hashed a different number of times.
    for turn in range(1 << max(0, STEPS.bit_length() - len(hashes).bit_length())):
        # The last one that is put into a bin stays: the smallest. One from an earlier permutation also stays.
        ordered = sorted(_permuted(hashes, turn) if turn else hashes, reverse=True)
        full = {one & _PLACE: one for one in ordered} | full
    # An empty bin is a copy of the first full one in its own order.
    full |= {place: next(full[other] for other in _OTHERS[place] if other in full) for place in _PLACES - full.keys()}
    return [full[place] for place in range(BINS)]


def _permuted(hashes: Set[int], turn: int) -> list[int]:
    """Permute the hashes: multiply by an odd number, and mix the high bits into the low ones."""
    factor = _FACTOR ** (turn + 1) & _MASK
    return [(mixed := one * factor & _MASK) ^ mixed >> 15 for one in hashes]


def rows_in_band(threshold: float) -> tuple[int, int]:
    """Return the bins in a band, and the bands: the most bins that still find RECALL of the pairs at the threshold.

    With so few bins, the share of equal ones is spread around the similarity (binomial distribution).
    """
    spread = [
        (equal, comb(BINS, equal) * threshold**equal * (1 - threshold) ** (BINS - equal)) for equal in range(BINS + 1)
    ]
    for rows in range(BINS, 0, -1):
        missed = [(chance, 1 - comb(equal, rows) / comb(BINS, rows)) for equal, chance in spread]
        for count in range(1, BANDS + 1):
            if sum(chance * miss**count for chance, miss in missed) <= 1 - RECALL:
                return rows, count
    raise AssertionError("one bin in a band finds them")


def bands_of(threshold: float) -> list[Callable[[Sequence[int]], tuple[int, ...]]]:
    """Return the functions that take the bands out of a signature: texts that share one are candidates."""
    rows, count = rows_in_band(threshold)
    places = (
        _shuffled(BINS, salt)[start : start + rows]
        for salt in range(BINS, 2 * BINS + BANDS)
        for start in range(0, BINS - rows + 1, rows)
    )
    return [itemgetter(*some, some[0]) for some in islice(places, count)]


def sketch(values: Sequence[int]) -> bytes:
    """Return one byte of each number of a signature."""
    return bytes([value >> 10 & 255 for value in values])


def differences(one: int, other: int) -> int:
    """Return in how many bytes two sketches differ."""
    bits = one ^ other
    bits |= bits >> 4
    bits |= bits >> 2
    bits |= bits >> 1
    return (bits & _LOWEST).bit_count()


def most_differences(threshold: float) -> int:
    """Return the most bytes in which the sketches of similar texts differ, except for one pair in a thousand."""
    share = 1 - threshold
    return round(BINS * share + 3.3 * sqrt(BINS * share * (1 - share)))


# -- many texts, in a file ---------------------------------------------------------------------------------------------


class Texts:
    """Finds similar texts among numbered, normalized texts. They are in a database file, not in memory."""

    def __init__(self, database: sqlite3.Connection, threshold: float) -> None:
        self._database = database
        self._threshold = threshold
        self._bands = bands_of(threshold)
        self._most = most_differences(threshold)
        # Mutable state: for each signature, the number of its text and its sketch.
        self._of = array("q")
        self._sketches = bytearray()
        database.execute("CREATE TABLE texts (id INTEGER PRIMARY KEY, digest BLOB, text BLOB)")
        database.execute("CREATE TABLE bands (band INTEGER, numbers BLOB)")

    def add(self, texts: Iterable[tuple[int, bytes, bytes]]) -> None:
        """Store these texts: their numbers, digests, and UTF-8."""
        self._database.executemany("INSERT INTO texts VALUES (?, ?, ?)", texts)

    def similar(self, is_known: Callable[[int, int], bool]) -> Iterator[tuple[int, int]]:
        """Yield the pairs of similar texts, but only some of those that are known to belong together.

        Of identical texts, only the first is compared.
        """
        self._sign()
        of, shingles_of = self._of, lru_cache(CACHED_SHINGLES)(self._shingles)
        for one, other in self._candidates():
            number, before = of[one], of[other]
            if not is_known(before, number) and self._are_similar(shingles_of(before), shingles_of(number)):
                yield before, number

    def _sign(self) -> None:
        self._database.execute("CREATE TEMP TABLE firsts AS SELECT MIN(id) AS id FROM texts GROUP BY digest ORDER BY 1")
        texts = self._database.execute("SELECT id, text FROM firsts JOIN texts USING (id)")
        while block := texts.fetchmany(_BLOCK):
            columns = [array("q") for _ in self._bands]
            for number, data in block:
                self._add_signatures(number, data.decode("utf-8", "surrogatepass"), columns)
            self._database.executemany(
                "INSERT INTO bands VALUES (?, ?)", ((band, column.tobytes()) for band, column in enumerate(columns))
            )
        self._database.execute("CREATE INDEX by_band ON bands (band)")

    def _add_signatures(self, number: int, text: str, columns: Sequence[array[int]]) -> None:
        for level, hashes in samples(text, self._threshold):
            # Texts whose only shingle is the same are identical.
            if len(hashes) < 2:
                continue
            values = signature(hashes)
            self._of.append(number)
            self._sketches += sketch(values)
            for column, band in zip(columns, self._bands, strict=True):
                column.append(hash((level, band(values))))

    def _candidates(self) -> Iterator[tuple[int, int]]:
        """Yield pairs of signatures that share a band and whose sketches are similar."""
        size, most = BINS, self._most
        for band in range(len(self._bands)):
            column = array("q")
            for (numbers,) in self._database.execute(
                "SELECT numbers FROM bands WHERE band = ? ORDER BY rowid", (band,)
            ):
                column.frombytes(numbers)
            for group in _groups(column):
                before = deque[tuple[int, int]](maxlen=LOOKS)
                for one in group:
                    mine = int.from_bytes(self._sketches[one * size : (one + 1) * size], "little")
                    for other, its in before:
                        if differences(mine, its) <= most:
                            yield one, other
                    before.append((one, mine))

    def _shingles(self, number: int) -> Collection[int]:
        (data,) = self._database.execute("SELECT text FROM texts WHERE id = ?", (number,)).fetchone()
        hashes = shingles(data.decode("utf-8", "surrogatepass"))
        return hashes if len(hashes) <= _LONG else array("I", hashes)

    def _are_similar(self, one: Collection[int], other: Collection[int]) -> bool:
        shorter, longer = sorted((len(one), len(other)))
        return shorter >= self._threshold * longer and jaccard(_set(one), _set(other)) >= self._threshold


def _set(hashes: Collection[int]) -> Set[int]:
    return hashes if isinstance(hashes, set) else set(hashes)


def _groups(column: array[int]) -> Iterator[list[int]]:
    """Yield the places of each number that occurs more than once."""
    parts = 1 + len(column) // _TOGETHER
    for part in range(parts):
        numbers = sorted(column if parts == 1 else [number for number in column if number % parts == part])
        again = {one for one, other in pairwise(numbers) if one == other}
        del numbers
        places = defaultdict[int, list[int]](list)
        for place, number in enumerate(column) if again else ():
            if number in again:
                places[number].append(place)
        yield from places.values()
