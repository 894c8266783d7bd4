"""Reads the labels in the ledger without the rest of each outcome: a million rows in seconds."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pipeline import codec
from pipeline.records import JSON
from pipeline.store.queries import chunks, placeholders
from pipeline.store.rows import bound, json_value, labelled, unbound
from pipeline.store.schema import connect_reader

_SELECT = "SELECT seq, key, status, problem_code, label, cost_usd, latency_s, {fields} FROM outcomes"
_WITH, _WITHOUT = _SELECT.format(fields="fields"), _SELECT.format(fields="NULL")
_Label: TypeAlias = tuple[Mapping[str, JSON] | None, tuple[Mapping[str, JSON], ...] | None]
LABELLED = "labelled"
DAMAGED = "internal_error"
#: How many rows are read at once.
BLOCK = 1_000
_NONE: _Label = (None, None)


class LabelRow(NamedTuple):
    """One record's label. It is a tuple because there may be a million.

    `label` is None if there is none: `status` and `code` are the reason. `rows` is None if the record is one row;
    otherwise `label` is common to each of `rows`. `fields` are the record's, None unless requested.
    """

    seq: int
    key: str
    status: str
    code: str | None
    label: Mapping[str, JSON] | None
    rows: tuple[Mapping[str, JSON], ...] | None
    cost_usd: float | None
    latency_s: float | None
    fields: Mapping[str, JSON] | None


def labels_of(connection: sqlite3.Connection, keys: Sequence[str], *, fields: bool = False) -> dict[str, LabelRow]:
    """Return the labels of the keys that have an outcome; with `fields`, also the records' fields."""
    statement = _WITH if fields else _WITHOUT
    rows: list[Sequence[Any]] = []
    for chunk in chunks(keys):
        where = f"WHERE key IN ({placeholders(chunk)})"
        rows += _selected(connection, f"{statement} {where}", [bound(key) for key in chunk])
    return {row.key: row for row in _rows(rows)}


def labels_after(
    connection: sqlite3.Connection, seq: int, limit: int = BLOCK, *, fields: bool = False
) -> list[LabelRow]:
    """Return the next labels in the order of commits."""
    statement = _WITH if fields else _WITHOUT
    return _rows(_selected(connection, f"{statement} WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)))


def label_hash(row: LabelRow) -> int:
    """Return what a label adds to a population's digest, a sum modulo 2**128, which does not depend on the order."""
    return int.from_bytes(codec.digest128(codec.canonical([row.key, row.label])), "big")


def population_digest(ledger: Path) -> str:
    """Return the digest of all labels of one row, as in a draw from all of them. Reads the disk."""
    total = seq = 0
    with closing(connect_reader(ledger)) as connection:
        while block := labels_after(connection, seq):
            seq = block[-1].seq
            total += sum(label_hash(row) for row in block if row.label is not None and row.rows is None)
    return f"{total % 2**128:032x}"


def _selected(connection: sqlite3.Connection, statement: str, values: Sequence[Any]) -> list[Sequence[Any]]:
    """Return the rows, with SQLite's own fast decoding of texts, or with the connection's if SQLite's fails."""
    usual = connection.text_factory
    connection.text_factory = str
    try:
        return connection.execute(statement, values).fetchall()
    except sqlite3.OperationalError:  # a text that is not UTF-8; any other error is raised again below
        connection.text_factory = usual
        return connection.execute(statement, values).fetchall()
    finally:
        connection.text_factory = usual


def _rows(rows: Iterable[Sequence[Any]]) -> list[LabelRow]:
    # Many records have the same label, and looking up a text is faster than parsing it.
    known: dict[str, _Label] = {}
    labels: list[LabelRow] = []
    add, made = labels.append, partial(tuple.__new__, LabelRow)
    for seq, key, status, code, text, cost_usd, latency_s, fields in rows:
        name = key if type(key) is str else unbound(key)
        try:
            label = _NONE if status != LABELLED else known.get(text)
            if label is None:
                label = known[text] = labelled(_read(text))
            values = None if fields is None else _read(fields)
        except (ValueError, TypeError, LookupError, AttributeError):  # a damaged row, which `verify` reports
            add(LabelRow(seq, name, "rejected", DAMAGED, None, None, None, None, {}))
        else:
            add(made((seq, name, status, code, *label, cost_usd, latency_s, values)))
    return labels


def _read(text: str) -> JSON:
    """Parse a JSON text fast, and round numbers that no float can represent."""
    try:
        return codec.loads(text)
    except codec.JSONDecodeError:
        return json_value(text)
