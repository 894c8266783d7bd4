"""Renames labels in the ledger and in people's answers. The model's own answers stay as they are."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from pipeline.labelfields import Rename, Value, json_identity, renamer
from pipeline.records import JSON, Outcome
from pipeline.store.answers import Answer, label_digest
from pipeline.store.rows import COLUMNS, json_text, json_value, to_outcome
from pipeline.store.rundir import RunDir
from pipeline.store.writes import forget_files, set_meta, transaction

#: How many outcomes are read at once.
BLOCK = 500
LEAST_SEQ = -(2**63)
_AT = {name: place for place, name in enumerate(COLUMNS)}
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM {{}} WHERE seq > ? ORDER BY seq LIMIT {BLOCK}"  # noqa: S608 (our words)
#: Returns the digest of the request that the record would send now; None if unknown.
NewDigest = Callable[[Outcome], bytes | None]
#: Returns a label whose column has its new name, with its votes renamed and counted again.
Recount = Callable[[Mapping[str, JSON], str, Callable[[Any], Any]], Mapping[str, JSON]]


def renames_of(manifest: Mapping[str, Any] | None) -> list[Rename]:
    """Return a run's renames, oldest first, including one that was interrupted."""
    entries = (manifest or {}).get("renames", ())
    return [Rename(one["column"], tuple((old, new) for old, new in one["pairs"]), one["at"]) for one in entries]


def renames_for_people(folder: Path) -> list[Rename]:
    """Do the same for the run in a folder, with the time of each rename's end: until then, people saw the old names.

    Raises SetupError if the manifest cannot be read.
    """
    manifest: Mapping[str, Any] = RunDir(folder).read_manifest() or {}
    ends = [one.get("done_at", inf) for one in manifest.get("renames", ())]
    return [replace(one, at=end) for one, end in zip(renames_of(manifest), ends, strict=True)]


def renamed_answers(answers: Sequence[Answer], renames: Sequence[Rename]) -> list[Answer]:
    """Return people's answers with the current names of the labels."""
    return [_renamed_answer(answer, [one for one in renames if one.at > answer.at]) for answer in answers]


def _renamed_answer(answer: Answer, renames: Sequence[Rename]) -> Answer:
    old, new = answer.old, answer.new
    for one in renames:
        change = renamer(one.pairs)
        old, new = _renamed(old, one.column, change), _renamed(new, one.column, change)
    if old is answer.old and new is answer.new:
        return answer
    # If nobody had corrected the label before, the answer is about the model's own label.
    is_own = answer.about == label_digest(answer.old)
    return replace(answer, old=old, new=new, about=label_digest(old) if is_own else answer.about)


def _renamed(label: Mapping[str, JSON] | None, column: str, change: Callable[[Any], Any]) -> Mapping[str, JSON] | None:
    """Return the label with its new value; the same object if nothing changes."""
    if not isinstance(label, Mapping) or column not in label:
        return label
    value = change(label[column])
    return label if value is label[column] or value == label[column] else {**label, column: value}


def in_order(order: Sequence[Value], change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the change, which then also sorts several labels in the task's order."""
    places = {json_identity(value): place for place, value in enumerate(order)}

    def changed(value: Any) -> Any:
        result = change(value)
        if not isinstance(result, list) or result == value:
            return result
        return sorted(result, key=lambda one: places.get(json_identity(one), len(places)))

    return changed


def rename_key(rename: Rename) -> str:
    """Return the name under which the ledger saves how many outcomes a completed rename changed."""
    return f"renamed {rename.at!r}"


def rename_labels(
    connection: sqlite3.Connection,
    rename: Rename,
    order: Sequence[Value],
    new_digest: NewDigest | None,
    recount: Recount | None,
) -> int:
    """Rename the labels of all outcomes in one transaction, and return how many outcomes have changed.

    A rename is applied only once: a second time would swap two exchanged names back.
    """
    mark, change = rename_key(rename), in_order(order, renamer(rename.pairs))
    with transaction(connection):
        done = connection.execute("SELECT value FROM meta WHERE key = ?", (mark,)).fetchone()
        if done is not None:
            return int(done[0])
        count = _update(connection, "outcomes", rename.column, change, new_digest, recount)
        _update(connection, "archived", rename.column, change, new_digest, recount)
        set_meta(connection, mark, str(count))
        forget_files(connection)
    return count


def _update(
    connection: sqlite3.Connection,
    table: str,
    column: str,
    change: Callable[[Any], Any],
    new_digest: NewDigest | None,
    recount: Recount | None,
) -> int:
    # The seqs of gold records count down from -1.
    count, last = 0, LEAST_SEQ
    while rows := connection.execute(_SELECT.format(table), (last,)).fetchall():
        last = rows[-1][0]
        labels = list(_changed(rows, column, change, recount))
        texts = [(text, seq) for text, seq, _ in labels]
        connection.executemany(f"UPDATE {table} SET label = ? WHERE seq = ?", texts)  # noqa: S608 (our own words)
        if new_digest is not None:
            digests = ((new_digest(to_outcome(row)), row[0]) for row in rows if row[_AT["request_digest"]] is not None)
            known = [(digest, seq) for digest, seq in digests if digest is not None]
            connection.executemany(f"UPDATE {table} SET request_digest = ? WHERE seq = ?", known)  # noqa: S608
            # A replay also finds a record's votes by the digest.
            olds = {row[0]: (row[_AT["key"]], row[_AT["request_digest"]]) for row in rows}
            turns = [(digest, *olds[seq]) for digest, seq in known]
            connection.executemany("UPDATE turns SET request_digest = ? WHERE key = ? AND request_digest = ?", turns)
        count += sum(is_other for _, _, is_other in labels)
    return count


def _changed(
    rows: Sequence[Sequence[Any]], column: str, change: Callable[[Any], Any], recount: Recount | None = None
) -> Iterator[tuple[str | None, int, bool]]:
    """Yield the new text and seq of each changed row, and whether its label changes. Damaged rows are left alone."""
    for row in rows:
        text = row[_AT["label"]]
        if not isinstance(text, str):
            continue
        try:
            value: Any = json_value(text)
        except ValueError:
            continue
        new: Any = (
            [_renamed(one, column, change) for one in value]
            if isinstance(value, list)
            else _renamed(value, column, change)
        )
        is_other = new != value
        if recount is not None and isinstance(new, dict):
            new = recount(new, column, change)
        if new != value:
            yield json_text(new), row[0], is_other


def count_labels(connection: sqlite3.Connection, rename: Rename) -> tuple[int, float]:
    """Return how many outcomes a rename changes, and when the latest outcome was made, or 0 if there is none."""
    count, last = 0, 0
    while rows := connection.execute(_SELECT.format("outcomes"), (last,)).fetchall():
        last = rows[-1][0]
        count += len(list(_changed(rows, rename.column, renamer(rename.pairs))))
    tables = "SELECT finished_at FROM outcomes UNION ALL SELECT finished_at FROM archived"
    latest = connection.execute(f"SELECT MAX(finished_at) FROM ({tables})").fetchone()[0]  # noqa: S608 (our words)
    return count, float(latest or 0)
