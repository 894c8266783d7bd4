"""What a report shows of a ledger beside its counts: how long answers took, examples of failures, a sample of rows."""

import random
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.records import Outcome
from pipeline.store.queries import placeholders
from pipeline.store.rows import to_outcome
from pipeline.store.schema import SELECT_OUTCOME, connect_reader, store_errors

#: Latencies are counted in steps of so many seconds: a minute has 6,000 of them.
STEP_S = 0.01
#: Below so many outcomes all of them are looked at for a sample. Above, numbers are drawn, and some are those of no
#: labelled outcome: so more are drawn than needed, in so many rounds.
FEW, ROUNDS = 500, 4


@dataclass(frozen=True, slots=True)
class Overview:
    """`latencies` counts answers by how long they took, to the nearest STEP_S; `failures` are examples by code.

    `sample` are labelled outcomes, drawn at random, in the order in which they were answered. `first_at` and `last_at`
    are when the first and the last outcome was written, in seconds since 1970; `finished` counts outcomes by spans of
    `span_s` seconds from `first_at` on.
    """

    latencies: Mapping[int, int]
    failures: Mapping[str, Sequence[Outcome]]
    sample: Sequence[Outcome]
    first_at: float | None
    last_at: float | None
    finished: Mapping[int, int]
    span_s: float


def read_overview(ledger: Path, *, codes: Sequence[str], examples: int, rows: int, spans: int) -> Overview:
    """An overview with so many `examples` of each of `codes`, `rows` in the sample, and at most so many `spans`.

    No `spans`: nothing is counted by time. Memory stays flat. Raises SetupError where there is no ledger, StoreError
    where it cannot be read.
    """
    with store_errors(ledger), closing(connect_reader(ledger)) as connection:
        first_at, last_at = _times(connection) if spans else (None, None)
        span_s = max(1.0, ((last_at or 0.0) - (first_at or 0.0)) / max(1, spans))
        return Overview(
            latencies=_latencies(connection),
            failures={code: _examples(connection, code, examples) for code in codes},
            sample=_sample(connection, rows, random.Random(0)),  # noqa: S311 - nothing secret
            first_at=first_at,
            last_at=last_at,
            finished={} if first_at is None else _finished(connection, first_at, span_s),
            span_s=span_s,
        )


def _times(connection: sqlite3.Connection) -> tuple[float | None, float | None]:
    first_at, last_at = connection.execute(
        "SELECT MIN(finished_at), MAX(finished_at) FROM outcomes WHERE finished_at > 0"
    ).fetchone()
    return first_at, last_at


def _latencies(connection: sqlite3.Connection) -> dict[int, int]:
    """Of answers that were asked for: a copy took no time."""
    return dict(
        connection.execute(
            "SELECT CAST(latency_s / ? + 0.5 AS INTEGER) AS step, COUNT(*) FROM outcomes"
            " WHERE latency_s > 0 AND copied_from IS NULL GROUP BY step ORDER BY step",
            (STEP_S,),
        )
    )


def _finished(connection: sqlite3.Connection, first_at: float, span_s: float) -> dict[int, int]:
    return dict(
        connection.execute(
            "SELECT CAST((finished_at - ?) / ? AS INTEGER) AS span, COUNT(*) FROM outcomes"
            " WHERE finished_at > 0 GROUP BY span ORDER BY span",
            (first_at, span_s),
        )
    )


def _examples(connection: sqlite3.Connection, code: str, number: int) -> list[Outcome]:
    rows = connection.execute(
        f"{SELECT_OUTCOME} WHERE status <> 'labelled' AND problem_code = ? LIMIT ?", (code, number)
    )
    return [to_outcome(row) for row in rows]


def _sample(connection: sqlite3.Connection, number: int, chance: random.Random) -> list[Outcome]:
    """Each labelled outcome is in the sample with the same probability; the same ones each time."""
    first, last = connection.execute("SELECT MIN(seq), MAX(seq) FROM outcomes").fetchone()
    if first is None or number <= 0:
        return []
    if last - first < FEW:
        every = [seq for (seq,) in connection.execute("SELECT seq FROM outcomes WHERE status = 'labelled'")]
        labelled = _labelled(connection, chance.sample(every, min(number, len(every))))
        return [labelled[seq] for seq in sorted(labelled)]
    drawn: dict[int, Outcome] = {}
    for _ in range(ROUNDS):
        seqs = dict.fromkeys(chance.randint(first, last) for _ in range(4 * number))
        there = _labelled(connection, list(seqs))
        drawn.update((seq, there[seq]) for seq in seqs if seq in there)
    return [drawn[seq] for seq in sorted(list(drawn)[:number])]


def _labelled(connection: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, Outcome]:
    """Those of these outcomes that are there and have a label, by seq."""
    rows = connection.execute(f"{SELECT_OUTCOME} WHERE status = 'labelled' AND seq IN ({placeholders(seqs)})", seqs)
    return {row[0]: to_outcome(row) for row in rows}
