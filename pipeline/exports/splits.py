"""Assigns records to splits: groups and near-duplicates together, by class, seeded, and never moved again.

Records that belong together are one unit. A unit's rank is a hash of the seed and of its records' keys. In each class,
the units with the lowest ranks are the test split, the next ones the validation split, and the rest is for training.
Rounding errors of a class are carried to the next one, so that the totals match the shares too.

A record that an earlier export has put into a split stays there. New records fill the gaps in the splits. A new record
that would connect records of two splits is left out. All data is in a temporary database file, so memory stays flat.
"""

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from pipeline import codec
from pipeline.errors import SetupError, StoreError
from pipeline.exports.near_duplicates import Texts, comparable_text

#: The splits by the number of shares.
NAMES = {2: ("train", "test"), 3: ("train", "val", "test")}
#: Why a record that could be exported is left out.
BRIDGE, NEAR_GOLD = "near_two_splits", "near_gold"
_TABLES = """
CREATE TABLE units (seq INTEGER PRIMARY KEY, key BLOB, mark BLOB, text BLOB, together BLOB, class INTEGER,
    rank INTEGER, root INTEGER, gold INTEGER, former INTEGER, split INTEGER, why TEXT);
CREATE TABLE parts (root INTEGER PRIMARY KEY, class INTEGER, rank INTEGER, records INTEGER, split INTEGER);
CREATE TABLE placed (root INTEGER PRIMARY KEY, split INTEGER);
CREATE TABLE former (key BLOB PRIMARY KEY, mark BLOB, split INTEGER) WITHOUT ROWID;
CREATE TABLE written (text BLOB, split INTEGER);
"""


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """One record to split.

    `text` is what it is compared by, `together` the value of its group (None: no group), and `label` its class.
    """

    seq: int
    key: str
    text: str
    together: bytes | None
    label: str
    gold: bool


