"""What the ledger says of records' labels, without all that a whole outcome holds: a million rows in seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.records import JSON
from pipeline.store.queries import chunks, placeholders
from pipeline.store.rows import bound, json_value, unbound

_SELECT = "SELECT seq, key, status, problem_code, label, cost_usd, latency_s, {fields} FROM outcomes"
_WITH, _WITHOUT = _SELECT.format(fields="fields"), _SELECT.format(fields="NULL")
LABELLED = "labelled"
DAMAGED = "internal_error"


@dataclass(slots=True)
class LabelRow:
    """One record's label. Not frozen only because a million are made in a row.

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


def labels_of(connection: sqlite3.Connection, keys: Sequence[str], fields: bool) -> dict[str, LabelRow]:
    """The labels of those of the keys that have an outcome."""
    found: dict[str, LabelRow] = {}
    for chunk in chunks(keys):
        rows = connection.execute(
            f"{_WITH if fields else _WITHOUT} WHERE key IN ({placeholders(chunk)})",
            [bound(key) for key in chunk],
        )
        found.update((row.key, row) for row in map(_row, rows))
    return found


def labels_after(connection: sqlite3.Connection, seq: int, limit: int, fields: bool) -> list[LabelRow]:
    """The next labels, in the order in which they were committed."""
    rows = connection.execute(f"{_WITH if fields else _WITHOUT} WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
    return [_row(row) for row in rows]


def _row(row: Sequence[Any]) -> LabelRow:
    seq, key, status, code, text, cost_usd, latency_s, fields = row
    try:
        label = json_value(text) if status == LABELLED else None
        found = json_value(fields)
        rows: tuple[Mapping[str, JSON], ...] | None = None
        if isinstance(label, list):
            label, rows = label[0], tuple(label[1:])
    except (ValueError, TypeError, LookupError):  # a damaged row: `verify` names it
        return LabelRow(seq, unbound(key), "rejected", DAMAGED, None, None, None, None, {})
    return LabelRow(seq, unbound(key), status, code, label, rows, cost_usd, latency_s, found)
