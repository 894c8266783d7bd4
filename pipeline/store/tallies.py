"""What votes and gold records came to, read from the ledger."""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline import codec
from pipeline.records import Outcome
from pipeline.store.correctionset import NOTHING, CorrectionSet
from pipeline.store.queries import label_of, outcomes_of
from pipeline.store.rows import to_outcome
from pipeline.store.schema import SELECT_OUTCOME


@dataclass(frozen=True, slots=True)
class VoteCounts:
    """The votes of the labelled records that were asked for themselves.

    `pairs` counts the first two votes of each record, as JSON, without those that abstained: the votes that follow
    were asked for only where these differ.
    """

    records: int
    votes: int
    needs_review: int
    pairs: Mapping[tuple[str, ...], int]


def vote_counts(connection: sqlite3.Connection, corrected: CorrectionSet = NOTHING) -> VoteCounts:
    """What the votes came to, over the whole run. What people have corrected or confirmed needs no review any more."""
    records = votes = needs_review = 0
    pairs: Counter[tuple[str, ...]] = Counter()
    for text, copied in connection.execute("SELECT label, copied_from FROM outcomes WHERE status = 'labelled'"):
        label = label_of(text)
        cast = label.get("votes")
        if not isinstance(cast, list):
            continue
        needs_review += label.get("needs_review") is True
        if copied is None:
            records, votes = records + 1, votes + len(cast)
            pairs[tuple(codec.canonical(one).decode() for one in cast[:2] if one is not None)] += 1
    for outcome in outcomes_of(connection, list(corrected.by_key)).values():
        needs_review -= _needs_review(outcome) and not _needs_review(corrected.apply(outcome))
    return VoteCounts(records, votes, needs_review, pairs)


def _needs_review(outcome: Outcome) -> bool:
    return (outcome.label or {}).get("needs_review") is True


def canaries(connection: sqlite3.Connection) -> list[Outcome]:
    """What gold records came to, the latest answers first."""
    rows = connection.execute(
        f"{SELECT_OUTCOME.replace(' FROM outcomes', ' FROM archived')} WHERE reason = 'canary' ORDER BY seq"
    )
    return [to_outcome(row) for row in rows]
