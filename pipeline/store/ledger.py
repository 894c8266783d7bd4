"""Reads and writes the ledger: one outcome per record. It is written first, and all files of rows are made from it."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from pipeline.errors import StoreError
from pipeline.records import Outcome
from pipeline.store import labels, queries, reconcile, renaming, storedturns, writes
from pipeline.store.labelcounts import VoteCounts, corrections_or_none, count_human_labels, label_counts, vote_counts
from pipeline.store.queries import Checkpoint
from pipeline.store.rows import to_row
from pipeline.store.schema import connect_reader, connect_writer, damaged, use_failure
from pipeline.store.writes import Checkpoints, Work

_T = TypeVar("_T")
_P = ParamSpec("_P")
#: A method that has the ledger do work, with the work's docstring.
_Method: TypeAlias = "Callable[Concatenate[Ledger, _P], Coroutine[Any, Any, _T]]"


class _ConnectionThread:
    """A connection and the only thread that uses it."""

    def __init__(self, path: Path, *, reads: bool = False) -> None:
        self._path = path
        self._reads = reads
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._connection: sqlite3.Connection | None = None

    async def open(self, connect: Callable[[Path], sqlite3.Connection]) -> None:
        try:
            self._connection = await asyncio.get_running_loop().run_in_executor(self._thread, connect, self._path)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def do(self, work: Callable[..., _T], *args: Any) -> _T:
        """Run `work` on the connection. It runs to its end even if the caller is canceled."""
        if self._connection is None:
            raise StoreError(f"{self._path}: the ledger is closed.")
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.shield(loop.run_in_executor(self._thread, partial(work, self._connection, *args)))
        except (sqlite3.InterfaceError, sqlite3.ProgrammingError):
            raise  # a value that no row can contain: the outcome is wrong, not the file
        except (sqlite3.Error, OSError) as error:
            raise StoreError(use_failure(self._path, error)) from error
        except Exception as error:
            if not self._reads:
                raise
            raise StoreError(damaged(self._path, error)) from error

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            loop = asyncio.get_running_loop()
            await asyncio.shield(loop.run_in_executor(self._thread, connection.close))
        self._thread.shutdown(wait=False)


def _reading(query: Work[_P, _T]) -> _Method[_P, _T]:
    """Return a method that runs the query on the reading connection."""
    return _method(lambda ledger, work: ledger._reads.do(work), query)


def _doing(work: Work[_P, _T]) -> _Method[_P, _T]:
    """Return a method that runs the work on the writing connection without changing the file."""
    return _method(lambda ledger, work: ledger.do(work), work)


def _writing(change: Work[_P, _T]) -> _Method[_P, _T]:
    """Return a method that makes the change."""
    return _method(lambda ledger, work: ledger._write(work), change)


def _moving(change: Work[_P, int]) -> _Method[_P, int]:
    """Do the same for a change that moves or archives outcomes, and returns how many."""
    return _method(lambda ledger, work: ledger._write(ledger._moved, work), change)


def _method(do: Callable[[Ledger, Any], Coroutine[Any, Any, _T]], work: Work[_P, _T]) -> _Method[_P, _T]:
    @wraps(work)
    async def method(self: Ledger, /, *args: _P.args, **given: _P.kwargs) -> _T:
        return await do(self, lambda connection: work(connection, *args, **given))

    return method


class Ledger:
    """The run's outcomes in SQLite. One process writes; others may read at the same time.

    Every method raises StoreError if the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reads = _ConnectionThread(path, reads=True)
        self._writes: _ConnectionThread | None = None
        # Mutable state of the writing thread: the highest seq, the stored checkpoints, and how often outcomes have been
        # archived or moved since the files' checkpoints were last valid.
        self._last_seq = 0
        self._stored: Checkpoints | None = None
        self._generation = 0

    @classmethod
    async def open(cls, path: Path, *, read_only: bool = False) -> Ledger:
        """Open the ledger, or create it. Raises SetupError if the file is not a ledger of a known version."""
        ledger = cls(path)
        if not read_only:
            ledger._writes = _ConnectionThread(path)
            await ledger._writes.open(connect_writer)
            ledger._last_seq = await ledger._writes.do(queries.last_seq)
        try:
            await ledger._reads.open(connect_reader)
        except BaseException:
            await ledger.close()
            raise
        return ledger

    async def close(self) -> None:
        """Close the ledger. Can be called twice."""
        await self._reads.close()
        if self._writes is not None:
            # Last, because the last writer folds the WAL into the file.
            await self._writes.close()

    async def __aenter__(self) -> Ledger:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def generation(self) -> int:
        """A number that grows when outcomes are archived, replaced, or moved. Files from before must be rebuilt."""
        return self._generation

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def commit(
        self,
        outcomes: Sequence[Outcome],
        sinks: Checkpoints | None = None,
        *,
        requests: Mapping[str, int] | None = None,
        done_with: Sequence[str] = (),
    ) -> list[int]:
        """Write outcomes in one transaction, and return their seqs, which are consecutive. When it returns, they are
        durable.

        `requests` is the number of requests sent, by day (ISO dates). `done_with` are the keys of records whose saved
        answers are deleted. If a key already has an outcome, StoreError is raised and nothing is written.
        """
        return await self._write(self._commit, outcomes, sinks, requests or {}, done_with)

    async def replace(self, outcomes: Sequence[Outcome], reason: str) -> list[int]:
        """Replace the outcomes of these keys, with the usage and cost that still count, and archive the old ones."""
        return await self._write(self._replace, outcomes, reason)

    async def save_checkpoints(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Store the checkpoints of these files, and keep those of the others."""
        self._stored = None
        await self._write(writes.save_checkpoints, checkpoints)

    async def run_id(self) -> str:
        """Return the run's unique name, which the first call makes."""
        run_id = await self.meta_get("run_id")
        if run_id is None:
            run_id = uuid.uuid4().hex
            await self.meta_set("run_id", run_id)
        return run_id

    keep_answers = _writing(writes.atomic(storedturns.keep))
    invalidate_canaries = _writing(writes.invalidate_canaries)
    keep_canaries = _writing(writes.keep_canaries)
    add_requests = _writing(writes.atomic(writes.add_requests))
    meta_set = _writing(writes.atomic(writes.set_meta))
    index_ordinals = _writing(writes.index_ordinals)
    archive = _moving(writes.archive)
    rename_labels = _moving(renaming.rename_labels)
    reject_damaged = _moving(writes.reject_damaged)
    refresh = _moving(writes.refresh)

    async def do(self, work: Callable[..., _T], *args: Any) -> _T:
        """Run `work` on the writing connection, or on the reading one if the ledger is read-only."""
        return await (self._writes or self._reads).do(work, *args)

    # ── the records of an input that has changed, and their outcomes (see `reconcile`) ───────────────────────────────

    match_begin = _doing(reconcile.begin)
    match_add = _doing(reconcile.add)
    match_by_content = _doing(reconcile.by_content)
    match_unpaired = _doing(reconcile.unpaired)
    match_pair = _doing(reconcile.pair)
    match_by_request = _doing(reconcile.by_request)
    match_counts = _doing(reconcile.counts)
    match_apply = _moving(reconcile.apply)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    known = _reading(queries.known)
    outcomes_of = _reading(queries.outcomes_of)
    archived_of = _reading(queries.archived_of)
    keys_like = _reading(queries.keys_like)
    find_duplicates = _reading(queries.find_duplicates)
    absent_keys = _reading(queries.absent_keys)
    begin_pass = _reading(queries.begin_pass)
    find_request = _reading(queries.find_request)
    has_answers = _reading(storedturns.has_any)
    answers_of = _reading(storedturns.of)
    rows_after = _reading(queries.rows_after)
    rows_in_order = _reading(queries.rows_in_order)
    labels_of = _reading(labels.labels_of)
    labels_after = _reading(labels.labels_after)
    count_by_status = _reading(queries.count_by_status)
    canaries = _reading(queries.canaries)
    copied = _reading(queries.copied)
    count_paid = _reading(queries.count_paid)
    row_counts = _reading(queries.row_counts)
    problem_counts = _reading(queries.problem_counts)
    totals = _reading(queries.totals)
    last_seq = _reading(queries.last_seq)
    checkpoints = _reading(queries.checkpoints)
    meta_get = _reading(queries.meta_get)
    requests_on = _reading(queries.requests_on)
    faults = _reading(queries.faults)
    before_renaming = _reading(renaming.count_labels)

    async def label_counts(self, columns: Sequence[str]) -> dict[str, dict[str, int]]:
        """Count the values of these label columns, if they are classes. Corrections count."""
        return await self._reads.do(lambda seen: label_counts(seen, columns, corrections_or_none(self.path.parent)))

    async def count_human_labels(self) -> int:
        """Count the records that have a label from a person and none from the model."""
        return await self._reads.do(lambda seen: count_human_labels(seen, corrections_or_none(self.path.parent)))

    async def vote_counts(self) -> VoteCounts:
        """Return the results of voting on labels."""
        return await self._reads.do(lambda seen: vote_counts(seen, corrections_or_none(self.path.parent)))

    # ── in the writing thread ────────────────────────────────────────────────────────────────────────────────────

    async def _write(self, work: Callable[..., _T], *args: Any) -> _T:
        if self._writes is None:
            raise StoreError(f"{self.path}: the ledger is open for reading only.")
        return await self._writes.do(work, *args)

    def _commit(
        self,
        connection: sqlite3.Connection,
        outcomes: Sequence[Outcome],
        sinks: Checkpoints | None,
        requests: Mapping[str, int],
        done_with: Sequence[str],
    ) -> list[int]:
        if sinks is not None and (sinks.generation != self._generation or sinks == self._stored):
            sinks = None
        seqs = list(range(self._last_seq + 1, self._last_seq + 1 + len(outcomes)))
        rows = list(map(to_row, seqs, outcomes))
        try:
            writes.commit(connection, rows, sinks, requests, done_with=done_with)
        except sqlite3.IntegrityError as error:
            raise StoreError(queries.describe_duplicates(connection, self.path, outcomes)) from error
        self._last_seq += len(outcomes)
        self._stored = sinks or self._stored
        return seqs

    def _replace(self, connection: sqlite3.Connection, outcomes: Sequence[Outcome], reason: str) -> list[int]:
        seqs = list(range(self._last_seq + 1, self._last_seq + 1 + len(outcomes)))
        writes.replace(connection, list(map(to_row, seqs, outcomes)), reason)
        self._last_seq += len(outcomes)
        self._generation += 1
        return seqs

    def _moved(self, connection: sqlite3.Connection, change: Callable[[sqlite3.Connection], int]) -> int:
        moved = change(connection)
        if moved:
            self._generation += 1
        return moved
