"""Reads and writes the table `turns`: paid answers of records that have not ended, and their callbacks' results."""

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any

from pipeline import codec
from pipeline.records import Response, SavedAnswer, Usage
from pipeline.store.queries import chunks, placeholders
from pipeline.store.rows import answer_text, bound, json_text, json_value, read_answer, unbound

log = logging.getLogger("labelpipe")

_COLUMNS = (
    "key", "turn", "request_digest", "answer", "usage", "calls", "repairs", "results", "model", "request_id",
    "latency_s", "at", "fault", "cost_usd",
)  # fmt: skip
_NAMES = ", ".join(_COLUMNS)
_KEEP = f"INSERT OR REPLACE INTO turns ({_NAMES}) VALUES ({placeholders(_COLUMNS)})"  # noqa: S608 (constant names)


def keep(connection: sqlite3.Connection, answers: Sequence[SavedAnswer]) -> None:
    """Save answers, each instead of the one with its key and number, and delete that key's later answers.

    Called in a transaction.
    """
    places = [(bound(one.key), one.number) for one in answers]
    connection.executemany("DELETE FROM turns WHERE key = ? AND turn > ?", places)
    connection.executemany(_KEEP, map(_to_row, answers))


def forget(connection: sqlite3.Connection, keys: Sequence[str]) -> None:
    """Delete the answers of these records. Called in a transaction."""
    for chunk in chunks(keys):
        connection.execute(f"DELETE FROM turns WHERE key IN ({placeholders(chunk)})", list(map(bound, chunk)))  # noqa: S608


def has_any(connection: sqlite3.Connection) -> bool:
    """Whether there are any answers."""
    return connection.execute("SELECT 1 FROM turns LIMIT 1").fetchone() is not None


def of(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, list[SavedAnswer]]:
    """Return the answers of these records, in their order."""
    answers: dict[str, list[SavedAnswer]] = {}
    for chunk in chunks(keys):
        select = f"SELECT {_NAMES} FROM turns WHERE key IN ({placeholders(chunk)}) ORDER BY key, turn"  # noqa: S608
        answers |= _by_key(connection.execute(select, list(map(bound, chunk))))
    return answers


def _by_key(rows: sqlite3.Cursor) -> dict[str, list[SavedAnswer]]:
    answers: dict[str, list[SavedAnswer]] = {}
    broken: set[str] = set()
    for row in rows:
        key = unbound(row[0])
        try:
            answer = _to_answer(row)
        except Exception as error:  # a damaged row: the record continues after the answers before it
            log.warning("damaged turn", extra={"facts": {"key": key, "turn": row[1], "error": repr(error)}})
            broken.add(key)
            continue
        if key not in broken:
            answers.setdefault(key, []).append(answer)
    return answers


def _to_row(saved: SavedAnswer) -> tuple[Any, ...]:
    response = saved.response
    return (
        bound(saved.key),
        saved.number,
        saved.request_digest,
        answer_text(response.answer, whole=True),
        json_text(response.usage.counts),
        saved.calls,
        saved.repairs,
        codec.dumps(saved.results).decode(),
        bound(response.model),
        bound(response.request_id),
        response.latency_s,
        saved.at,
        saved.fault,
        response.cost_usd,
    )


def _to_answer(row: Sequence[Any]) -> SavedAnswer:
    key, turn, digest, text, used, calls, repairs, results, model, request_id, latency_s, at, fault, cost_usd = row
    answer = read_answer(text)
    assert answer is not None
    response = Response(
        answer, Usage(*json_value(used)), unbound(model) or "", unbound(request_id), latency_s, cost_usd=cost_usd
    )
    results = tuple(json_value(results))
    return SavedAnswer(unbound(key), turn, digest, response, calls, at, fault=fault, results=results, repairs=repairs)
