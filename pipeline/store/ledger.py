"""The ledger: every outcome, once. It is written first; every other file of rows can be made from it."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pipeline.errors import StoreError
from pipeline.labelfields import Rename, Value
from pipeline.records import KeptAnswer, Outcome, Record, Status
from pipeline.store import labels, matching, onerecord, queries, renaming, storedturns, tallies, writes
from pipeline.store.labelcounts import corrections_to_show, label_counts
from pipeline.store.queries import Checkpoint, Known, RowCounts, Totals
from pipeline.store.rows import to_row
from pipeline.store.schema import ORDINAL_INDEX, connect_reader, connect_writer, damaged, use_failure
from pipeline.store.writes import Checkpoints, Selection

_T = TypeVar("_T")
#: Outcomes in one block of a replay: some of them may be long.
BLOCK = 256


class _Hand:
    """A connection and the one thread that uses it."""

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
        """What `work` makes of the connection. Work that was handed over is done even if the caller is cancelled."""
        if self._connection is None:
            raise StoreError(f"{self._path}: the ledger is closed.")
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.shield(loop.run_in_executor(self._thread, partial(work, self._connection, *args)))
        except (sqlite3.InterfaceError, sqlite3.ProgrammingError):
            raise  # a value that no row can hold: one outcome's fault, not the file's
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


class Ledger:
    """The run's outcomes in SQLite. One process writes; others may read at the same time.

    Every method raises StoreError if the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reads = _Hand(path, reads=True)
        self._writes: _Hand | None = None
        # All state that changes, seen by the writing thread only: the highest seq, the checkpoints that are stored, and
        # how often outcomes have been archived or moved since the files' checkpoints were last worth anything.
        self._last_seq = 0
        self._stored: Checkpoints | None = None
        self._generation = 0

    @classmethod
    async def open(cls, path: Path, *, read_only: bool = False) -> Ledger:
        """Open the ledger, or make a new one. Raises SetupError if the file is not a ledger that we know."""
        ledger = cls(path)
        if not read_only:
            ledger._writes = _Hand(path)
            await ledger._writes.open(connect_writer)
            ledger._last_seq = await ledger._writes.do(queries.last_seq)
        try:
            await ledger._reads.open(connect_reader)
        except BaseException:
            await ledger.close()
            raise
        return ledger

    async def close(self) -> None:
        """Close; may be called twice."""
        await self._reads.close()
        if self._writes is not None:
            # Last, because the last writer folds the WAL into the file.
            await self._writes.close()

    async def __aenter__(self) -> Ledger:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def generation(self) -> int:
        """Grows whenever outcomes are archived, replaced or moved: files made before then are to be made anew."""
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
        """Write outcomes in one transaction and give their seqs, which are consecutive; when it returns, they are safe.

        `requests` is the number of requests sent, by day (ISO dates). `done_with` are the keys of records whose kept
        answers are dropped. A key that has an outcome already is a StoreError, and then nothing is written.
        """
        return await self._write(self._commit, outcomes, sinks, requests or {}, done_with)

    async def keep_answers(self, answers: Sequence[KeptAnswer]) -> None:
        """Write answers of records that are not at their end; when it returns, they are safe."""
        await self._write(writes.keep_answers, answers)

    async def forget_answers(self, keys: Sequence[str]) -> None:
        """Drop the stored answers of these records."""
        await self._write(writes.forget_answers, keys)

    async def disown(self, *, votes: bool) -> None:
        """Ask gold records again: the task has changed. With `votes` also what the ledger keeps of pending records."""
        await self._write(partial(writes.disown, votes=votes))

    async def keep_canaries(self, outcomes: Sequence[Outcome]) -> None:
        """Write what gold records came to, apart from the outcomes; what they cost counts."""
        await self._write(writes.keep_canaries, [to_row(0, outcome) for outcome in outcomes])

    async def replace(self, outcomes: Sequence[Outcome], reason: str) -> list[int]:
        """Put each outcome, with the usage and cost that still count, in the place of its key's, which is archived."""
        return await self._write(self._replace, outcomes, reason)

    async def archive(self, selection: Selection, reason: str) -> int:
        """Set the selected outcomes aside, so that their records are pending again; gives how many.

        What they have cost stays in the totals.
        """
        return await self._write(self._moved, writes.archive, selection, reason)

    async def rename_labels(self, rename: Rename, order: Sequence[Value], how: renaming.How) -> int:
        """Give the labels of all outcomes their new names, once; see `store/renaming`."""
        return await self._write(self._moved, renaming.rename_labels, rename, order, how.new_digest, how.recount)

    async def before_renaming(self, rename: Rename) -> tuple[int, float]:
        """How many outcomes `rename_labels` would change, and when the latest outcome was made (a Unix time)."""
        return await self._reads.do(renaming.count_labels, rename)

    async def own_up(self) -> int:
        """Give rows that cannot be read (a damaged file) an outcome that says so, which `archive` can select."""
        return await self._write(self._moved, writes.own_up)

    async def note_files(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """What is known of these files now, beside what the others are."""
        self._stored = None
        await self._write(writes.note_files, checkpoints)

    async def add_requests(self, day: str, count: int) -> None:
        """Count requests that were sent on this day (an ISO date)."""
        await self._write(writes.add_requests, day, count)

    async def meta_set(self, key: str, value: str) -> None:
        """Keep a text under a name."""
        await self._write(writes.meta_set, key, value)

    async def run_id(self) -> str:
        """The run's name among all runs, which it keeps: made at the first call."""
        found = await self.meta_get("run_id")
        if found is None:
            found = uuid.uuid4().hex
            await self.meta_set("run_id", found)
        return found

    async def index_ordinals(self) -> None:
        """Make `rows_in_order` fast; every later commit is then a little slower."""
        await self._write(lambda connection: connection.execute(ORDINAL_INDEX).close())

    # ── the records of an input that has changed, and their outcomes (see `matching`) ────────────────────────────────

    async def match_begin(self) -> None:
        """Begin to match the records of the input with the outcomes. Nothing changes before `match_apply`."""
        await self.do(matching.begin)

    async def match_add(self, records: Sequence[Record], *, trust: bool) -> None:
        """The next records of the input; `trust` says whether digests of this version are in the ledger."""
        await self.do(partial(matching.add, trust=trust), records)

    async def match_by_content(self, *, trust: bool) -> int:
        """All records have been added: follow those whose content is under another name now; how many are left."""
        return await self.do(partial(matching.by_content, trust=trust))

    async def match_unpaired(self, after: int) -> list[matching.Pair]:
        """The next records that have no outcome yet, behind this ordinal."""
        return await self.do(matching.unpaired, after)

    async def match_pair(self, pairs: Sequence[tuple[int, int]], requests: Sequence[tuple[int, bytes]]) -> None:
        """Records (by ordinal) with their outcomes (by seq); and what others would be asked now."""
        await self.do(matching.pair, pairs, requests)

    async def match_by_request(self) -> None:
        """Follow those that would be asked the same under another name."""
        await self.do(matching.by_request)

    async def match_found(self) -> matching.Found:
        """What came of it."""
        return await self.do(matching.found)

    async def match_apply(self, *, keep: bool) -> int:
        """Make the ledger one of this input, in one transaction; gives how many outcomes it has touched."""
        return await self._write(self._moved, partial(matching.apply, keep=keep))

    async def do(self, work: Callable[..., _T], *args: Any) -> _T:
        """What `work` makes of the connection that writes; of the one that reads where nothing may be written."""
        return await (self._writes or self._reads).do(work, *args)

    async def refresh(self, records: Sequence[Record]) -> int:
        """Give the outcomes of these records the fields that the records have now; their labels stay."""
        return await self._write(self._moved, writes.refresh, records)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def known(self, keys: Sequence[str]) -> dict[str, Known]:
        """Those of the keys that have an outcome."""
        return await self._reads.do(queries.known, keys)

    async def outcomes_of(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """The outcomes of those of the keys that have one."""
        return await self._reads.do(queries.outcomes_of, keys)

    async def archived_of(self, key: str) -> list[onerecord.Archived]:
        """What was archived of this record, the oldest first."""
        return await self._reads.do(onerecord.archived_of, key)

    async def keys_like(self, text: str) -> list[str]:
        """Some keys in which this text is."""
        return await self._reads.do(onerecord.keys_like, text)

    async def mark_seen(self, places: Sequence[tuple[str, str]]) -> dict[int, str]:
        """Which of these (key, place) pairs, by index, have a key that came before in this pass; with its first place.

        Memory stays flat: what was seen lies in a temporary file.
        """
        return await self._reads.do(queries.mark_seen, places)

    async def unseen(self, records: int | None) -> list[str]:
        """The keys of outcomes that cost nothing and were not in this pass of so many records."""
        return await self._reads.do(queries.unseen, records)

    async def forget_seen(self) -> None:
        """Begin a new pass for `mark_seen`."""
        await self._reads.do(queries.forget_seen)

    async def find_request(self, digests: Sequence[bytes]) -> dict[bytes, Outcome]:
        """The oldest labelled outcome of each of these requests, where there is one."""
        return await self._reads.do(queries.find_request, digests)

    async def has_answers(self) -> bool:
        """Whether any answer is kept, of whatever record."""
        return await self._reads.do(storedturns.any_kept)

    async def answers_of(self, keys: Sequence[str]) -> dict[str, list[KeptAnswer]]:
        """The answers that are kept of these records, by key."""
        return await self._reads.do(storedturns.of, keys)

    async def rows_after(self, seq: int, limit: int = BLOCK) -> list[tuple[int, Outcome]]:
        """The next outcomes with their seq, in the order they were committed."""
        return await self._reads.do(queries.rows_after, seq, limit)

    async def rows_in_order(self, after: tuple[int, int] = (-1, 0), limit: int = BLOCK) -> list[tuple[int, Outcome]]:
        """The next outcomes with their seq, in the input's order. `after` is (ordinal, seq) of the one before."""
        return await self._reads.do(queries.rows_in_order, after, limit)

    async def labels_of(self, keys: Sequence[str], *, fields: bool = False) -> dict[str, labels.LabelRow]:
        """The labels of those of the keys that have an outcome; with `fields` those of the records too."""
        return await self._reads.do(labels.labels_of, keys, fields)

    async def labels_after(self, seq: int, limit: int = BLOCK, *, fields: bool = False) -> list[labels.LabelRow]:
        """The next labels, in the order in which they were committed."""
        return await self._reads.do(labels.labels_after, seq, limit, fields)

    async def count_by_status(self) -> dict[Status, int]:
        """The number of outcomes of each status, zeros included."""
        return await self._reads.do(queries.count_by_status)

    async def label_counts(self, columns: Sequence[str]) -> dict[str, dict[str, int]]:
        """How often each value of these label columns was given, where they are classes; corrections count."""
        return await self._reads.do(lambda seen: label_counts(seen, columns, corrections_to_show(self.path.parent)))

    async def canaries(self) -> list[Outcome]:
        """What gold records came to, in all sessions."""
        return await self._reads.do(tallies.canaries)

    async def vote_counts(self) -> tallies.VoteCounts:
        """What the votes on labels came to, where there were any."""
        return await self._reads.do(lambda seen: tallies.vote_counts(seen, corrections_to_show(self.path.parent)))

    async def copied(self) -> int:
        """How many records took the answer that an identical request had got."""
        return await self._reads.do(queries.copied)

    async def count_paid(self) -> int:
        """The number of outcomes for which a call was made."""
        return await self._reads.do(queries.count_paid)

    async def row_counts(self) -> RowCounts | None:
        """The rows that the labels give; None where each gives one."""
        return await self._reads.do(queries.row_counts)

    async def problem_counts(self) -> dict[str, int]:
        """The number of outcomes of each problem code, the most frequent first."""
        return await self._reads.do(queries.problem_counts)

    async def totals(self) -> Totals:
        """Usage and cost of everything that was paid for, outcomes that were archived included."""
        return await self._reads.do(queries.totals)

    async def last_seq(self) -> int:
        """The highest seq ever given; 0 at the start."""
        return await self._reads.do(queries.last_seq)

    async def checkpoints(self) -> dict[str, Checkpoint]:
        """How far each file has come, by its name."""
        return await self._reads.do(queries.checkpoints)

    async def meta_get(self, key: str) -> str | None:
        """The text under this name, or None."""
        return await self._reads.do(queries.meta_get, key)

    async def requests_on(self, day: str) -> int:
        """How many requests were sent on this day (an ISO date)."""
        return await self._reads.do(queries.requests_on, day)

    async def faults(self) -> list[str]:
        """What SQLite's own check finds wrong with the file; empty if it is sound. Reads all of it."""
        return await self._reads.do(queries.faults)

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
            raise StoreError(queries.told_twice(connection, self.path, outcomes)) from error
        self._last_seq += len(outcomes)
        self._stored = sinks or self._stored
        return seqs

    def _replace(self, connection: sqlite3.Connection, outcomes: Sequence[Outcome], reason: str) -> list[int]:
        seqs = list(range(self._last_seq + 1, self._last_seq + 1 + len(outcomes)))
        writes.replace(connection, list(map(to_row, seqs, outcomes)), reason)
        self._last_seq += len(outcomes)
        self._generation += 1
        return seqs

    def _moved(self, connection: sqlite3.Connection, change: Callable[..., int], *args: Any) -> int:
        moved = change(connection, *args)
        if moved:
            self._generation += 1
        return moved
