"""Reads and writes people's answers about a run's labels in `reviews.db`, separate from the ledger.

The file contains draws (which records were chosen, each with its probability) and answers (what a person answered about
a record). Rows are only ever added: another answer takes an answer back. Several processes may write at once, even
during a run. Everything here waits for the disk: call it in a thread. Several threads may use one object.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.store.answers import Answer, Correction, Draw, DrawItem, Place, with_answer
from pipeline.store.renaming import renamed_answers, renames_for_people
from pipeline.store.reviewsfile import NAME, connect, connect_reader
from pipeline.store.rows import bound, json_text, json_value, unbound
from pipeline.store.writes import transaction

_ANSWER = (
    "id, at, draw, key, about, record, request, answered_by, blind, old_label, new_label, unclear, note, takes_back"
)
_ADD_ANSWER = f"INSERT INTO answers ({_ANSWER}) VALUES ({', '.join('?' * 14)})"  # noqa: S608 (constant names)
_ADD_DRAW = "INSERT INTO draws (at, seed, spec, purpose, blind, population, digest) VALUES (?, ?, ?, ?, ?, ?, ?)"
_NEXT = "SELECT MAX((SELECT COALESCE(MAX(id), 0) FROM answers), (SELECT COALESCE(MAX(id), 0) FROM places)) + 1"
_VERSION = """
SELECT MAX((SELECT COALESCE(MAX(id), 0) FROM places), (SELECT COALESCE(MAX(id), 0) FROM answers
    WHERE takes_back IS NOT NULL OR COALESCE(new_label, old_label, '{}') <> '{}'))
