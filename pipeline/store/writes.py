"""Changes the ledger in one transaction each, called in the thread that owns the connection."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from pipeline.errors import InternalError
from pipeline.records import Outcome, Record, Status
from pipeline.store import storedturns
from pipeline.store.queries import Checkpoint, chunks, damaged, placeholders
from pipeline.store.rows import COLUMNS, bound, json_text, to_row
from pipeline.store.schema import ORDINAL_INDEX

_P = ParamSpec("_P")
_T = TypeVar("_T")
#: A function that works on a connection.
Work: TypeAlias = Callable[Concatenate[sqlite3.Connection, _P], _T]

# Name the columns, because the newer ones come last in a file that was upgraded.
_NAMES = ", ".join(COLUMNS)
_INSERT = f"INSERT INTO outcomes ({_NAMES}) VALUES ({placeholders(COLUMNS)})"  # noqa: S608 (constant names)
_ARCHIVE = (
    f"INSERT INTO archived ({_NAMES}, archived_at, reason, paid)"  # noqa: S608
    f" SELECT {_NAMES}, ?, ?, ? FROM outcomes WHERE "
)
_REJECT_DAMAGED = (
    "UPDATE outcomes SET status = 'rejected', problem_code = ?, problem_message = ?, label = NULL WHERE seq = ?"
)
#: The reason of gold records among the archived outcomes.
CANARY = "canary"
_KEEP_CANARY = f"INSERT INTO archived ({_NAMES}, archived_at, reason, paid) VALUES ({placeholders(COLUMNS)}, ?, ?, ?)"  # noqa: S608
#: The names in `meta` of the most that the run can have cost, and of the flex lane's totals.
BUDGET_KEY, FLEX_KEY = "budget", "flex"
#: The name in `meta` of how often outcomes have been archived or moved in all sessions.
GENERATION = "generation"
#: The checkpoint of a file that does not exist yet.
NO_FILE = Checkpoint(-1, 0, "", None, is_stale=True)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """How far all files go, as the next commit stores it.

    `layout` is the columns' JSON text, complete for all rows up to `seq`. Checkpoints of an older `generation` than the
    ledger's are dropped, because rows that they count have been archived since.
    """

    files: Mapping[str, Checkpoint]
    layout: str
    seq: int
    generation: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects the outcomes that match all given conditions, or all outcomes if none is given.

    `without` are keys to leave out; it has no effect if `keys` are given.
    """

    statuses: frozenset[Status] | None = None
    codes: frozenset[str] | None = None
    keys: Sequence[str] | None = None
    without: Sequence[str] = ()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the block as a whole, or roll it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After some errors, such as a full disk, SQLite has already rolled back.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def atomic(change: Work[_P, _T]) -> Work[_P, _T]:
    """Return the change in its own transaction."""

    @wraps(change)
    def changed(connection: sqlite3.Connection, /, *args: _P.args, **given: _P.kwargs) -> _T:
        with transaction(connection):
            return change(connection, *args, **given)

    return changed


def commit(
    connection: sqlite3.Connection,
    rows: Sequence[tuple[Any, ...]],
    sinks: Checkpoints | None,
    requests: Mapping[str, int],
    *,
    done_with: Sequence[str] = (),
) -> None:
    """Write outcomes, checkpoints, and the day's requests together, and delete the answers of `done_with`."""
    with transaction(connection):
        connection.executemany(_INSERT, rows)
        storedturns.forget(connection, done_with)
        if sinks is not None:
            _store_checkpoints(connection, sinks)
        for day, count in requests.items():
            add_requests(connection, day, count)


def keep_canaries(connection: sqlite3.Connection, outcomes: Sequence[Outcome]) -> None:
    """Save the outcomes of gold records as archived, because no file of rows may contain them. Their cost counts.

    Their seqs count down from -1, so that those of outcomes stay consecutive. The saved answers of their votes
    and repairs are deleted, because the row includes their cost.
    """
    with transaction(connection):
        least = min(0, int(connection.execute("SELECT COALESCE(MIN(seq), 0) FROM archived").fetchone()[0]))
        rows = [to_row(0, outcome) for outcome in outcomes]
        for place, row in enumerate(rows, 1):
            values = (least - place, *row[1:], time.time(), CANARY, 1)
            connection.execute(_KEEP_CANARY, values)
        storedturns.forget(connection, [row[1] for row in rows])
        # No row in `outcomes` shows the batch lane that they are done.
        connection.executemany("DELETE FROM batch_items WHERE key = ?", [(row[1],) for row in rows])


def invalidate_canaries(connection: sqlite3.Connection, *, votes: bool) -> None:
    """Ask gold records again, because the task has changed; with `votes`, also records with saved answers.

    Their cost still counts.
    """
    with transaction(connection):
        connection.execute("UPDATE archived SET request_digest = NULL WHERE reason = ?", (CANARY,))
        if votes:
            connection.execute("UPDATE turns SET request_digest = x'' WHERE key NOT IN (SELECT key FROM outcomes)")


def replace(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]], reason: str) -> None:
    """Write each row instead of the one with its key, which is archived as no longer counted."""
    with transaction(connection):
        for chunk in chunks([row[1] for row in rows]):
            archive_where(connection, f"key IN ({placeholders(chunk)})", chunk, reason, paid=False)
        connection.executemany(_INSERT, rows)
        forget_files(connection)


