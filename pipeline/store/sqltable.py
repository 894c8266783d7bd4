"""The SQL table of labels: a projection of the ledger, in somebody's database.

How far the table has come is in the same database, and changes in the same transaction as the rows. So whatever ends
the process, and whenever, the table's next rows are those after the last that it has: none twice, none left out.
Everything here waits for the database, and is called in a thread of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, StoreError
from pipeline.records import JSON, Outcome
from pipeline.store import queries
from pipeline.store.changes import GENERATION
from pipeline.store.layout import Table
from pipeline.store.schema import connect_reader, use_failure
from pipeline.store.sqlcolumns import (
    Column,
    from_text,
    kinds_before,
    kinds_of,
    planned,
    rows_of_outcome,
    to_text,
    values_of,
)
from pipeline.store.sqldatabase import FREE, Database

#: Outcomes of one transaction at the most.
BLOCK = 500


@dataclass(frozen=True, slots=True)
class Goal:
    """What the table is to hold: the rows of all outcomes up to `upto`.

    `whole`: with every column there is, also those that have had no value in any row.
    """

    table: Table
    upto: int
    whole: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """How far the table has come: all rows of the outcomes up to `seq`, numbered 1 to `rows`.

    It was made when the ledger had this `generation`. -1: nothing of it is worth anything yet.
    """

    generation: int
    seq: int
    rows: int
    columns: tuple[Column, ...]


class _AgainError(Exception):
    """What was begun is worth nothing: asked to end in the middle of it, or outcomes were set aside meanwhile."""


class SqlTable:
    """A run's table. Every method raises StoreError if the database, or the ledger, cannot be used."""

    def __init__(self, database: Database, ledger: Path, *, run_id: str, run_dir: str) -> None:
        self._database = database
        self._path = ledger
        self._run_id = run_id
        self._run_dir = run_dir
        self._ledger: sqlite3.Connection | None = None
        #: asks a long piece of work to end soon; what it has not finished is done by the next
        self.is_over = False

    def claim(self) -> None:
        """Make the table, or find ours. Raises ConfigError if there is one of that name that is not this run's."""
        database = self._database
        with database.transaction() as connection:
            if _is_ours(database, connection, self._run_id, self._run_dir):
                database.take(connection, self._run_id)
                return
            database.progress.create(connection, checkfirst=True)
            database.make(connection, ())
            database.forget(connection)
            database.note(connection, self._run_id, self._run_dir)

    def catch_up(self, goal: Goal, on_block: Callable[[], None] = lambda: None) -> None:
        """Write what the table lacks. Stops early, between two transactions, once `is_over`."""
        try:
            self._catch_up(goal, on_block)
        except sqlite3.Error as error:  # the database's own come as StoreError
            raise StoreError(use_failure(self._path, error)) from error

    def close(self) -> None:
        """Close; may be called twice."""
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()
        self._database.close()

    def _catch_up(self, goal: Goal, on_block: Callable[[], None]) -> None:
        # Read each time: after a broken connection nobody knows whether the last commit came through.
        state, table = self._read(), goal.table
        if state.generation != self._generation() or _columns(state, goal, ()) is None:
            state = self._made_anew(state, goal)
        while state.seq < goal.upto and not self.is_over and (block := self._block(state.seq, goal.upto)):
            rows = rows_of(table, block)
            columns = _columns(state, goal, rows)
            if columns is None:
                state = self._made_anew(state, goal)
            else:
                state = self._append(state, columns, [values_of(columns, table, row) for row in rows], block[-1][0])
            on_block()
        columns = planned(state.columns, table, kinds_before(state.columns, table), whole=goal.whole)
        if columns is not None and columns != state.columns and not self.is_over:
            self._append(state, columns, (), state.seq)

    def _read(self) -> State:
        with self._database.transaction() as connection:
            row = self._database.read_progress(connection)
            if row is None or row.run_id != self._run_id:
                raise StoreError(
                    f"{self._database}: the table was taken by another run while this one was at work. "
                    "No label is lost: name another table, then give the same command again."
                )
        return State(row.generation, row.seq, row.rows_written, from_text(row.columns_json))

    def _append(self, old: State, columns: Sequence[Column], values: Sequence[list[JSON]], seq: int) -> State:
        """Add rows and say so, in one transaction."""
        new = State(old.generation, seq, old.rows + len(values), tuple(columns))
        with self._database.transaction() as connection:
            # First, because the row of the progress table is what two processes would wait for each other at.
            self._move(connection, old, new)
            if len(columns) > len(old.columns):
                self._database.add_columns(connection, columns, columns[len(old.columns) :])
            self._database.insert(connection, columns, values, old.rows + 1)
        return new

    def _made_anew(self, old: State, goal: Goal) -> State:
        """All rows anew in one transaction: until its end others see the old ones. As before if asked to end."""
        while not self.is_over:
            with suppress(_AgainError):
                return self._rebuild(old, goal)
        return old

    def _rebuild(self, old: State, goal: Goal) -> State:
        table, generation = goal.table, self._generation()
        kinds: list[str] = []
        for block in self._blocks(goal.upto):
            kinds = kinds_of(table, rows_of(table, block), kinds)
        kinds = kinds or kinds_of(table, ())
        columns = planned(old.columns, table, kinds, whole=goal.whole)
        with self._database.transaction() as connection:
            self._move(connection, old, old)
            if columns is None:
                columns = planned((), table, kinds, whole=goal.whole) or ()
                self._database.drop(connection)
                self._database.make(connection, columns)
            else:
                self._database.add_columns(connection, columns, columns[len(old.columns) :])
                self._database.empty(connection)
            rows = seq = 0
            for block in self._blocks(goal.upto):
                values = [values_of(columns, table, row) for row in rows_of(table, block)]
                self._database.insert(connection, columns, values, rows + 1)
                rows, seq = rows + len(values), block[-1][0]
            new = State(generation, seq, rows, columns)
            self._move(connection, old, new)
            if self._generation() != generation:
                raise _AgainError
        return new

    def _move(self, connection: Any, old: State, new: State) -> None:
        moved = self._database.move(
            connection,
            {"run_id": self._run_id, "generation": old.generation, "seq": old.seq},
            {
                "generation": new.generation,
                "seq": new.seq,
                "rows_written": new.rows,
                "columns_json": to_text(new.columns),
                "run_dir": self._run_dir,
            },
        )
        if not moved:
            raise StoreError(
                f"{self._database}: somebody else has written to the table meanwhile: a copy of this run folder? "
                "No label is lost. Let one of them write elsewhere, then give the same command again."
            )

    # ── the ledger, by a connection of this thread's own ─────────────────────────────────────────────────────────

    def _reader(self) -> sqlite3.Connection:
        if self._ledger is None:
            self._ledger = connect_reader(self._path)
        return self._ledger

    def _generation(self) -> int:
        return int(queries.meta_get(self._reader(), GENERATION) or 0)

    def _block(self, seq: int, upto: int) -> list[tuple[int, Outcome]]:
        return [found for found in queries.rows_after(self._reader(), seq, BLOCK) if found[0] <= upto]

    def _blocks(self, upto: int) -> Iterator[list[tuple[int, Outcome]]]:
        seq = 0
        while block := self._block(seq, upto):
            if self.is_over:
                raise _AgainError
            yield block
            seq = block[-1][0]


