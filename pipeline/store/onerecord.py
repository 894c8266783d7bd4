"""What the ledger knows of one record beside its outcome."""

import sqlite3
from dataclasses import dataclass

from pipeline.records import Outcome
from pipeline.store.rows import COLUMNS, any_text, bound, to_outcome


@dataclass(frozen=True, slots=True)
class ArchivedOutcome:
    """An outcome that was archived: when (a Unix time), and why."""

    outcome: Outcome
    at: float
    reason: str


def archived_of(connection: sqlite3.Connection, key: str) -> list[ArchivedOutcome]:
    """What was archived of this record, the oldest first. Looks through all that was archived."""
    rows = connection.execute(
        f"SELECT {', '.join(COLUMNS)}, archived_at, reason FROM archived WHERE key = ? ORDER BY archived_at, seq",  # noqa: S608
        (bound(key),),
    )
    return [ArchivedOutcome(to_outcome(row[: len(COLUMNS)]), row[-2], str(row[-1])) for row in rows]


def keys_like(connection: sqlite3.Connection, text: str, limit: int = 3) -> list[str]:
    """Some keys in which this text is, in any case of its letters."""
    rows = connection.execute(
        "SELECT key FROM outcomes WHERE instr(lower(key), lower(?)) ORDER BY length(key), key LIMIT ?", (text, limit)
    )
    return [any_text(key) for (key,) in rows]
