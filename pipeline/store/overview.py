"""Reads what a report shows of a ledger besides its counts: latencies, examples of failures, and sample rows."""

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

#: Latencies are counted in steps of this many seconds. A minute has 6,000 steps.
STEP_S = 0.01
#: With fewer seqs than this, a sample is drawn from all outcomes. Otherwise seqs are drawn, and some have no labeled
#: outcome, so more are drawn than needed, in this many rounds.
FEW, ROUNDS = 500, 4


@dataclass(frozen=True, slots=True)
class Overview:
    """The part of a report that is read from the outcomes.

    `latencies` counts answers by latency, to the nearest STEP_S; `failures` are examples by code. `sample` is random
    labeled outcomes in the order of their answers. `first_at` and `last_at` are when the first and last outcome were
    written, as Unix times; `finished` counts outcomes by spans of `span_s` seconds from `first_at`.
    """

    latencies: Mapping[int, int]
    failures: Mapping[str, Sequence[Outcome]]
    sample: Sequence[Outcome]
    first_at: float | None
    last_at: float | None
    finished: Mapping[int, int]
    span_s: float


def read_overview(ledger: Path, *, codes: Sequence[str], examples: int, rows: int, spans: int) -> Overview:
    """Return an overview with at most `examples` of each of `codes`, `rows` in the sample, and about `spans` spans.

    Without `spans`, nothing is counted by time. Memory stays flat. Raises SetupError if there is no ledger, StoreError
    if it cannot be read.
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
    """Count answers by latency, without copies, which took no time."""
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
    """Draw labeled outcomes with equal probability; the same `chance` gives the same ones."""
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
    """Return the outcomes of these seqs that exist and have a label, by seq."""
    rows = connection.execute(f"{SELECT_OUTCOME} WHERE status = 'labelled' AND seq IN ({placeholders(seqs)})", seqs)
    return {row[0]: to_outcome(row) for row in rows}