def _columns(state: State, goal: Goal, rows: Sequence[Sequence[JSON]]) -> tuple[Column, ...] | None:
    """The columns that hold these rows too; None if the table has to be made anew for them."""
    kinds = kinds_of(goal.table, rows, kinds_before(state.columns, goal.table))
    return planned(state.columns, goal.table, kinds)


def rows_of(table: Table, block: Sequence[tuple[int, Outcome]]) -> list[list[JSON]]:
    """The table's rows of a block of outcomes."""
    return [row for _, outcome in block for row in rows_of_outcome(table, outcome)]


def check_owner(database: Database, run_id: str | None, run_dir: str) -> bool:
    """Whether the table is there. Raises ConfigError if it is, and is not this run's."""
    if database.is_missing_file():
        return False
    with database.transaction() as connection:
        return _is_ours(database, connection, run_id, run_dir)


def _is_ours(database: Database, connection: Any, run_id: str | None, run_dir: str) -> bool:
    """Also a table that the last run in this folder has left to the next. False: there is no such table yet."""
    if not database.has_table(connection):
        return False
    row = database.read_progress(connection) if database.has_progress(connection) else None
    if row is not None and (row.run_id == run_id or (row.run_id, row.run_dir) == (FREE, run_dir)):
        return True
    whose = "was not made by labelpipe" if row is None else f"holds the labels of another run, the one in {row.run_dir}"
    raise ConfigError(
        f"output.sql.table: {database} is there and {whose}. Nothing in it was touched, and nothing was sent. "
        "Choose another name, or drop it."
    )
