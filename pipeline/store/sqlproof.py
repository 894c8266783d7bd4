"""Whether the SQL table is what the ledger says, value for value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import LabelpipeError
from pipeline.records import JSON
from pipeline.store import queries
from pipeline.store.changes import GENERATION
from pipeline.store.layout import Layout, Table
from pipeline.store.schema import connect_reader
from pipeline.store.sqlcolumns import Column, from_text, kinds_before, planned, values_of
from pipeline.store.sqldatabase import Database, connect
from pipeline.store.sqltable import BLOCK, rows_of

_MEND = "Drop it and give the run's command again: it is made anew from the ledger."


@dataclass(frozen=True, slots=True)
class SqlPlace:
    """Where a run's table is, as its ledger says. `url` is None where it holds a password: it is in `url_env` then."""

    table: str
    url: str | None
    url_env: str | None

    @classmethod
    def from_text(cls, text: str) -> SqlPlace:
        """Back from what the ledger keeps."""
        return cls(**codec.loads_exact(text))


@dataclass(frozen=True, slots=True)
class Found:
    """What came of the comparison. `rows` are those that agree."""

    ok: bool
    rows: int
    detail: str


_MISSING = Found(False, 0, "is missing. Give the run's command again: it is made anew from the ledger.")


def compare(url: str, place: SqlPlace, ledger: Path, layout: Layout) -> Found:
    """Compare the table with the ledger; memory stays flat. Waits for the database: call it in a thread."""
    reader = connect_reader(ledger)
    try:
        database = connect(url, place.table, read_only=True)
    except LabelpipeError as error:
        reader.close()
        return Found(True, 0, f"not compared: {error}")
    try:
        if database.is_missing_file():
            return _MISSING
        with database.transaction() as connection:
            return _compared(connection, database, reader, layout)
    except LabelpipeError as error:
        return Found(False, 0, f"cannot be read: {error}")
    finally:
        database.close()
        reader.close()


def _compared(connection: Any, database: Database, reader: Any, layout: Layout) -> Found:
    if not database.has_table(connection) or not database.has_progress(connection):
        return _MISSING
    row, run_id = database.read_progress(connection), queries.meta_get(reader, "run_id")
    if row is None or row.run_id != run_id:
        return Found(False, 0, "is not this run's. Name another in output.sql.table.")
    columns, table = from_text(row.columns_json), layout.label_table()
    is_old = str(row.generation) != (queries.meta_get(reader, GENERATION) or "0")
    if is_old or planned(columns, table, kinds_before(columns, table)) is None:
        return Found(True, 0, "is to be made anew, and the run's next session does it.")
    agreed = 0
    found = database.rows(connection, columns)
    for agreed, expected in enumerate(_expected(reader, table, columns, row.seq)):
        if list(next(found, ())) != [agreed + 1, *expected]:
            return Found(False, agreed, f"differs from the ledger in row {agreed + 1:,}. {_MEND}")
    if next(found, None) is not None:
        return Found(False, row.rows_written, f"has more rows than the ledger's {row.rows_written:,}. {_MEND}")
    rest = ", and the rest is still to come" if queries.last_seq(reader) > row.seq else ""
    return Found(True, row.rows_written, f"{row.rows_written:,} rows, value for value those of the ledger{rest}.")


def _expected(reader: Any, table: Table, columns: tuple[Column, ...], upto: int) -> Iterator[list[JSON]]:
    """The values of every row of the outcomes up to this seq."""
    seq = 0
    while block := [found for found in queries.rows_after(reader, seq, BLOCK) if found[0] <= upto]:
        yield from (values_of(columns, table, row) for row in rows_of(table, block))
        seq = block[-1][0]