def archive(connection: sqlite3.Connection, selection: Selection, reason: str) -> int:
    """Archive the selected outcomes and return how many. Their records are pending again. Their cost still counts."""
    with transaction(connection):
        if selection.keys is None:
            condition, values = _condition(selection)
            moved = archive_where(connection, condition, values, reason, paid=True)
        else:
            moved = _archive_keys(connection, selection, selection.keys, reason)
        if moved:
            forget_files(connection)
    return moved


def reject_damaged(connection: sqlite3.Connection) -> int:
    """Turn rows that cannot be read into rejected outcomes that report it, so that `archive` can select them."""
    rows = [(InternalError.code, why, seq) for seq, _, why in damaged(connection)]
    with transaction(connection):
        connection.executemany(_REJECT_DAMAGED, rows)
        if rows:
            forget_files(connection)
    return len(rows)


def refresh(connection: sqlite3.Connection, records: Sequence[Record]) -> int:
    """Give the outcomes of these records their current fields; the labels stay."""
    rows = [(json_text(record.fields), record.digest, bound(record.key)) for record in records]
    if not rows:
        return 0
    with transaction(connection):
        connection.executemany("UPDATE outcomes SET fields = ?, digest = ? WHERE key = ?", rows)
        forget_files(connection)
    return len(rows)


def save_checkpoints(connection: sqlite3.Connection, checkpoints: Mapping[str, Checkpoint]) -> None:
    with transaction(connection):
        _store_files(connection, checkpoints)


def index_ordinals(connection: sqlite3.Connection) -> None:
    """Make `rows_in_order` fast. Every later commit is then a little slower."""
    connection.execute(ORDINAL_INDEX)


def _archive_keys(connection: sqlite3.Connection, selection: Selection, keys: Sequence[str], reason: str) -> int:
    moved = 0
    for chunk in chunks(keys):
        condition, values = _condition(selection)
        condition += f" AND key IN ({placeholders(chunk)})"
        moved += archive_where(connection, condition, [*values, *map(bound, chunk)], reason, paid=True)
    return moved


def archive_where(
    connection: sqlite3.Connection, condition: str, values: Sequence[object], reason: str, *, paid: bool
) -> int:
    """Archive the outcomes that match, and return how many. Called in a transaction."""
    connection.execute(_ARCHIVE + condition, [time.time(), reason, int(paid), *values])
    if paid:
        _restart_conversations(connection, condition, values)
    return connection.execute(f"DELETE FROM outcomes WHERE {condition}", values).rowcount  # noqa: S608 (our own words)


def _restart_conversations(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> None:
    """Restart conversations that are asked again. One whose next answer never came continues where it was.

    The cost of its turns is counted with the archived outcome.
    """
    chosen = f"SELECT key FROM outcomes WHERE {condition}"  # noqa: S608 (our own words)
    failed = f"{chosen} AND status = 'failed'"
    connection.execute(f"DELETE FROM turns WHERE key IN ({chosen}) AND key NOT IN ({failed})", [*values, *values])  # noqa: S608
    counted = "usage = '[0,0,0,0,0]', cost_usd = 0, calls = 0, repairs = 0"
    connection.execute(f"UPDATE turns SET {counted} WHERE key IN ({failed})", values)  # noqa: S608


def _condition(selection: Selection) -> tuple[str, list[object]]:
    parts, values = ["1"], list[object]()
    if selection.statuses is not None:
        parts.append(f"status IN ({placeholders(list(selection.statuses))})")
        values += [status.value for status in selection.statuses]
    if selection.codes is not None:
        parts.append(f"problem_code IN ({placeholders(list(selection.codes))})")
        values += selection.codes
    if selection.without:
        parts.append("key NOT IN (SELECT value FROM json_each(?))")
        values.append(json_text(list(selection.without)))
    return " AND ".join(parts), values


def forget_files(connection: sqlite3.Connection) -> None:
    """Have all files rebuilt, with the columns that the rows have then."""
    connection.execute("DELETE FROM meta WHERE key IN ('layout', 'layout_seq')")
    _reset_sinks(connection)


def _reset_sinks(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE sinks SET is_stale = 1")
    connection.execute(
        "INSERT INTO meta VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1",
        (GENERATION,),
    )


def _store_checkpoints(connection: sqlite3.Connection, sinks: Checkpoints) -> None:
    _store_files(connection, sinks.files)
    set_meta(connection, "layout", sinks.layout)
    set_meta(connection, "layout_seq", str(sinks.seq))


def _store_files(connection: sqlite3.Connection, checkpoints: Mapping[str, Checkpoint]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO sinks (name, bytes, position, shape, digest, is_stale) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (name, checkpoint.bytes, checkpoint.position, checkpoint.shape, checkpoint.digest, checkpoint.is_stale)
            for name, checkpoint in checkpoints.items()
        ],
    )


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Save a text under a name. Called in a transaction."""
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
    )


def add_requests(connection: sqlite3.Connection, day: str, count: int) -> None:
    """Count requests that were sent on this day (an ISO date). Called in a transaction."""
    connection.execute(
        "INSERT INTO days VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET requests = requests + excluded.requests",
        (day, count),
    )
