"""Queries the ledger with plain functions on a connection, called in the thread that owns it."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pipeline.records import JSON, Outcome, Status, Usage
from pipeline.store.rows import COLUMNS, STATUSES, any_text, bound, damage_of, json_value, to_outcome, unbound
from pipeline.store.schema import SELECT_OUTCOME, SELECT_ROW, is_damage

_T = TypeVar("_T")
#: The most damaged rows that are named.
MOST_DAMAGED_ROWS = 10
Digest: TypeAlias = bytes  #: It has its own name because a checkpoint has a field `bytes`.
#: The most values in one IN (...). Older SQLite allows 999.
CHUNK = 256


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """What the ledger stores about a record that has an outcome, for comparison with the input."""

    digest: int
    status: Status
    ordinal: int
    line: int
    source: str


@dataclass(frozen=True, slots=True)
class Totals:
    """A run's total usage, including archived outcomes.

    `cost_usd` counts what has a known price; `unpriced` is the number of answered records whose cost is unknown.
    `unpriced_usage` is the part of `usage` in saved answers of records without an outcome whose cost is unknown.
    """

    usage: Usage
    cost_usd: float
    unpriced: int
    attempts: int
    repairs: int
    archived: int
    unpriced_usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class RowCounts:
    """How many rows the labels give together, and how many labeled records give none."""

    rows: int
    without: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is known about a file: its first `bytes` bytes are on the disk, have this `digest`, and are ours.

    They hold everything before `position`, a seq, or an ordinal if rows are in input order. `shape` describes the rows.
    A file that is stale or has another shape must be rebuilt. With negative `bytes`, there is no file yet. Older
    versions stored no digest.
    """

    bytes: int
    position: int
    shape: str
    digest: Digest | None = None
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class ArchivedOutcome:
    """An archived outcome: when (a Unix time), and why."""

    outcome: Outcome
    at: float
    reason: str


_SELECT_KNOWN = "SELECT key, digest, status, ordinal, line, source FROM outcomes"
# Statements in this file contain only constant words and question marks.
_TOKENS = "prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cache_write_tokens"
_PAID = f"{_TOKENS}, cost_usd, answer IS NOT NULL AS has_answer, attempts, repairs"
_TOTALS = f"""
SELECT TOTAL(prompt_tokens), TOTAL(completion_tokens), TOTAL(cached_tokens), TOTAL(reasoning_tokens),
    TOTAL(cache_write_tokens), TOTAL(cost_usd), TOTAL(cost_usd IS NULL AND has_answer),
    TOTAL(attempts), TOTAL(repairs), TOTAL(aside)
FROM (SELECT {_PAID}, 0 AS aside FROM outcomes UNION ALL SELECT {_PAID}, 1 AS aside FROM archived WHERE paid)
"""  # noqa: S608

_UNDER_WAY = "SELECT usage, cost_usd FROM turns WHERE key NOT IN (SELECT key FROM outcomes)"


def count_by_status(connection: sqlite3.Connection) -> dict[Status, int]:
    """Return the number of outcomes of each status, including zeros."""
    others = connection.execute("SELECT status, COUNT(*) FROM outcomes WHERE status <> 'labelled' GROUP BY status")
    counts = dict.fromkeys(Status, 0)
    for status, count in others:
        counts[_status(status)] += count
    everything = connection.execute("SELECT COUNT(*) FROM outcomes").fetchone()[0]
    return counts | {Status.LABELLED: everything - sum(counts.values())}


def count_paid(connection: sqlite3.Connection) -> int:
    """Return the number of outcomes for which a call was made."""
    return int(connection.execute("SELECT COUNT(*) FROM outcomes WHERE attempts > 0").fetchone()[0])


def _status(text: str) -> Status:
    """Return the status; REJECTED if it is damaged."""
    return STATUSES.get(text, Status.REJECTED)


def row_counts(connection: sqlite3.Connection) -> RowCounts | None:
    """Count the rows if a record can give several rows or none; None if each gives one."""
    several = "SELECT 1 FROM outcomes WHERE status = 'labelled' AND label LIKE '[%' LIMIT 1"
    if connection.execute(several).fetchone() is None:
        return None
    # A label of several rows is a list: their common values, then each row.
    rows, without = connection.execute(
        "SELECT TOTAL(CASE WHEN label LIKE '[%' THEN json_array_length(label) - 1 ELSE 1 END),"
        " TOTAL(label LIKE '[%' AND json_array_length(label) = 1) FROM outcomes"
        " WHERE status = 'labelled' AND json_valid(label)"
    ).fetchone()
    return RowCounts(int(rows), int(without))


def label_of(text: str | None) -> dict[str, JSON]:
    """Return a saved label; empty if it is not one, as in a damaged row, which is reported elsewhere."""
    try:
        label = json_value(text)
    except (ValueError, TypeError):
        return {}
    return label if isinstance(label, dict) else {}


def copied(connection: sqlite3.Connection) -> int:
    """Return how many records took the answer of an identical request."""
    return int(connection.execute("SELECT COUNT(*) FROM outcomes WHERE copied_from IS NOT NULL").fetchone()[0])


