"""The tables of the batch lane: parts that are sent as one batch each, and the records whose answers they will hold.

Each act on a part is noted before it is done, so that the next session knows what may have been done. A record is in
one part at a time: its key is the primary key of `batch_items`.
"""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.records import Problem, Record, SavedAnswer, Usage
from pipeline.store import storedturns
from pipeline.store.batchparts import Item, ItemState, LineResult, Part, PartState
from pipeline.store.ledger import Ledger
from pipeline.store.queries import of_keys, placeholders
from pipeline.store.rows import bound, json_text, json_value, unbound
from pipeline.store.writes import transaction

_PART = (
    "part", "state", "lines", "bytes", "sha256", "endpoint", "tokens", "most_usd", "most_tokens", "packed_at", "begun",
    "file_id", "batch_id", "sent_at", "ended_at", "facts", "books",
)  # fmt: skip
_ITEM = ("key", "part", "place", "number", "digest", "state", "tries", "problem", "content", "record")
_PARTS, _ITEMS = ", ".join(_PART), ", ".join(_ITEM)


class BatchBook:
    """The parts of a run, as its ledger keeps them. Every method raises StoreError if the file cannot be used.

    Its parts are numbered from `first` on.
    """

    def __init__(self, ledger: Ledger, first: int = 1) -> None:
        self._ledger = ledger
        self._first = first

    async def parts(self) -> list[Part]:
        """All parts that there ever were, the oldest first."""
        return await self._ledger.do(_parts)

    async def next_number(self) -> int:
        """The number of the next part."""
        first = self._first
        return await self._ledger.do(
            lambda seen: int(
                seen.execute("SELECT MAX(?, COALESCE(MAX(part), 0) + 1) FROM batches", (first,)).fetchone()[0]
            )
        )

    async def pack(self, part: Part, items: Sequence[Item]) -> None:
        """Note a part whose input file is on the disk, and the records in it; each leaves the part that it was in."""
        await self._ledger.do(_pack, part, items)

    async def note(self, part: Part) -> Part:
        """Note what has become of a part; gives it back."""
        await self._ledger.do(_note, part)
        return part

    async def waiting(self, part: int) -> dict[int, Item]:
        """The items of the part whose answers are not known, by place."""
        return await self._ledger.do(_waiting, part)

    async def record_results(self, part: Part, results: Sequence[LineResult]) -> None:
        """Write down what lines came to, and their answers: together, or not at all."""
        await self._ledger.do(_record_results, part, results)

    async def next_answered(self, part: int, after: tuple[int, str], limit: int) -> list[Item]:
        """The next items of a part that is read, behind this (place, key); those with an outcome are left out."""
        return await self._ledger.do(_next_answered, part, after, limit)

    async def follower_groups(self) -> list[int]:
        """The numbers, below 0, of the groups of records that followed others, and do no more."""
        return await self._ledger.do(
            lambda seen: [row[0] for row in seen.execute("SELECT DISTINCT part FROM batch_items WHERE part < 0")]
        )

    async def in_parts(self, records: Sequence[Record]) -> set[str]:
        """The keys of those that are in a part. One whose content is another now is dropped there, and not meant."""
        return await self._ledger.do(_in_parts, records)

    async def waiting_for(self, digests: Sequence[bytes]) -> set[bytes]:
        """Those of the requests whose answer is waited for."""
        return await self._ledger.do(_waiting_for, digests)

    async def free_followers(self, handed_out: Sequence[int]) -> int | None:
        """Let go of records whose identical request is not waited for any more; the number of their group, below 0.

        That is so once the part of the record that they follow is `handed_out`. None where there are none.
        """
        return await self._ledger.do(_free_followers, handed_out)

    async def count_left(self) -> int:
        """How many batches are open, or have answers in the ledger of which nothing has become yet."""
        return await self._ledger.do(batches_left)

    async def close_parts(self) -> list[int]:
        """Close the parts of which each record has its outcome, or is in another part; gives their numbers."""
        return await self._ledger.do(_close_parts)


def _parts(connection: sqlite3.Connection) -> list[Part]:
    return [_to_part(row) for row in connection.execute(f"SELECT {_PARTS} FROM batches ORDER BY part")]  # noqa: S608


