"""The turns of records that are not at their end: answers that were paid for, and what their callbacks gave back."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any

from pipeline import codec
from pipeline.records import Turn, Usage
from pipeline.store.queries import chunks, marks
from pipeline.store.rows import answer_text, bound, json_text, json_value, read_answer, unbound

log = logging.getLogger("labelpipe")

_COLUMNS = (
    "key",
    "turn",
    "request_digest",
    "answer",
    "usage",
    "calls",
    "repairs",
    "results",
    "model",
    "request_id",
    "latency_s",
    "at",
)
_NAMES = ", ".join(_COLUMNS)
_KEEP = f"INSERT OR REPLACE INTO turns ({_NAMES}) VALUES ({marks(_COLUMNS)})"  # noqa: S608 (constant names)
_PENDING = f"SELECT {_NAMES} FROM turns WHERE key NOT IN (SELECT key FROM outcomes) ORDER BY key, turn"  # noqa: S608


def keep(connection: sqlite3.Connection, turns: Sequence[Turn]) -> None:
    """Write turns, each in the place of the one with its key and number; later ones of that key are of another talk.

    Called in a transaction.
    """
    places = [(bound(turn.key), turn.number) for turn in turns]
    connection.executemany("DELETE FROM turns WHERE key = ? AND turn > ?", places)
    connection.executemany(_KEEP, map(_to_row, turns))


def forget(connection: sqlite3.Connection, keys: Sequence[str]) -> None:
    """Drop the turns of these records. Called in a transaction."""
    for chunk in chunks(keys):
        connection.execute(f"DELETE FROM turns WHERE key IN ({marks(chunk)})", list(map(bound, chunk)))  # noqa: S608


def pending(connection: sqlite3.Connection) -> dict[str, list[Turn]]:
    """The turns of records that have no outcome, in their order: at most as many as were under way."""
    return _by_key(connection.execute(_PENDING))


def of(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, list[Turn]]:
    """The turns of these records, in their order."""
    found: dict[str, list[Turn]] = {}
    for chunk in chunks(keys):
        select = f"SELECT {_NAMES} FROM turns WHERE key IN ({marks(chunk)}) ORDER BY key, turn"  # noqa: S608
        found |= _by_key(connection.execute(select, list(map(bound, chunk))))
    return found


def _by_key(rows: sqlite3.Cursor) -> dict[str, list[Turn]]:
    found: dict[str, list[Turn]] = {}
    broken: set[str] = set()
    for row in rows:
        key = unbound(row[0])
        try:
            turn = _to_turn(row)
        except Exception as error:  # a damaged row: the conversation goes on from what came before it
            log.warning("damaged turn", extra={"facts": {"key": key, "turn": row[1], "error": repr(error)}})
            broken.add(key)
            continue
        if key not in broken:
            found.setdefault(key, []).append(turn)
    return found


def _to_row(turn: Turn) -> tuple[Any, ...]:
    usage = turn.usage
    return (
        bound(turn.key),
        turn.number,
        turn.request_digest,
        answer_text(turn.answer, whole=True),
        json_text([usage.prompt, usage.completion, usage.cached, usage.reasoning, usage.cache_write]),
        turn.calls,
        turn.repairs,
        codec.dumps(turn.results).decode(),
        bound(turn.model),
        bound(turn.request_id),
        turn.latency_s,
        turn.at,
    )


def _to_turn(row: Sequence[Any]) -> Turn:
    answer = read_answer(row[3])
    assert answer is not None
    return Turn(
        key=unbound(row[0]),
        number=row[1],
        request_digest=row[2],
        answer=answer,
        usage=Usage(*json_value(row[4])),
        calls=row[5],
        repairs=row[6],
        results=tuple(json_value(row[7])),
        model=unbound(row[8]),
        request_id=unbound(row[9]),
        latency_s=row[10],
        at=row[11],
    )