def problem_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the number of outcomes of each problem code, most frequent first."""
    rows = connection.execute(
        "SELECT problem_code, COUNT(*) AS n FROM outcomes WHERE status <> 'labelled' AND problem_code IS NOT NULL"
        " GROUP BY problem_code ORDER BY n DESC, problem_code"
    )
    return {str(code): int(count) for code, count in rows}


def totals(connection: sqlite3.Connection) -> Totals:
    """Return usage, cost, and attempts of everything that was paid for."""
    row = connection.execute(_TOTALS).fetchone()
    *tokens, cost_usd, unpriced, attempts, repairs, archived = row
    under_way, under_way_usd, unpriced_usage = _under_way(connection)
    return Totals(
        usage=Usage(*map(int, tokens)) + under_way,
        cost_usd=float(cost_usd) + under_way_usd,
        unpriced=int(unpriced),
        attempts=int(attempts),
        repairs=int(repairs),
        archived=int(archived),
        unpriced_usage=unpriced_usage,
    )


def _under_way(connection: sqlite3.Connection) -> tuple[Usage, float, Usage]:
    """Return usage, cost, and unpriced usage of the saved answers of records without an outcome."""
    used, cost_usd, unpriced = Usage(), 0.0, Usage()
    for text, cost in connection.execute(_UNDER_WAY):
        try:
            usage = Usage(*json_value(text))
        except (ValueError, TypeError):  # damaged, so its record is asked again
            continue
        used += usage
        if isinstance(cost, float | int):
            cost_usd += cost
        else:
            unpriced += usage
    return used, cost_usd, unpriced


def last_seq(connection: sqlite3.Connection) -> int:
    """Return the highest seq so far, or 0."""
    row = connection.execute(
        "SELECT MAX(COALESCE((SELECT MAX(seq) FROM outcomes), 0), COALESCE((SELECT MAX(seq) FROM archived), 0))"
    ).fetchone()
    return int(row[0])


def known(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, StoredOutcome]:
    """Return what is stored about the keys that have an outcome."""
    return {
        unbound(key): StoredOutcome(digest, _status(status), ordinal, line, any_text(source))
        for key, digest, status, ordinal, line, source in of_keys(connection, _SELECT_KNOWN, keys)
    }


def outcomes_of(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Outcome]:
    """Return the outcomes of the keys that have one."""
    outcomes = map(to_outcome, of_keys(connection, SELECT_OUTCOME, keys))
    return {outcome.record.key: outcome for outcome in outcomes}


def archived_of(connection: sqlite3.Connection, key: str) -> list[ArchivedOutcome]:
    """Return the archived outcomes of this record, oldest first. Scans all archived outcomes."""
    rows = connection.execute(
        f"SELECT {', '.join(COLUMNS)}, archived_at, reason FROM archived WHERE key = ? ORDER BY archived_at, seq",  # noqa: S608
        (bound(key),),
    )
    return [ArchivedOutcome(to_outcome(row[: len(COLUMNS)]), row[-2], str(row[-1])) for row in rows]


def keys_like(connection: sqlite3.Connection, text: str, limit: int = 3) -> list[str]:
    """Return some keys that contain this text, in upper or lower case."""
    rows = connection.execute(
        "SELECT key FROM outcomes WHERE instr(lower(key), lower(?)) ORDER BY length(key), key LIMIT ?", (text, limit)
    )
    return [any_text(key) for (key,) in rows]


def canaries(connection: sqlite3.Connection) -> list[Outcome]:
    """Return the outcomes of gold records, latest first."""
    rows = connection.execute(
        f"{SELECT_OUTCOME.replace(' FROM outcomes', ' FROM archived')} WHERE reason = 'canary' ORDER BY seq"
    )
    return [to_outcome(row) for row in rows]


def find_duplicates(connection: sqlite3.Connection, places: Sequence[tuple[str, str]]) -> dict[int, str]:
    """Return the first place of each key that was seen before in this pass, by index in these (key, place) pairs.

    Memory stays flat, because the keys are stored in a temporary file.
    """
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS seen (key TEXT PRIMARY KEY, place TEXT) WITHOUT ROWID")
    rows = of_keys(connection, "SELECT key, place FROM seen", [key for key, _ in places])
    first: dict[str, str] = {unbound(key): unbound(place) for key, place in rows}
    duplicates: dict[int, str] = {}
    fresh: list[tuple[str | bytes | None, str | bytes | None]] = []
    for index, (key, place) in enumerate(places):
        if key in first:
            duplicates[index] = first[key]
        else:
            first[key] = place
            fresh.append((bound(key), bound(place)))
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO seen VALUES (?, ?)", fresh)
    connection.execute("COMMIT")
    return duplicates


def absent_keys(connection: sqlite3.Connection, records: int | None) -> list[str]:
    """Return the keys of outcomes without a call whose records were not in this pass."""
    is_noted = connection.execute("SELECT 1 FROM sqlite_temp_master WHERE name = 'seen'").fetchone()
    if not is_noted and records is None:
        return []
    absent = "key NOT IN (SELECT key FROM temp.seen)" if is_noted else "ordinal >= ?"
    rows = connection.execute(
        f"SELECT key FROM outcomes WHERE request_digest IS NULL AND status <> 'labelled' AND {absent}",  # noqa: S608
        [] if is_noted else [records],
    )
    return [unbound(key) for (key,) in rows]


def begin_pass(connection: sqlite3.Connection) -> None:
    """Forget the keys that `find_duplicates` has stored."""
    connection.execute("DROP TABLE IF EXISTS temp.seen")


def find_request(connection: sqlite3.Connection, digests: Sequence[bytes]) -> dict[bytes, Outcome]:
    """Return the oldest labeled outcome of each of these requests that has one."""
    oldest: dict[bytes, Outcome] = {}
    for chunk in chunks(digests):
        wanted = set(chunk)
        rows = connection.execute(
            f"{SELECT_OUTCOME} WHERE status = 'labelled' AND request_digest IS NOT NULL"
            f" AND substr(request_digest, 1, 6) IN ({placeholders(chunk)}) ORDER BY seq",
            [digest[:6] for digest in chunk],
        )
        for outcome in map(to_outcome, rows):
            if outcome.request_digest in wanted and outcome.status is Status.LABELLED:
                oldest.setdefault(outcome.request_digest, outcome)
    return oldest


def rows_after(
    connection: sqlite3.Connection, seq: int, limit: int = CHUNK, *, answers: bool = True
) -> list[tuple[int, Outcome]]:
    """Return the next outcomes with their seqs, in order of commits, with or without their `answers`."""
    select = SELECT_OUTCOME if answers else SELECT_ROW
    rows = connection.execute(f"{select} WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
    return [(row[0], to_outcome(row)) for row in rows]


def rows_in_order(
    connection: sqlite3.Connection, after: tuple[int, int] = (-1, 0), limit: int = CHUNK, *, answers: bool = True
) -> list[tuple[int, Outcome]]:
    """Return the next outcomes with their seqs, in input order. `after` is (ordinal, seq) of the last one before."""
    select = SELECT_OUTCOME if answers else SELECT_ROW
    rows = connection.execute(f"{select} WHERE (ordinal, seq) > (?, ?) ORDER BY ordinal, seq LIMIT ?", (*after, limit))
    return [(row[0], to_outcome(row)) for row in rows]


def checkpoints(connection: sqlite3.Connection) -> dict[str, Checkpoint]:
    """Return the checkpoint of each file, by name."""
    rows = connection.execute("SELECT name, bytes, position, shape, digest, is_stale FROM sinks")
    return {name: Checkpoint(size, at, shape, digest, bool(stale)) for name, size, at, shape, digest, stale in rows}


def meta_get(connection: sqlite3.Connection, key: str) -> str | None:
    """Return the text under this name, or None."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def requests_on(connection: sqlite3.Connection, day: str) -> int:
    """Return how many requests were sent on this day (an ISO date)."""
    row = connection.execute("SELECT requests FROM days WHERE day = ?", (day,)).fetchone()
    return 0 if row is None else int(row[0])