def _to_part(row: Sequence[Any]) -> Part:
    values = dict(zip(_PART, row, strict=True))
    number, state, begun = values.pop("part"), PartState(values.pop("state")), bool(values.pop("begun"))
    facts, books = json_value(values.pop("facts")), json_value(values.pop("books"))
    return Part(number=number, state=state, begun=begun, facts=facts, books=books, **values)


def _part_row(part: Part) -> tuple[Any, ...]:
    values = {name: getattr(part, name) for name in _PART[2:-2]}
    values["begun"] = int(part.begun)
    return (part.number, part.state.value, *values.values(), json_text(part.facts), json_text(part.books))


def _note(connection: sqlite3.Connection, part: Part) -> None:
    with transaction(connection):
        _put_part(connection, part)


def _put_part(connection: sqlite3.Connection, part: Part) -> None:
    connection.execute(f"INSERT OR REPLACE INTO batches ({_PARTS}) VALUES ({placeholders(_PART)})", _part_row(part))  # noqa: S608


def _pack(connection: sqlite3.Connection, part: Part, items: Sequence[Item]) -> None:
    with transaction(connection):
        if part.lines:
            _put_part(connection, part)
        connection.executemany(
            f"INSERT OR REPLACE INTO batch_items ({_ITEMS}) VALUES ({placeholders(_ITEM)})",  # noqa: S608
            map(_item_row, items),
        )


def _item_row(item: Item) -> tuple[Any, ...]:
    record, problem = item.record, item.problem
    return (
        bound(record.key),
        item.part,
        item.place,
        item.number,
        item.digest,
        item.state.value,
        item.tries,
        None if problem is None else json_text([problem.code, problem.message]),
        record.digest,
        json_text([record.source, record.ordinal, record.fields, record.line]),
    )


def _to_item(row: Sequence[Any]) -> Item:
    source, ordinal, fields, line = json_value(row[9])
    problem = json_value(row[7])
    return Item(
        record=Record(source, ordinal, unbound(row[0]) or "", fields, line, row[8]),
        part=row[1],
        place=row[2],
        number=row[3],
        digest=row[4],
        state=ItemState(row[5]),
        tries=row[6],
        problem=None if problem is None else Problem(*problem),
    )


def _waiting(connection: sqlite3.Connection, part: int) -> dict[int, Item]:
    rows = connection.execute(
        f"SELECT {_ITEMS} FROM batch_items WHERE part = ? AND state IN ('waiting', 'dropped') AND place >= 0",  # noqa: S608
        (part,),
    )
    return {item.place: item for item in map(_to_item, rows)}


def _record_results(connection: sqlite3.Connection, part: Part, results: Sequence[LineResult]) -> None:
    answers = [one.answer for one in results if one.answer is not None]
    with transaction(connection):
        saved = storedturns.of(connection, [one.key for one in answers])
        storedturns.keep(connection, [_with_lost(one, saved.get(one.key, ())) for one in answers])
        connection.executemany(
            "UPDATE batch_items SET state = CASE state WHEN 'dropped' THEN state ELSE ? END, tries = tries + ?,"
            " problem = ? WHERE part = ? AND place = ?",
            [
                (
                    one.state.value,
                    int(one.is_try),
                    None if one.problem is None else json_text([one.problem.code, one.problem.message]),
                    part.number,
                    one.place,
                )
                for one in results
            ],
        )
        _put_part(connection, part)


def _with_lost(answer: SavedAnswer, before: Iterable[SavedAnswer]) -> SavedAnswer:
    """The answer, with what those have cost in whose place it is written: they were given to another prompt."""
    for lost in before:
        if lost.number >= answer.number:
            answer = answer.carrying(lost.response, lost.calls, lost.repairs)
    return answer


def _next_answered(connection: sqlite3.Connection, part: int, after: tuple[int, str], limit: int) -> list[Item]:
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
    """How many batches are open, or have answers of which nothing has become yet."""
    count: int = connection.execute(
        "SELECT COUNT(*) FROM batches WHERE state NOT IN ('read', 'closed') OR EXISTS (SELECT 1 FROM batch_items"
        " WHERE batch_items.part = batches.part AND state = 'answered'"
        " AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.key = batch_items.key))"
    ).fetchone()[0]
    return count


def _free_followers(connection: sqlite3.Connection, handed_out: Sequence[int]) -> int | None:
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


def usage_list(usage: Usage) -> list[int]:
    """The usage, as the books of a part keep it: the arguments of Usage."""
    return list(usage.counts)
