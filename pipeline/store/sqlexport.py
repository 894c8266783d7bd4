"""Writes the run's labels to a table in a database: an upsert by key that can be repeated.

An export is one transaction, made from the ledger as it is when the export begins. A reader of the table therefore sees
the rows before it or after it, a kill leaves those before it, and a session may run meanwhile. Only rows that differ
are written. Everything here waits for the database: call it in a thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipeline import codec
from pipeline.errors import ConfigError, LabelpipeError, SetupError, StoreError
from pipeline.records import Outcome
from pipeline.store import queries
from pipeline.store.columntypes import common_kind, infer_kinds
from pipeline.store.correctionset import read_corrections
from pipeline.store.difference import FileProof
from pipeline.store.layout import Layout, Table
from pipeline.store.parquet import table_rows
from pipeline.store.schema import connect_reader, store_errors
from pipeline.store.sqlcolumns import Column, from_text, key_of, kinds_before, planned, to_text, values_of
from pipeline.store.sqldatabase import FREE, Database, Row, connect
from pipeline.store.writes import GENERATION

#: How many outcomes are read at once.
BLOCK = 500
#: How often an export is tried if labeled records are archived or changed meanwhile.
TRIES = 5
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SqlTarget:
    """A table, or `schema.table`, of the database at a SQLAlchemy URL, which may contain a password."""

    url: str = field(repr=False)
    table: str


@dataclass(frozen=True, slots=True)
class SqlPlace:
    """Where a run's table is. A `url` that contains a password is not saved: `url` is None, and `url_env` names it."""

    table: str
    url: str | None
    url_env: str | None

    def to_text(self) -> str:
        """Return the text that the ledger saves."""
        return codec.dumps(asdict(self)).decode()

    @classmethod
    def from_text(cls, text: str) -> SqlPlace:
        """Read what `to_text` returned."""
        return cls(**codec.loads_exact(text))


@dataclass(frozen=True, slots=True)
class TableExport:
    """The result of an export: `place` is the table and its database without secrets, `rows` counts all rows now.

    `made_anew` means that the table was dropped and created, because a column has another type or name now.
    """

    place: str
    table: str
    rows: int
    added: int
    updated: int
    removed: int
    made_anew: bool


def export_table(target: SqlTarget, ledger: Path, *, whole: bool) -> TableExport:
    """Make the table hold the rows of all labeled records. With `whole`, include columns without any value.

    Raises ConfigError if the table is not this run's, SetupError if there are no rows to write, StoreError if the
    database or the ledger cannot be used.
    """
    with closing(connect(target.url, target.table)) as database:
        return _with_stable_ledger(ledger, lambda view: _export(database, view, target.table, whole=whole))


def _export(database: Database, view: _LedgerView, name: str, *, whole: bool) -> TableExport:
    table, kinds = view.table_with_kinds()
    with database.transaction() as connection, closing(_RowIds()) as wanted:
        known = _claimed(database, connection, view)
        columns, made_anew = _fitted(database, connection, known, table, kinds, whole=whole)
        rows = added = updated = 0
        for block in view.rows(table, columns):
            new, changed = _differing(database, connection, columns, block)
            database.insert(connection, columns, new)
            database.update(connection, columns, changed)
            wanted.add(row_id for row_id, _ in block)
            rows, added, updated = rows + len(block), added + len(new), updated + len(changed)
        removed = _remove_others(database, connection, wanted)
        database.note(connection, view.progress(rows, columns))
        view.check()
    return TableExport(str(database), name, rows, added, updated, removed, made_anew)


def claim_table(target: SqlTarget, ledger: Path) -> None:
    """Create the table, or require that it is this run's, before anything is paid for. Raises SetupError."""
    with (
        _setup_errors(),
        _open_view(ledger) as view,
        closing(connect(target.url, target.table)) as database,
        database.transaction() as connection,
    ):
        _claimed(database, connection, view)


def check_table(target: SqlTarget, ledger: Path) -> bool:
    """Whether the table exists. Changes nothing; the ledger may not exist yet.

    Raises SetupError as `claim_table` does, if the run of this ledger cannot use the table.
    """
    run_id = None
    if ledger.exists():
        with _open_view(ledger) as view:
            run_id = view.run_id
    with closing(connect(target.url, target.table, read_only=True)) as database:
        if database.is_missing_file():
            return False
        with _setup_errors(), database.transaction() as connection:
            return _is_ours(database, connection, run_id, _folder_of(ledger))


def release_table(target: SqlTarget, ledger: Path) -> None:
    """Leave the table of this ledger's run to the next run in its folder; another run's table is unchanged.

    Its rows stay until the next run writes. Raises SetupError.
    """
    with _open_view(ledger) as view, closing(connect(target.url, target.table)) as database:
        if view.run_id is None or database.is_missing_file():
            return
        with _setup_errors(), database.transaction() as connection:
            if database.has_progress(connection):
                database.release(connection, view.run_id, _folder_of(ledger))


@contextmanager
def _setup_errors() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise SetupError(str(error)) from None