def faults(connection: sqlite3.Connection) -> list[str]:
    """Return what SQLite's own check finds wrong, or else which rows cannot be read; empty if the file is sound."""
    try:
        problems = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return [str(error)]
        raise
    if problems != ["ok"]:
        return problems
    return [
        f"the row of {key!r} (seq {seq}): {why}" for seq, key, why in islice(damaged(connection), MOST_DAMAGED_ROWS)
    ]


def damaged(connection: sqlite3.Connection) -> Iterator[tuple[int, str, str]]:
    """Yield the seq and key of each row that cannot be read, and why. Reads all outcomes."""
    for row in connection.execute(SELECT_OUTCOME):
        if (why := damage_of(row)) is not None:
            yield row[0], any_text(row[1]), why


def chunks(items: Sequence[_T]) -> Iterator[list[_T]]:
    """Yield the items in lists short enough for one IN (...)."""
    rest = iter(items)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def of_keys(connection: sqlite3.Connection, select: str, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the selected rows that have these keys."""
    for chunk in chunks(keys):
        yield from connection.execute(f"{select} WHERE key IN ({placeholders(chunk)})", [bound(key) for key in chunk])


def placeholders(values: Sequence[object]) -> str:
    """Return one question mark per value, with commas."""
    return ",".join("?" * len(values))


def describe_duplicates(connection: sqlite3.Connection, path: Path, outcomes: Sequence[Outcome]) -> str:
    """Describe why these outcomes cannot be written: some of their records already have one."""
    keys = [outcome.record.key for outcome in outcomes]
    twice = sorted({key for key in keys if keys.count(key) > 1} | known(connection, keys).keys())
    return (
        f"{path}: these records have an outcome already and were about to get a second one: "
        f"{', '.join(map(repr, twice[:5]))}. Nothing of this batch was written."
    )
