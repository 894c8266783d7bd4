"""Pairs each record of gold with its row in the ledger, in flat memory."""

import hashlib
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

from pipeline import codec
from pipeline.gold import GoldFile, has_value
from pipeline.measure.measured_run import MeasuredRun
from pipeline.records import JSON
from pipeline.store import LabelRow, Ledger

#: How many labels are read from the ledger at once.
BLOCK = 2_000
#: The most keys that a report names.
NAMED_MOST = 5
#: The column that names a row of a record with several rows.
ROW_KEY = "row_key"


class Pair(NamedTuple):
    """One record of gold: its values by column, and its row of the ledger. A tuple, because there may be a million.

    `place` is that of the row that gold refers to, if a record has several.
    """

    key: str
    values: Mapping[str, JSON]
    row: LabelRow
    place: int | None = None


class SeqSet:
    """The ledger's rows that were seen, with one bit each, so that memory stays flat."""

    def __init__(self) -> None:
        # Mutable state: the bits.
        self._bits = bytearray()

    def is_new(self, seq: int) -> bool:
        """Whether the row is seen for the first time. Marks it as seen."""
        at, bit = seq >> 3, 1 << (seq & 7)
        if at >= len(self._bits):
            self._bits.extend(bytes(max(at + 1 - len(self._bits), len(self._bits))))
        if self._bits[at] & bit:
            return False
        self._bits[at] |= bit
        return True


@dataclass(slots=True)
class GoldCounts:
    """What gold contains besides the compared records. All of it is mutable."""

    rows: int = 0
    compared: int = 0
    not_answered: int = 0
    repeated: int = 0
    not_in_run: int = 0
    repeated_keys: list[str] = field(default_factory=list)
    keys_not_in_run: list[str] = field(default_factory=list)

    def record_missing(self, key: str) -> None:
        """Count a key of gold that has no outcome in the run."""
        self.not_in_run += 1
        if len(self.keys_not_in_run) < NAMED_MOST and key not in self.keys_not_in_run:
            self.keys_not_in_run.append(key)

    def record_repeated(self, key: str) -> None:
        """Count a repeated key of gold. The first one is used."""
        self.repeated += 1
        if len(self.repeated_keys) < NAMED_MOST:
            self.repeated_keys.append(key)


async def pairs_of_file(
    ledger: Ledger, gold: GoldFile, counts: GoldCounts, *, fields: bool
) -> AsyncGenerator[list[Pair], None]:
    """Yield the records of a gold file, each key once, with their ledger rows. `fields` adds the records' fields."""
    is_new, make_pair, row_keys = SeqSet().is_new, partial(tuple.__new__, Pair), set[str]()
    by_row = gold.key_column == ROW_KEY
    async with aclosing(gold.batches()) as batches:
        async for batch in batches:
            names = [key for key, _, _ in batch]
            keys, places = _records_of(names) if by_row else (names, repeat(None))
            rows_by_key = await ledger.labels_of(keys, fields=fields)
            pairs: list[Pair] = []
            for (key, _, values), known, place in zip(batch, map(rows_by_key.get, keys), places, strict=False):
                if known is None:
                    counts.record_missing(key)
                elif not values:
                    counts.not_answered += 1
                elif _is_new(key, row_keys) if by_row else is_new(known.seq):
                    pairs.append(make_pair((key, values, known, place)))
                else:
                    counts.record_repeated(key)
            counts.compared += len(pairs)
            yield pairs
    counts.rows = gold.rows


def _is_new(key: str, row_keys: set[str]) -> bool:
    if key in row_keys:
        return False
    row_keys.add(key)
    return True


def _records_of(row_keys: Sequence[str]) -> tuple[list[str], list[int | None]]:
    """Return the records' keys and the places of their rows: `n01#2` -> n01 and 2."""
    parts = [(row_key, *row_key.rpartition("#")) for row_key in row_keys]
    records = [(key, int(place)) if key and place.isdecimal() else (whole, None) for whole, key, _, place in parts]
    return [key for key, _ in records], [place for _, place in records]


async def pairs_of_rows(ledger: Ledger, gold: GoldFile, counts: GoldCounts) -> AsyncGenerator[list[Pair], None]:
    """Do the same for a run whose records have several rows, if gold names records: a record's gold rows are one list.

    Keeps all of the gold in memory.
    """
    gathered: dict[str, dict[str, list[JSON]]] = {}
    async with aclosing(gold.batches()) as batches:
        async for batch in batches:
            for row in batch:
                values = gathered.setdefault(row.key, {})
                for column, value in row.values.items():
                    values.setdefault(column, []).append(value)
    counts.rows = gold.rows
    keys = list(gathered)
    for start in range(0, len(keys), BLOCK):
        part = keys[start : start + BLOCK]
        rows_by_key = await ledger.labels_of(part, fields=True)
        pairs = []
        for key in part:
            if key not in rows_by_key:
                counts.record_missing(key)
            elif not gathered[key]:
                counts.not_answered += 1
            else:
                pairs.append(
                    Pair(key, {name: _single(values) for name, values in gathered[key].items()}, rows_by_key[key])
                )
        counts.compared += len(pairs)
        yield pairs


def _single(values: Sequence[JSON]) -> JSON:
    return values[0] if len(values) == 1 else list(values)


class GoldColumns:
    """The gold in fields of the input. It is read once."""

    def __init__(self, run: MeasuredRun, columns: Sequence[str], counts: GoldCounts) -> None:
        self._run, self._columns, self._counts = run, columns, counts
        # Mutable state: the hash of keys and values so far.
        self._content = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The digest of the keys and values, in the order of the ledger."""
        return self._content.hexdigest()

    async def batches(self) -> AsyncGenerator[list[Pair], None]:
        """Yield the records that have gold."""
        seq, counts = 0, self._counts
        while rows := await self._run.ledger.labels_after(seq, BLOCK, fields=True):
            seq = rows[-1].seq
            pairs = list(self._pairs(rows))
            counts.rows += len(rows)
            counts.not_answered += len(rows) - len(pairs)
            counts.compared += len(pairs)
            yield pairs

    def _pairs(self, rows: Sequence[LabelRow]) -> Iterator[Pair]:
        for row in rows:
            fields = row.fields or {}
            values = {name: value for name in self._columns if has_value(value := fields.get(name))}
            if values:
                self._content.update(codec.dumps([row.key, values]))
                yield Pair(row.key, values, row)


def grouping_keys(pairs: Sequence[Pair], columns: Sequence[str]) -> Sequence[Any]:
    """Return a mark for each pair, equal if their rows, statuses, and values of the columns are equal.

    The pairs must come from one reading of the ledger, in which equal labels are one object.
    """
    if not pairs:
        return ()
    _, values, rows, places = zip(*pairs, strict=True)
    golds = [[one.get(column) for one in values] for column in columns]
    if not {str, type(None)}.issuperset(kind for column in golds for kind in set(map(type, column))):
        return range(len(pairs))  # 1, 1.0, and true are equal in Python, and a list has no hash
    _, _, statuses, codes, labels, parts, *_ = zip(*rows, strict=True)
    return list(zip(map(id, labels), map(id, parts), statuses, codes, places, *golds, strict=True))


def label_value(row: LabelRow, place: int | None, name: str) -> Any:
    """Return the label of this name: of the record, of one of its rows, or without a place of all rows, as a list."""
    common = row.label or {}
    if row.rows is None or (name in common and place is None):
        return common.get(name)
    if place is None:
        return [one[name] for one in row.rows if one.get(name) is not None]
    return {**common, **row.rows[place]}.get(name) if place < len(row.rows) else None
