"""What the ledger says of records' labels, without all that a whole outcome holds: a million rows in seconds."""

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
#: Rows that are read together.
BLOCK = 1_000
_NONE: _Label = (None, None)


class LabelRow(NamedTuple):
    """One record's label. A tuple, for there may be a million.

    `label` is None where there is none: `status` and `code` say why. `rows` is None where the record is one row; else
    each is a row to which `label` is common. `fields` are the record's, None where they were not asked for.
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
    """The labels of those of the keys that have an outcome; with `fields` those of the records too."""
    statement = _WITH if fields else _WITHOUT
    rows: list[Sequence[Any]] = []
    for chunk in chunks(keys):
        where = f"WHERE key IN ({placeholders(chunk)})"
        rows += _selected(connection, f"{statement} {where}", [bound(key) for key in chunk])
    return {row.key: row for row in _rows(rows)}


def labels_after(
    connection: sqlite3.Connection, seq: int, limit: int = BLOCK, *, fields: bool = False
) -> list[LabelRow]:
    """The next labels, in the order in which they were committed."""
    statement = _WITH if fields else _WITHOUT
    return _rows(_selected(connection, f"{statement} WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)))


def label_hash(row: LabelRow) -> int:
    """What a label adds to the digest of a population, modulo 2**128: the sum of all does not depend on their order."""
    return int.from_bytes(codec.digest128(codec.canonical([row.key, row.label])), "big")


def population_digest(ledger: Path) -> str:
    """The digest of the labels of one row each, as a draw among all of them has it. Waits for the disk."""
    total = seq = 0
    with closing(connect_reader(ledger)) as connection:
        while block := labels_after(connection, seq):
            seq = block[-1].seq
            total += sum(label_hash(row) for row in block if row.label is not None and row.rows is None)
    return f"{total % 2**128:032x}"


def _selected(connection: sqlite3.Connection, statement: str, values: Sequence[Any]) -> list[Sequence[Any]]:
    """The rows, their texts made by SQLite's own code, which is faster; by the connection's if that cannot read one."""
    usual = connection.text_factory
    connection.text_factory = str
    try:
        return connection.execute(statement, values).fetchall()
    except sqlite3.OperationalError:  # a text that is no UTF-8; where it is anything else it comes again
        connection.text_factory = usual
        return connection.execute(statement, values).fetchall()
    finally:
        connection.text_factory = usual


def _rows(rows: Iterable[Sequence[Any]]) -> list[LabelRow]:
    # Many records have the same label, and looking up a text is faster than reading it.
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
        except (ValueError, TypeError, LookupError, AttributeError):  # a damaged row: `verify` names it
            add(LabelRow(seq, name, "rejected", DAMAGED, None, None, None, None, {}))
        else:
            add(made((seq, name, status, code, *label, cost_usd, latency_s, values)))
    return labels


def _read(text: str) -> JSON:
    """A JSON text, fast; numbers that no float holds are rounded."""
    try:
        return codec.loads(text)
    except codec.JSONDecodeError:
        return json_value(text)
