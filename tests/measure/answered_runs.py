"""People's answers about the labels of a run, without the files and pages by which they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pipeline import Outcome
from pipeline.runner import run_sync
from pipeline.store import Answer, Ledger, label_digest, open_reviews


def outcomes_of(run: Path) -> Mapping[str, Outcome]:
    """All outcomes of a small run, by key."""

    async def read() -> Mapping[str, Outcome]:
        async with await Ledger.open(run / "ledger.db", read_only=True) as ledger:
            return {outcome.record.key: outcome for _, outcome in await ledger.rows_after(0, 10_000)}

    return run_sync(read())


def answer(
    run: Path,
    keys: Iterable[str],
    topic_of: Callable[[str], str | None] = lambda _: None,
    *,
    blind: bool = True,
    unclear: bool = False,
    by: str = "ann",
) -> None:
    """Somebody answers these records: with the topic of `topic_of`, or where that is None with the label's own."""
    outcomes = outcomes_of(run)

    def answered(outcome: Outcome) -> Answer:
        label, record = dict(outcome.label or {}), outcome.record
        new = {} if unclear else {"topic": topic_of(record.key) or label["topic"]}
        about = label_digest(label, outcome.rows)
        return Answer(
            record.key, by, about, label, new, record.digest, outcome.request_digest, blind=blind, unclear=unclear
        )

    with open_reviews(run) as reviews:
        reviews.add_answers([answered(outcomes[key]) for key in keys])
