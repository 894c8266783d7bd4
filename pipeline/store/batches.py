"""Reads and writes the tables of the batch lane: parts, each sent as one batch, and the records that they ask about.

Each action on a part is recorded before it happens, so the next session knows what may have happened. A record is in
one part at a time: its key is the primary key of `batch_items`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from pipeline.records import Problem, Record, SavedAnswer
from pipeline.store import storedturns
from pipeline.store.batchparts import Item, ItemState, LineResult, Part, PartState
from pipeline.store.ledger import Ledger
from pipeline.store.queries import of_keys, placeholders
from pipeline.store.rows import bound, json_text, json_value, unbound
from pipeline.store.writes import Work, transaction

_T = TypeVar("_T")
_P = ParamSpec("_P")
_PART = (
    "part", "state", "lines", "bytes", "sha256", "endpoint", "tokens", "most_usd", "most_tokens", "packed_at", "begun",
    "file_id", "batch_id", "sent_at", "ended_at", "facts", "books",
)  # fmt: skip
_ITEM = ("key", "part", "place", "number", "digest", "state", "tries", "problem", "content", "record")
_PARTS, _ITEMS = ", ".join(_PART), ", ".join(_ITEM)


def _parts(connection: sqlite3.Connection) -> list[Part]:
    """Return all parts, including closed ones, oldest first."""
    return [_to_part(row) for row in connection.execute(f"SELECT {_PARTS} FROM batches ORDER BY part")]  # noqa: S608


def _to_part(row: Sequence[Any]) -> Part:
    values = dict(zip(_PART, row, strict=True))
    number, state, begun = values.pop("part"), PartState(values.pop("state")), bool(values.pop("begun"))
    facts, books = json_value(values.pop("facts")), json_value(values.pop("books"))
    return Part(number=number, state=state, begun=begun, facts=facts, books=books, **values)


def _part_row(part: Part) -> tuple[Any, ...]:
    values = [getattr(part, name) for name in _PART[2:-2]]
    return (part.number, part.state.value, *values, json_text(part.facts), json_text(part.books))


def _next_number(connection: sqlite3.Connection, first: int) -> int:
    return int(connection.execute("SELECT MAX(?, COALESCE(MAX(part), 0) + 1) FROM batches", (first,)).fetchone()[0])


def _note(connection: sqlite3.Connection, part: Part) -> Part:
    """Record the state of a part, and return the part."""
    with transaction(connection):
        _put_part(connection, part)
    return part


def _put_part(connection: sqlite3.Connection, part: Part) -> None:
    connection.execute(f"INSERT OR REPLACE INTO batches ({_PARTS}) VALUES ({placeholders(_PART)})", _part_row(part))  # noqa: S608


def _pack(connection: sqlite3.Connection, part: Part, items: Sequence[Item]) -> None:
    """Record a part whose input file is on the disk, and its records, which leave the parts that they were in."""
    with transaction(connection):
        if part.lines:
            _put_part(connection, part)
        connection.executemany(
            f"INSERT OR REPLACE INTO batch_items ({_ITEMS}) VALUES ({placeholders(_ITEM)})",  # noqa: S608
            map(_item_row, items),
        )


def _item_row(item: Item) -> tuple[Any, ...]:
    record = item.record
    return (
        bound(record.key),
        item.part,
        item.place,
        item.number,
        item.digest,
        item.state.value,
        item.tries,
        _problem_text(item.problem),
        record.digest,
        json_text([record.source, record.ordinal, record.fields, record.line]),
    )


def _problem_text(problem: Problem | None) -> str | None:
    return None if problem is None else json_text([problem.code, problem.message])


def _to_item(row: Sequence[Any]) -> Item:
    key, part, place, number, digest, state, tries, problem, content, text = row
    source, ordinal, fields, line = json_value(text)
    record = Record(source, ordinal, unbound(key) or "", fields, line, content)
    reason = None if problem is None else Problem(*json_value(problem))
    return Item(record, part, place, number, digest, ItemState(state), tries, reason)


def _waiting(connection: sqlite3.Connection, part: int) -> dict[int, Item]:
    """Return the part's items whose answers are unknown, by place."""
    rows = connection.execute(
        f"SELECT {_ITEMS} FROM batch_items WHERE part = ? AND state IN ('waiting', 'dropped') AND place >= 0",  # noqa: S608
        (part,),
    )
    return {item.place: item for item in map(_to_item, rows)}


def _record_results(connection: sqlite3.Connection, part: Part, results: Sequence[LineResult]) -> None:
    """Record the results of lines and their answers in one transaction."""
    answers = [one.answer for one in results if one.answer is not None]
    with transaction(connection):
        saved = storedturns.of(connection, [one.key for one in answers])
        storedturns.keep(connection, [_with_replaced_cost(one, saved.get(one.key, ())) for one in answers])
        connection.executemany(
            "UPDATE batch_items SET state = CASE state WHEN 'dropped' THEN state ELSE ? END, tries = tries + ?,"
            " problem = ? WHERE part = ? AND place = ?",
            [(one.state.value, one.is_try, _problem_text(one.problem), part.number, one.place) for one in results],
        )
        _put_part(connection, part)


def _with_replaced_cost(answer: SavedAnswer, before: Iterable[SavedAnswer]) -> SavedAnswer:
    """Return the answer with the cost of the answers that it replaces, which were given to another prompt."""
    for lost in before:
        if lost.number >= answer.number:
            answer = answer.carrying(lost.response, lost.calls, lost.repairs)
    return answer