"""


class Reviews:
    """An open `reviews.db`. Every method raises StoreError if the file cannot be used."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file. Can be called twice."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Reviews:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection, to one thread at a time. Raises StoreError."""
        try:
            with self._lock:
                yield self._connection
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path}: cannot be used: {error}. What it holds is safe: fix the cause (is the disk full?), "
                "then run the same command again."
            ) from error

    def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._used() as connection:
            return connection.execute(statement, values).fetchall()

    # -- draws -------------------------------------------------------------------------------------------------------

    def add_draw(self, draw: Draw, items: Sequence[DrawItem]) -> Draw:
        """Save a draw with its records, in their order, and return it with its id and time.

        Raises ValueError if a key occurs twice, or a probability is not above 0 and at most 1.
        """
        if len({item.key for item in items}) != len(items):
            raise ValueError("a record is twice in a draw")
        if wrong := [item for item in items if not 0 < item.probability <= 1]:
            raise ValueError(f"a record is drawn with probability {wrong[0].probability}")
        at = draw.at or time.time()
        values = (at, draw.seed, json_text(draw.spec), draw.purpose, draw.blind, draw.population, draw.digest)
        with self._used() as connection, transaction(connection):
            number = connection.execute(_ADD_DRAW, values).lastrowid or 0
            connection.executemany(
                "INSERT INTO draw_items (draw, position, key, probability, stratum) VALUES (?, ?, ?, ?, ?)",
                (
                    (number, position, bound(item.key), item.probability, bound(item.stratum))
                    for position, item in enumerate(items)
                ),
            )
        return replace(draw, at=at, id=number)

    def draws(self, purpose: str | None = None) -> list[Draw]:
        """Return all draws, or those for one purpose, oldest first."""
        rows = self._rows("SELECT id, at, seed, spec, purpose, blind, population, digest FROM draws ORDER BY id")
        return [
            Draw(seed, json_value(spec), why, population, digest, bool(blind), at, number)
            for number, at, seed, spec, why, blind, population, digest in rows
            if purpose in (None, why)
        ]

    def items_of(self, draw: int) -> list[DrawItem]:
        """Return a draw's records in their order, each with its last valid answer in this draw.

        Empty if there is no such draw. If a record has a new key since, the item keeps the key of the draw.
        """
        answers = {answer.key: answer for answer in self.active_answers() if answer.draw == draw}
        rows = self._rows(
            "SELECT key, probability, stratum, position FROM draw_items WHERE draw = ? ORDER BY position", draw
        )
        return [
            DrawItem(key, probability, unbound(stratum), position, answers.get(key))
            for key, probability, stratum, position in ((unbound(row[0]), *row[1:]) for row in rows)
        ]

    def keys_of(self, draw: int) -> set[str]:
        """Return the keys of a draw's records."""
        return {unbound(key) for (key,) in self._rows("SELECT key FROM draw_items WHERE draw = ?", draw)}

    def draws_of(self, key: str) -> list[tuple[Draw, DrawItem]]:
        """Return the draws that contain this key, each with its item, without answers."""
        by_id = {draw.id: draw for draw in self.draws()}
        rows = self._rows(
            "SELECT draw, probability, stratum, position FROM draw_items WHERE key = ? ORDER BY draw", bound(key)
        )
        return [
            (by_id[draw], DrawItem(key, probability, unbound(stratum), at)) for draw, probability, stratum, at in rows
        ]

    # -- answers -----------------------------------------------------------------------------------------------------

    def add_answers(self, answers: Sequence[Answer]) -> list[Answer]:
        """Save answers in one transaction, and return them with their ids and times."""
        now = time.time()
        with self._used() as connection, transaction(connection):
            first = connection.execute(_NEXT).fetchone()[0]
            numbered = [replace(answer, at=answer.at or now, id=number) for number, answer in enumerate(answers, first)]
            connection.executemany(_ADD_ANSWER, map(_answer_row, numbered))
        return numbered

    def answers(self, since: int = 0) -> list[Answer]:
        """Return all answers with an id above `since`, oldest first, including those that take one back.

        Labels that were renamed since have their new names.
        """
        rows = self._rows(f"SELECT {_ANSWER} FROM answers WHERE id > ? ORDER BY id", since)  # noqa: S608
        return renamed_answers(list(map(_read_answer, rows)), renames_for_people(self.path.parent))

    def active_answers(self, upto: int | None = None) -> list[Answer]:
        """Return the answers that count, oldest first, without retractions and the answers that they take back."""
        answers = [answer for answer in self.answers() if upto is None or answer.id <= upto]
        taken_back = {answer.takes_back for answer in answers}
        return [answer for answer in answers if answer.takes_back is None and answer.id not in taken_back]

    # -- corrections -------------------------------------------------------------------------------------------------

    def corrections(self, upto: int | None = None) -> dict[str, Correction]:
        """Return the labels according to people, by the key that each record had when its answer was last placed.

        The last answer to each field counts. `upto` leaves out later versions.
        """
        rows = self._rows("SELECT answer, key, record, request, id FROM places ORDER BY id")
        places = {row[0]: Place(row[0], unbound(row[1]), *row[2:4]) for row in rows if upto is None or row[4] <= upto}
        corrections: dict[str, Correction] = {}
        for answer in self.active_answers(upto):
            if answer.fields:
                place = places.get(answer.id) or Place(answer.id, answer.key, answer.record, answer.request)
                corrections[place.key] = with_answer(corrections.get(place.key), answer, place)
        return corrections

    def version(self) -> int:
        """Return a number that grows whenever `corrections` changes, 0 at first."""
        return int(self._rows(_VERSION)[0][0])

    def add_places(self, places: Sequence[Place]) -> None:
        """Store where the records of these answers are now."""
        if not places:
            return
        with self._used() as connection, transaction(connection):
            first = connection.execute(_NEXT).fetchone()[0]
            connection.executemany(
                "INSERT INTO places (id, at, answer, key, record, request) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (number, time.time(), place.answer, bound(place.key), place.record, place.request)
                    for number, place in enumerate(places, first)
                ),
            )


def open_reviews(folder: Path) -> Reviews:
    """Open the reviews of the run in this folder for writing. Only its owner can read a new file.

    Raises SetupError if it is another kind of file.
    """
    return Reviews(folder / NAME, connect(folder / NAME))


def read_reviews(folder: Path) -> Reviews | None:
    """Open the reviews of the run for reading, or return None if nobody has reviewed it."""
    connection = connect_reader(folder / NAME)
    return None if connection is None else Reviews(folder / NAME, connection)


def _answer_row(answer: Answer) -> tuple[Any, ...]:
    return (
        answer.id,
        answer.at,
        answer.draw,
        bound(answer.key),
        answer.about,
        answer.record,
        answer.request,
        bound(answer.by),
        answer.blind,
        json_text(answer.old),
        json_text(answer.new),
        answer.unclear,
        bound(answer.note),
        answer.takes_back,
    )


def _read_answer(row: Sequence[Any]) -> Answer:
    number, at, draw, key, about, record, request, by, blind, old, new, unclear, note, takes_back = row
    who, note, old, new = unbound(by), unbound(note), json_value(old), json_value(new)
    rest = (record, request, bool(blind), bool(unclear), note, draw, takes_back, at, number)
    return Answer(unbound(key), who, about, old, new, *rest)