def compare_table(target: SqlTarget, ledger: Path) -> FileProof:
    """Compare the table, value for value, with the ledger's rows up to the last export. Memory stays flat."""
    name = f"table {target.table}"
    try:
        database = connect(target.url, target.table, read_only=True)
    except LabelpipeError as error:
        return FileProof(name, True, 0, f"not compared: {error}")
    try:
        with closing(database):
            is_missing = database.is_missing_file()
            return FileProof(
                name, *(_MISSING if is_missing else _with_stable_ledger(ledger, lambda at: _compared(database, at)))
            )
    except LabelpipeError as error:
        return FileProof(name, False, 0, f"cannot be read: {error}")


_MEND = "`labelpipe export` writes it again from the ledger."
_OLD = "is older than the ledger's rows. The end of a session, or labelpipe export, brings it up to date."
_MISSING = (False, 0, f"is missing. {_MEND}")


def _compared(database: Database, view: _LedgerView) -> tuple[bool, int, str]:
    with database.transaction() as connection:
        if not database.has_table(connection) or not database.has_progress(connection):
            return _MISSING
        row = database.read_progress(connection)
        if row is None or row.run_id != view.run_id:
            return False, 0, "belongs to another run. Name another in output.sql.table."
        columns, table = from_text(row.columns_json), view.layout().label_table()
        is_old = row.generation != view.generation or not database.has_key(connection)
        if is_old or planned(columns, table, kinds_before(columns, table)) is None:
            return True, 0, _OLD
        fault = _fault(database, connection, columns, view.rows(table, columns, upto=row.seq), row.rows_written)
        view.check()
    if fault:
        return False, row.rows_written, f"{fault} {_MEND}"
    rest = ", and the rest is still to come" if view.last_seq > row.seq else ""
    return True, row.rows_written, f"{row.rows_written:,} rows, value for value those of the ledger{rest}."


def _fault(
    database: Database, connection: Any, columns: Sequence[Column], blocks: Iterator[list[Row]], rows: int
) -> str:
    """Return what is wrong with the table's rows, or an empty text."""
    for block in blocks:
        new, changed = _differing(database, connection, columns, block)
        for (key, _), _ in new:
            return f"lacks the row of {key}."
        for (key, _), _ in changed:
            return f"differs from the ledger in the row of {key}."
    count = database.count(connection)
    return f"has {count:,} rows, and {rows:,} were written." if count != rows else ""


def _differing(
    database: Database, connection: Any, columns: Sequence[Column], block: Sequence[Row]
) -> tuple[list[Row], list[Row]]:
    """Return the rows that the table lacks, and those that it has with other values."""
    there = database.fetch(connection, columns, {key for (key, _), _ in block})
    new = [row for row in block if row[0] not in there]
    return new, [row for row in block if row[0] in there and there[row[0]] != row[1]]


def _fitted(
    database: Database, connection: Any, known: Sequence[Column], table: Table, kinds: Sequence[str], *, whole: bool
) -> tuple[tuple[Column, ...], bool]:
    """Return the table's columns, changed so that the rows fit, and whether the table was recreated for that."""
    wider = list(map(common_kind, kinds_before(known, table), kinds))
    columns = planned(known, table, wider, whole=whole)
    if columns is not None:
        database.add_columns(connection, columns, columns[len(known) :])
    else:
        columns = planned((), table, kinds, whole=whole) or ()
        database.drop(connection)
        database.make(connection, columns)
        return columns, True
    return columns, False


def _remove_others(database: Database, connection: Any, wanted: _RowIds) -> int:
    """Delete the rows that belong to no labeled record anymore, and return how many."""
    for ids in database.ids(connection):
        wanted.add_existing(ids)
    removed = 0
    for ids in wanted.unwanted():
        database.delete(connection, ids)
        removed += len(ids)
    return removed


def _claimed(database: Database, connection: Any, view: _LedgerView) -> tuple[Column, ...]:
    """Claim or create the table, and return its columns. Raises ConfigError if it is not this run's."""
    assert view.run_id is not None
    _is_ours(database, connection, view.run_id, _folder_of(view.path))
    database.claim(connection, view.run_id, _folder_of(view.path))
    if database.has_key(connection):
        return from_text(database.read_progress(connection).columns_json)
    database.drop(connection)
    database.make(connection, ())
    return ()


def _is_ours(database: Database, connection: Any, run_id: str | None, run_dir: str) -> bool:
    """Whether the table exists and is this run's, or was left to it. Raises ConfigError if it is another run's."""
    if not database.has_table(connection):
        return False
    row = database.read_progress(connection) if database.has_progress(connection) else None
    if row is not None and (row.run_id == run_id or (row.run_id, row.run_dir) == (FREE, run_dir)):
        return True
    whose = "was not made by labelpipe" if row is None else f"holds the labels of another run, the one in {row.run_dir}"
    raise ConfigError(f"{database} is there and {whose}. Nothing in it was touched. Choose another name, or drop it.")


def _folder_of(ledger: Path) -> str:
    return str(ledger.parent.absolute())


class _ChangedMeanwhileError(Exception):
    """Labeled records were archived or changed, so the export must start again."""


