"""The table in the user's database, beside the run: it follows the ledger, and never makes the labelling wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pipeline import codec
from pipeline.errors import SetupError, StoreError
from pipeline.store import queries, sqldatabase
from pipeline.store.layout import Table
from pipeline.store.ledger import Ledger
from pipeline.store.rundir import RunDir
from pipeline.store.schema import connect_reader
from pipeline.store.sqltable import Goal, SqlTable, check_owner

_T = TypeVar("_T")
#: What comes in within this time goes into one transaction.
GATHER_S = 0.25
#: A database that cannot be used is tried again after so long, then after twice that, up to the longest wait.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
#: At the end of a session it is tried for so long.
LAST_TRY_S = 30.0

#: Is told an event and a sentence about it.
Tell = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class SqlOptions:
    """Where the table is. `url` may hold a password, `told_url` is the same for the ledger to keep, or None."""

    url: str = field(repr=False)
    table: str
    url_env: str | None = None
    told_url: str | None = None


class SqlSink:
    """The run's table. `wake` after each commit, `finish` at the end."""

    def __init__(self, table: SqlTable, tell: Tell) -> None:
        self._sql = table
        self._tell = tell
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sql")
        self._woken = asyncio.Event()
        # All state that changes: what the ledger has by now, the task that follows it, and whether that is stuck.
        self._goal: Goal | None = None
        self._follower: asyncio.Task[None] | None = None
        self._is_stuck = False

    @classmethod
    async def start(cls, options: SqlOptions, run_dir: RunDir, ledger: Ledger, tell: Tell | None = None) -> SqlSink:
        """Find or make the table. Raises SetupError if it is not ours or if the database cannot be reached."""
        run_id = await ledger.run_id()
        await _keep_place(options, ledger)
        database = sqldatabase.connect(options.url, options.table)
        table = SqlTable(database, ledger.path, run_id=run_id, run_dir=str(run_dir.path))
        sink = cls(table, tell or (lambda event, text: None))
        try:
            await sink._do(table.claim)
        except BaseException as error:
            await sink.close()
            if isinstance(error, StoreError):
                raise SetupError(f"output.sql: {error}") from None
            raise
        return sink

    def wake(self, table: Table, seq: int) -> None:
        """The ledger has outcomes up to `seq`, whose columns are those of `table`."""
        self._goal = Goal(table, seq)
        self._woken.set()
        if self._follower is None:
            self._follower = asyncio.create_task(self._follow(), name="sql table")

    async def finish(self, table: Table, seq: int) -> None:
        """Write what is missing up to `seq`. Raises StoreError if the database has not been usable for a while."""
        await self._stop_following()
        self._goal = Goal(table, seq, whole=True)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + LAST_TRY_S

        def moved() -> None:
            nonlocal give_up_at
            give_up_at = loop.time() + LAST_TRY_S

        while True:
            try:
                return await self._catch_up(moved)
            except StoreError:
                if loop.time() >= give_up_at:
                    raise
            await asyncio.sleep(FIRST_WAIT_S)

    async def close(self) -> None:
        """Let go of the database; may be called twice."""
        await self._stop_following()
        with suppress(RuntimeError):  # closed before
            await self._do(self._sql.close)
        self._thread.shutdown(wait=False)

    async def _follow(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            await self._woken.wait()
            await asyncio.sleep(GATHER_S)
            self._woken.clear()
            try:
                await self._catch_up()
            except StoreError as error:
                self._woken.set()
                self._note(str(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            else:
                wait_s = FIRST_WAIT_S
                self._note(None)

    def _note(self, trouble: str | None) -> None:
        """Tell when the database stops working, and when it works again."""
        if trouble is not None and not self._is_stuck:
            self._tell("sql table waits", trouble)
        elif trouble is None and self._is_stuck:
            self._tell("sql table goes on", "what it lacked is written")
        self._is_stuck = trouble is not None

    async def _stop_following(self) -> None:
        follower, self._follower = self._follower, None
        if follower is None:
            return
        self._sql.is_over = True
        follower.cancel()
        (ended,) = await asyncio.gather(follower, return_exceptions=True)
        if isinstance(ended, Exception):
            # It only wrote ahead: the end makes up for it, and says what is wrong if that lasts.
            self._tell("sql table is no longer followed", repr(ended))

    async def _catch_up(self, on_block: Callable[[], None] = lambda: None) -> None:
        if self._goal is not None:
            await self._do(self._resumed, self._goal, on_block)

    def _resumed(self, goal: Goal, on_block: Callable[[], None]) -> None:
        # In the thread, where the work before this one has ended by now.
        self._sql.is_over = False
        self._sql.catch_up(goal, on_block)

    async def _do(self, work: Callable[..., _T], *args: object) -> _T:
        """What `work` gives. What was handed to the thread goes on even if the caller is cancelled."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work, *args))


async def _keep_place(options: SqlOptions, ledger: Ledger) -> None:
    """So that `verify` finds the table from the run folder alone."""
    place = codec.dumps({"table": options.table, "url_env": options.url_env, "url": options.told_url}).decode()
    if await ledger.meta_get("sql") != place:
        await ledger.meta_set("sql", place)


async def check_place(options: SqlOptions, ledger_path: Path) -> bool:
    """Whether the table is there. Changes nothing; the ledger may not be there yet.

    Raises SetupError as `SqlSink.start` does, if the table cannot be used by the run of this ledger.
    """
    run_id = None
    if await asyncio.to_thread(ledger_path.exists):
        async with await Ledger.open(ledger_path, read_only=True) as ledger:
            run_id = await ledger.meta_get("run_id")
    database = sqldatabase.connect(options.url, options.table, read_only=True)
    try:
        return await asyncio.to_thread(check_owner, database, run_id, str(ledger_path.parent))
    except StoreError as error:
        raise SetupError(f"output.sql: {error}") from None
    finally:
        database.close()


def release_table(options: SqlOptions, ledger_path: Path) -> None:
    """Leave the table of this ledger's run to the next run in its folder; another table stays as it is.

    What is in it stays until the next run writes. Raises SetupError.
    """
    reader = connect_reader(ledger_path)
    try:
        run_id = queries.meta_get(reader, "run_id")
    finally:
        reader.close()
    database = sqldatabase.connect(options.url, options.table)
    try:
        if run_id is None or database.is_missing_file():
            return
        with database.transaction() as connection:
            if database.has_progress(connection):
                database.release(connection, run_id, str(ledger_path.parent))
    except StoreError as error:
        raise SetupError(f"output.sql: {error}") from None
    finally:
        database.close()
