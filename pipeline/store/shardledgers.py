"""Joins the ledgers of shards: outcomes, archived rows, saved answers, days, and batches. Also locks the shards."""

import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from pipeline import codec
from pipeline.errors import RunInUseError
from pipeline.store.batches import batches_left
from pipeline.store.queries import meta_get, totals
from pipeline.store.rows import COLUMNS
from pipeline.store.rundir import RunDir, replace_durably
from pipeline.store.schema import connect_reader, connect_writer, store_errors
from pipeline.store.writes import BUDGET_KEY, FLEX_KEY, forget_files, set_meta

_REST = ", ".join(COLUMNS[1:])
_NAMES = ", ".join(COLUMNS)
#: The page cache in KiB, large because writes to the index of keys are random.
_CACHE_KIB = 64_000


def join_ledgers(target: Path, parts: Sequence[Path], run_id: str, *, goes_on: bool = False) -> int:
    """Join these ledgers in this order, replace the ledger `target` with the result, and return its number of outcomes.

    The first one may be from before there were shards: its rows keep their numbers. The result is made in a separate
    file, so a kill leaves the old ledger, and repeating the join gives the same result. Nobody else may write to
    `target`; the parts may be in use. `goes_on`: the parts have batches at the server, which only they keep. Raises
    StoreError.
    """
    made = target.with_name(f"{target.name}.joining")
    with store_errors(made):
        for old in made.parent.glob(f"{made.name}*"):
            old.unlink()
        with closing(connect_writer(made)) as connection:
            # Nobody else uses the file until it is renamed.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            count = _fill(connection, target, parts, run_id, goes_on=goes_on)
        _put_in_place(made, target)
    return count


def _fill(connection: sqlite3.Connection, target: Path, parts: Sequence[Path], run_id: str, *, goes_on: bool) -> int:
    for part in parts:
        connection.execute("ATTACH ? AS part", (f"{part.absolute().as_uri()}?mode=ro",))
        connection.execute("BEGIN IMMEDIATE")
        _copy(connection, goes_on=goes_on)
        connection.execute("COMMIT")
        connection.execute("DETACH part")
    connection.execute("BEGIN IMMEDIATE")
    _copy_files(connection, target if target.exists() else None)
    set_meta(connection, "run_id", run_id)
    if (flex := _flex(parts)) is not None:
        set_meta(connection, FLEX_KEY, codec.dumps(flex).decode())
    if (spent := _spent(parts)) is not None:
        set_meta(connection, BUDGET_KEY, codec.dumps(spent).decode())
    connection.execute("COMMIT")
    return int(connection.execute("SELECT COUNT(*) FROM outcomes").fetchone()[0])


def _copy(connection: sqlite3.Connection, *, goes_on: bool) -> None:
    """Copy a part, in the open transaction. A second outcome of a key is archived, because it was paid for."""
    one = connection.execute
    last = one(
        "SELECT MAX(COALESCE((SELECT MAX(seq) FROM main.outcomes), 0),"
        " COALESCE((SELECT MAX(seq) FROM main.archived), 0), 0)"
    ).fetchone()[0]
    least = one("SELECT MIN(COALESCE(MIN(seq), 0), 0) FROM main.archived").fetchone()[0]
    archived = f"{_NAMES}, archived_at, reason, paid"
    one(
        f"INSERT INTO main.archived ({archived}) SELECT seq + ?, {_REST}, ?, 'joined', 1 FROM part.outcomes"  # noqa: S608
        " WHERE key IN (SELECT key FROM main.outcomes)",
        (last, time.time()),
    )
    one(
        f"INSERT OR IGNORE INTO main.outcomes ({_NAMES}) SELECT seq + ?, {_REST} FROM part.outcomes ORDER BY seq",  # noqa: S608
        (last,),
    )
    one(
        f"INSERT INTO main.archived ({archived}) SELECT CASE WHEN seq < 0 THEN seq + ? ELSE seq + ? END, {_REST},"  # noqa: S608
        " archived_at, reason, paid FROM part.archived ORDER BY rowid",
        (least, last),
    )
    one("INSERT OR REPLACE INTO main.turns SELECT * FROM part.turns")
    one(
        "INSERT INTO main.days SELECT day, requests FROM part.days WHERE TRUE"
        " ON CONFLICT (day) DO UPDATE SET requests = requests + excluded.requests"
    )
    # Part numbers are unique over all shards, and they identify the lines of a batch.
    which = " WHERE state IN ('read', 'closed')" if goes_on else ""
    one(f"INSERT OR REPLACE INTO main.batches SELECT * FROM part.batches{which}")  # noqa: S608
    if not goes_on:
        one("INSERT OR REPLACE INTO main.batch_items SELECT * FROM part.batch_items")