@dataclass(frozen=True, slots=True)
class Shares:
    """How to split the records.

    `parts` are percentages, one for each of NAMES. If `near` is None, only identical texts are kept together.
    """

    parts: tuple[float, ...]
    seed: int
    near: float | None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the splits."""
        return NAMES[len(self.parts)]


class Splits:
    """The records of an export and their splits. Its methods wait for the disk and raise sqlite3.Error."""

    def __init__(self, shares: Shares, last_seq: int) -> None:
        self.shares = shares
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES + "BEGIN")
        # Mutable state, besides the database: the numbers of the classes, and for each record the one it is joined to.
        self._numbers: dict[str, int] = {}
        self._parent = array("q", range(last_seq + 1))
        self._texts = None if shares.near is None else Texts(self._database, shares.near)

    def close(self) -> None:
        """Close the database. May be called twice."""
        self._database.close()

    @property
    def classes(self) -> Sequence[str]:
        """The classes that were seen."""
        return list(self._numbers)

    def add(self, units: Sequence[SplitRecord]) -> None:
        """Add records to split."""
        texts = [_blob(comparable_text(unit.text)) for unit in units]
        digests = [codec.digest128(text) for text in texts]
        self._database.executemany(
            "INSERT INTO units (seq, root, key, mark, text, together, class, rank, gold)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            map(self._row, units, digests),
        )
        if self._texts is not None:
            self._texts.add(zip((unit.seq for unit in units), digests, texts, strict=True))

    def _row(self, unit: SplitRecord, digest: bytes) -> tuple[object, ...]:
        key = _blob(unit.key)
        # A record whose text or group has changed is a new record.
        mark = codec.digest128(digest + (unit.together or b""))
        rank = codec.digest64(b"%d " % self.shares.seed + key)
        # A class's number does not depend on the order of the records, which differs from run to run.
        if (number := self._numbers.get(unit.label)) is None:
            number = self._numbers[unit.label] = codec.digest64(_blob(unit.label))
        return unit.seq, unit.seq, key, mark, digest, unit.together, number, rank, int(unit.gold)

    # -- units ---------------------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Join records with the same text, in the same group, and with similar texts."""
        for column in ("text", "together"):
            members_by_value = self._database.execute(
                f"SELECT {column}, seq FROM units WHERE {column} IS NOT NULL ORDER BY {column}, seq"  # noqa: S608
            )
            for _, members in groupby(members_by_value, key=itemgetter(0)):
                (_, first), *others = members
                for _, seq in others:
                    self._join(first, seq)
        if self._texts is not None:
            for one, other in self._texts.similar(lambda one, other: self._root(one) == self._root(other)):
                self._join(one, other)
        joined = ((self._root(seq), seq) for seq, parent in enumerate(self._parent) if parent != seq)
        self._database.executemany("UPDATE units SET root = ? WHERE seq = ?", joined)
        self._database.execute("CREATE INDEX roots ON units (root)")

    def _root(self, seq: int) -> int:
        parent = self._parent
        while parent[seq] != seq:
            parent[seq] = seq = parent[parent[seq]]
        return seq

    def _join(self, one: int, other: int) -> None:
        roots = sorted((self._root(one), self._root(other)))
        self._parent[roots[1]] = roots[0]

    # -- earlier exports -----------------------------------------------------------------------------------------------

    def remember(self, former: Iterable[tuple[bytes, bytes, int]]) -> None:
        """Add splits of earlier exports: key, mark, split. For a repeated key, the first one counts."""
        self._database.executemany("INSERT OR IGNORE INTO former VALUES (?, ?, ?)", former)

    def assigned(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield the present splits: key, mark, split."""
        yield from self._database.execute("SELECT key, mark, split FROM units WHERE why IS NULL")

    # -- the splits ----------------------------------------------------------------------------------------------------

    def assign(self) -> None:
        """Assign each record to a split."""
        run = self._database.execute
        if self._number("SELECT EXISTS (SELECT 1 FROM former)"):
            run("UPDATE units SET former = (SELECT split FROM former"
                " WHERE former.key = units.key AND former.mark = units.mark)")  # fmt: skip
        test = len(self.shares.parts) - 1
        run("UPDATE units SET former = ? WHERE gold", (test,))
        run("CREATE TEMP TABLE torn AS SELECT root FROM units WHERE former IS NOT NULL GROUP BY root"
            " HAVING COUNT(DISTINCT former) > 1")  # fmt: skip
        run("UPDATE units SET why = ? WHERE former IS NULL AND root IN torn", (BRIDGE,))
        run("UPDATE units SET why = ? WHERE former <> ? AND root IN torn"
            " AND root IN (SELECT root FROM units WHERE gold)", (NEAR_GOLD, test))  # fmt: skip
        # Gold that an earlier export put into test may have similar records elsewhere, without a new record in between.
        run("UPDATE units SET why = ? WHERE former <> ? AND root IN torn"
            " AND (root NOT IN (SELECT root FROM units WHERE former IS NULL)"
            " OR text IN (SELECT text FROM units WHERE former = ? AND root IN torn))",
            (NEAR_GOLD, test, test))  # fmt: skip
        run("INSERT INTO parts SELECT root, NULL, MIN(rank), COUNT(*), MAX(former) FROM units WHERE why IS NULL"
            " GROUP BY root")  # fmt: skip
        # The class of most of its records; SQLite takes the other columns from the row of the maximum.
        run("CREATE TEMP TABLE most AS SELECT root, class, MAX(records) FROM (SELECT root, class, COUNT(*) AS records"
            " FROM units WHERE why IS NULL GROUP BY root, class) GROUP BY root")  # fmt: skip
        run("CREATE INDEX temp.mosts ON most (root)")
        run("UPDATE parts SET class = (SELECT class FROM most WHERE most.root = parts.root)")
        run("CREATE INDEX classes ON parts (class, rank)")
        self._fill()
        run("UPDATE units SET split = COALESCE(former, (SELECT split FROM parts WHERE parts.root = units.root),"
            " (SELECT split FROM placed WHERE placed.root = units.root)) WHERE why IS NULL")  # fmt: skip

    def _fill(self) -> None:
        """Assign the units that are in no split yet, class by class, the largest class first."""
        carry = [0.0] * len(self.shares.parts)
        classes = self._database.execute(
            "SELECT class, SUM(records) FROM parts GROUP BY class ORDER BY 2 DESC, 1"
        ).fetchall()
        for number, records in classes:
            wanted = [records * part / 100 + rest for part, rest in zip(self.shares.parts, carry, strict=True)]
            filled = self._fill_class(number, wanted)
            carry = [want - have for want, have in zip(wanted, filled, strict=True)]

    def _fill_class(self, number: int, wanted: Sequence[float]) -> list[int]:
        """Fill the splits of one class; return how many of its records are in each."""
        filled = [0] * len(wanted)
        for split, records in self._database.execute(
            "SELECT split, SUM(records) FROM parts WHERE class = ? AND split IS NOT NULL GROUP BY split", (number,)
        ):
            filled[split] = records
        for root, records in self._database.execute(
            "SELECT root, records FROM parts WHERE class = ? AND split IS NULL ORDER BY rank", (number,)
        ):
            split = next((at for at in range(len(wanted) - 1, 0, -1) if filled[at] + records / 2 <= wanted[at]), 0)
            filled[split] += records
            self._database.execute("INSERT INTO placed VALUES (?, ?)", (root, split))
        return filled

    # -- results -------------------------------------------------------------------------------------------------------

    def of(self, seqs: Sequence[int]) -> dict[int, tuple[int, str, bytes]]:
        """Return the split, class, and text digest of those of these records that are in a split."""
        marks = ",".join("?" * len(seqs))
        statement = f"SELECT seq, split, class, text FROM units WHERE why IS NULL AND seq IN ({marks})"  # noqa: S608
        rows = self._database.execute(statement, seqs)
        labels = {number: label for label, number in self._numbers.items()}
        return {seq: (split, labels[number], text) for seq, split, number, text in rows}

    def written(self, texts: Iterable[tuple[bytes, int]]) -> None:
        """Record the digests of texts that were written into a split."""
        self._database.executemany("INSERT INTO written VALUES (?, ?)", texts)

    def leaks(self) -> int:
        """Return how many texts were written into more than one split: 0, unless there is a bug."""
        return self._number(
            "SELECT COUNT(*) FROM (SELECT 1 FROM written GROUP BY text HAVING COUNT(DISTINCT split) > 1)"
        )

    def left_out(self) -> dict[str, int]:
        """Return why records are in no split, and how many."""
        return dict(self._database.execute("SELECT why, COUNT(*) FROM units WHERE why IS NOT NULL GROUP BY why"))

    def groups(self) -> tuple[int, int]:
        """Return how many units have more than one record, and how many records these have."""
        row = self._database.execute("SELECT COUNT(*), TOTAL(records) FROM parts WHERE records > 1").fetchone()
        return int(row[0]), int(row[1])

    def largest(self) -> int:
        """Return how many records the largest unit has."""
        return self._number("SELECT COALESCE(MAX(records), 0) FROM parts")

    def remembered(self) -> int:
        """Return how many records are in the split of an earlier export."""
        return self._number("SELECT COUNT(*) FROM units WHERE former IS NOT NULL AND why IS NULL AND NOT gold")

    def beside_gold(self) -> int:
        """Return how many records are in test because they are kept together with gold."""
        return self._number(
            "SELECT COUNT(*) FROM units WHERE why IS NULL AND NOT gold AND root IN (SELECT root FROM units WHERE gold)"
        )

    def count(self) -> int:
        """Return the number of records."""
        return self._number("SELECT COUNT(*) FROM units")

    def _number(self, statement: str) -> int:
        return int(self._database.execute(statement).fetchone()[0])


def _blob(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# -- between exports -----------------------------------------------------------------------------------------------

#: The file that saves the splits, in the run folder and in the export folder.
FILE = "splits.db"


def recall_splits(path: Path, terms: str) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield the saved splits of exports with these terms; nothing if there is no file. Raises SetupError."""
    if not path.is_file():
        return
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'splits'").fetchone():
                yield from connection.execute("SELECT key, mark, split FROM splits WHERE terms = ?", (terms,))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise SetupError(
            f"{path}: cannot be read ({error}), and it says in which split each record is. Restore a copy of it, or "
            "move it away: then the records may change their splits"
        ) from error


def remember_splits(path: Path, terms: str, assigned: Iterable[tuple[bytes, bytes, int]]) -> None:
    """Save the splits of an export with these terms, and keep those with other terms. Raises StoreError."""
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.executescript(
                "CREATE TABLE IF NOT EXISTS splits (terms TEXT, key BLOB, mark BLOB, split INTEGER,"
                " PRIMARY KEY (terms, key)) WITHOUT ROWID; BEGIN IMMEDIATE"
            )
            rows = ((terms, *row) for row in assigned)
            connection.executemany("INSERT OR REPLACE INTO splits VALUES (?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be written: {error}. The existing files are unchanged.") from error