def _next_answered(connection: sqlite3.Connection, part: int, after: tuple[int, str], limit: int) -> list[Item]:
    """Return the next items of a read part after this (place, key), without those that have an outcome."""
    place, key = after
    rows = connection.execute(
        f"SELECT {_ITEMS} FROM batch_items WHERE part = ? AND (place, key) > (?, ?)"  # noqa: S608
        " AND state IN ('answered', 'refused', 'again')"
        " AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.key = batch_items.key)"
        " ORDER BY place, key LIMIT ?",
        (part, place, bound(key), limit),
    )
    return list(map(_to_item, rows))


def _in_parts(connection: sqlite3.Connection, records: Sequence[Record]) -> set[str]:
    """Return the keys of the records in a part. One whose content has changed is dropped there, and not returned."""
    contents = {record.key: record.digest for record in records}
    waiting: set[str] = set()
    changed: list[str] = []
    for name, content in of_keys(connection, "SELECT key, content FROM batch_items", list(contents)):
        key = unbound(name)
        (waiting.add if contents[key] == content else changed.append)(key)
    if changed:
        with transaction(connection):
            connection.executemany(
                "UPDATE batch_items SET state = 'dropped', key = ? WHERE key = ?",
                [(bound(f"dropped in {time.time_ns()}: {key}"), bound(key)) for key in changed],
            )
    return waiting


def _waiting_for(connection: sqlite3.Connection, digests: Sequence[bytes]) -> set[bytes]:
    """Return the requests that a part is waiting for."""
    waiting: set[bytes] = set()
    for digest in digests:
        row = connection.execute(
            "SELECT 1 FROM batch_items WHERE substr(digest, 1, 6) = ? AND digest = ? AND state = 'waiting' LIMIT 1",
            (digest[:6], digest),
        ).fetchone()
        if row is not None:
            waiting.add(digest)
    return waiting


def batches_left(connection: sqlite3.Connection) -> int:
    """Return how many batches are open, or have answers that have not been used."""
    count: int = connection.execute(
        "SELECT COUNT(*) FROM batches WHERE state NOT IN ('read', 'closed') OR EXISTS (SELECT 1 FROM batch_items"
        " WHERE batch_items.part = batches.part AND state = 'answered'"
        " AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.key = batch_items.key))"
    ).fetchone()[0]
    return count


def _free_followers(connection: sqlite3.Connection, handed_out: Sequence[int]) -> int | None:
    """Free records whose identical request no longer waits; return their group's number, below 0, or None.

    It no longer waits once the part of the record that they follow is `handed_out`.
    """
    with transaction(connection):
        group = min(0, connection.execute("SELECT COALESCE(MIN(part), 0) FROM batch_items").fetchone()[0]) - 1
        freed = connection.execute(
            "UPDATE batch_items SET state = 'again', part = ?, place = 0 WHERE state = 'follows' AND NOT EXISTS ("
            "SELECT 1 FROM batch_items leader WHERE substr(leader.digest, 1, 6) = substr(batch_items.digest, 1, 6)"
            " AND leader.digest = batch_items.digest AND leader.part > 0 AND (leader.state = 'waiting'"
            " OR leader.state <> 'follows' AND leader.part NOT IN (SELECT value FROM json_each(?))))",
            (group, json_text(list(handed_out))),
        ).rowcount
    return group if freed else None


def _close_parts(connection: sqlite3.Connection) -> list[int]:
    """Close the parts whose records all have outcomes or are in other parts, and return the parts' numbers."""
    done = "EXISTS (SELECT 1 FROM outcomes WHERE outcomes.key = batch_items.key)"
    with transaction(connection):
        connection.execute(f"DELETE FROM batch_items WHERE part < 0 AND {done}")  # noqa: S608
        closed = [
            row[0]
            for row in connection.execute(
                "SELECT part FROM batches WHERE state = 'read' AND NOT EXISTS (SELECT 1 FROM batch_items"  # noqa: S608
                f" WHERE batch_items.part = batches.part AND state <> 'dropped' AND state <> 'follows' AND NOT {done})"
            )
        ]
        for part in closed:
            connection.execute("DELETE FROM batch_items WHERE part = ? AND state <> 'follows'", (part,))
            connection.execute("UPDATE batches SET state = 'closed' WHERE part = ?", (part,))
    return closed


def _follower_groups(connection: sqlite3.Connection) -> list[int]:
    """Return the numbers, below 0, of the groups of records that no longer follow others."""
    return [row[0] for row in connection.execute("SELECT DISTINCT part FROM batch_items WHERE part < 0")]


def _method(work: Work[_P, _T]) -> Callable[Concatenate[BatchBook, _P], Coroutine[Any, Any, _T]]:
    """Return a method that runs this work in the ledger."""

    @wraps(work)
    async def method(self: BatchBook, /, *args: _P.args, **options: _P.kwargs) -> _T:
        return await self._ledger.do(lambda connection: work(connection, *args, **options))

    return method


class BatchBook:
    """The parts of a run in its ledger, numbered from `first`.

    Every method raises StoreError if the file cannot be used.
    """

    def __init__(self, ledger: Ledger, first: int = 1) -> None:
        self._ledger, self._first = ledger, first

    async def next_number(self) -> int:
        return await self._ledger.do(_next_number, self._first)

    parts = _method(_parts)
    pack = _method(_pack)
    note = _method(_note)
    waiting = _method(_waiting)
    record_results = _method(_record_results)
    next_answered = _method(_next_answered)
    follower_groups = _method(_follower_groups)
    in_parts = _method(_in_parts)
    waiting_for = _method(_waiting_for)
    free_followers = _method(_free_followers)
    count_left = _method(batches_left)
    close_parts = _method(_close_parts)