def count_batches_left(ledgers: Iterable[Path]) -> int:
    """Return how many batches are open, or have answers that have not been used."""
    left = 0
    for path in ledgers:
        with closing(connect_reader(path)) as reader:
            left += batches_left(reader)
    return left


def _copy_files(connection: sqlite3.Connection, before: Path | None) -> None:
    """Copy what is known about the files of rows, and have them rebuilt."""
    if before is not None:
        connection.execute("COMMIT")
        connection.execute("ATTACH ? AS part", (f"{before.absolute().as_uri()}?mode=ro",))
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR REPLACE INTO main.meta SELECT key, value FROM part.meta")
        connection.execute("INSERT OR REPLACE INTO main.sinks SELECT * FROM part.sinks")
    forget_files(connection)


def _flex(parts: Sequence[Path]) -> dict[str, float] | None:
    """Return the flex lane's totals over all parts; None if it was not used."""
    total = Counter[str]()
    for part in parts:
        with closing(connect_reader(part)) as reader:
            total.update(codec.loads(meta_get(reader, FLEX_KEY) or "{}"))
    return dict(total) or None


def _spent(parts: Sequence[Path]) -> dict[str, float] | None:
    """Return the most that all parts can have cost; None if none of them recorded it, because there was no budget.

    For a part that did not record it, the cost of its outcomes counts.
    """
    spent, is_counted = {"usd": 0.0, "tokens": 0.0}, False
    for part in parts:
        with closing(connect_reader(part)) as reader:
            mark = codec.loads(meta_get(reader, BUDGET_KEY) or "{}")
            total = totals(reader)
        is_counted = is_counted or bool(mark)
        spent["usd"] += max(total.cost_usd, mark.get("usd") or 0.0)
        spent["tokens"] += max(total.usage.total, mark.get("tokens") or 0)
    return {**spent, "tokens": int(spent["tokens"])} if is_counted else None


def _put_in_place(made: Path, target: Path) -> None:
    """Replace the old ledger durably, and remove its journal, which SQLite would take for the new one's."""
    if target.exists():
        with closing(connect_writer(target)) as old:
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for ending in ("-wal", "-shm"):
            target.with_name(f"{target.name}{ending}").unlink(missing_ok=True)
    replace_durably(made, target)


@contextmanager
def lock_shards(run: Path) -> Iterator[bool]:
    """Lock the shards and their lease server during the block. Yields False if one of them is running.

    It tries their locks, because a process on another machine cannot be seen.
    """
    folder = run / "shards"
    with ExitStack() as stack:
        try:
            for one in (folder, *(one for one in sorted(folder.iterdir()) if one.name.isdigit())):
                stack.enter_context(RunDir(one).open_for_writing())
            is_locked = True
        except FileNotFoundError:
            is_locked = True
        except RunInUseError:
            stack.close()
            is_locked = False
        yield is_locked


def clear_merged(run_dir: RunDir) -> None:
    """Remove what a merge left, even if the shards are in another folder behind a link."""
    if run_dir.merged.is_symlink():
        shutil.rmtree(run_dir.merged.resolve(), ignore_errors=True)
        run_dir.merged.unlink()
    shutil.rmtree(run_dir.merged, ignore_errors=True)