def _with_stable_ledger(ledger: Path, work: Callable[[_LedgerView], _T]) -> _T:
    """Return the result of `work` on the ledger at one moment. Raises StoreError if the ledger keeps changing."""
    for _ in range(TRIES):
        with _open_view(ledger) as view, suppress(_ChangedMeanwhileError):
            return work(view)
    raise StoreError(f"{ledger.parent}: the labelled records change too fast. Run the command again in a minute.")


@contextmanager
def _open_view(ledger: Path) -> Iterator[_LedgerView]:
    """Yield the ledger as it is now. Raises SetupError if there is none, StoreError if it cannot be read."""
    # Errors of the database are already StoreErrors.
    with store_errors(ledger), closing(connect_reader(ledger)) as reader:
        yield _LedgerView(ledger, reader)


class _LedgerView:
    """A ledger at one moment: its outcomes up to the last seq, which change only with the generation.

    It holds no transaction, which would keep a running session from shortening its write-ahead log.
    """

    def __init__(self, path: Path, reader: sqlite3.Connection) -> None:
        self.path = path
        self._reader = reader
        self.run_id = queries.meta_get(reader, "run_id")
        self._ledgers = self._generation()
        self.last_seq = queries.last_seq(reader)
        wanted = queries.meta_get(reader, "layout_asked")
        self._corrected = read_corrections(path.parent, column=wanted is not None and Layout.from_text(wanted).reviewed)
        #: Both only grow, so the same sum means the same rows.
        self.generation = self._ledgers + self._corrected.version

    def check(self) -> None:
        """Raise _ChangedMeanwhileError if the ledger's outcomes have changed."""
        if self._generation() != self._ledgers:
            raise _ChangedMeanwhileError

    def _generation(self) -> int:
        return int(queries.meta_get(self._reader, GENERATION) or 0)

    def layout(self) -> Layout:
        """Return the layout with the columns of all rows. Raises SetupError if no session has begun yet."""
        text, wanted = queries.meta_get(self._reader, "layout"), queries.meta_get(self._reader, "layout_asked")
        if self.run_id is None or (text is None and wanted is None):
            raise SetupError(f"{self.path.parent}: no row was written yet: start the run first")
        layout = Layout.from_text(text) if text else Layout.from_text(wanted or "").following(None)
        is_same = layout.corrected == self._corrected.version
        for block in self._blocks(int(queries.meta_get(self._reader, "layout_seq") or 0) if is_same else 0):
            layout = layout.grown([outcome for _, outcome in block])
        return layout

    def table_with_kinds(self) -> tuple[Table, list[str]]:
        """Return the table of the labeled rows, and the kind of each of its columns."""
        table = self.layout().label_table()
        kinds = ["nothing"] * len(table.titles)
        for block in self._blocks():
            kinds = infer_kinds(kinds, table_rows(table, block))
        return table, kinds

    def rows(self, table: Table, columns: Sequence[Column], *, upto: int | None = None) -> Iterator[list[Row]]:
        """Yield the rows of the outcomes, all or up to this seq, in blocks."""
        for block in self._blocks(upto=upto):
            yield [
                ((key_of(item[1].record.key), part), values_of(columns, table, values))
                for item in block
                for part, values in enumerate(table_rows(table, [item]), 1)
            ]

    def progress(self, rows: int, columns: Sequence[Column]) -> dict[str, Any]:
        """Return the progress of a table that contains all rows."""
        return {
            "generation": self.generation,
            "seq": self.last_seq,
            "rows_written": rows,
            "columns_json": to_text(columns),
        }

    def _blocks(self, seq: int = 0, upto: int | None = None) -> Iterator[list[tuple[int, Outcome]]]:
        last = self.last_seq if upto is None else min(upto, self.last_seq)
        while block := [item for item in queries.rows_after(self._reader, seq, BLOCK) if item[0] <= last]:
            yield self._corrected.apply_to_block(block)
            seq = block[-1][0]


class _RowIds:
    """The rows that the table must have, in a temporary file, so that memory stays flat."""

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("CREATE TABLE wanted (key, part, PRIMARY KEY (key, part)) WITHOUT ROWID")
        self._file.execute("CREATE TABLE there (key, part)")
        self._file.execute("BEGIN")

    def add(self, row_ids: Iterable[tuple[str, int]]) -> None:
        """Add rows that the table must have."""
        self._file.executemany("INSERT INTO wanted VALUES (?, ?)", row_ids)

    def add_existing(self, row_ids: Iterable[tuple[str, int]]) -> None:
        """Add rows that the table has."""
        self._file.executemany("INSERT INTO there VALUES (?, ?)", row_ids)

    def unwanted(self) -> Iterator[list[tuple[str, int]]]:
        """Yield the rows that the table has and must not have, in blocks."""
        rows = self._file.execute("SELECT key, part FROM there EXCEPT SELECT key, part FROM wanted")
        while block := rows.fetchmany(BLOCK):
            yield block

    def close(self) -> None:
        """Close the file, which deletes it."""
        self._file.close()
