"""What people said about the labels, where records are to be asked again."""

import asyncio
from pathlib import Path
from typing import Literal

from pipeline.errors import ChangedError
from pipeline.runlog import log_event
from pipeline.runner.run_changes import Changes
from pipeline.store import Ledger, RunDir, misfit, open_reviews, read_corrections, retraction

#: What becomes of corrections whose records are labelled again; "": nobody has said.
CorrectionsChoice = Literal["", "keep", "drop"]
#: Whose the answers are that take corrections back.
DROPPED_BY = "--drop-corrections"


def count_corrections(folder: str | Path) -> int:
    """How many records of the run in this folder people have corrected or confirmed."""
    return len(read_corrections(Path(folder)).by_key)


async def settle_corrections(run_dir: RunDir, changes: Changes, choice: CorrectionsChoice, *, relabel: bool) -> None:
    """Keep or drop the corrections of records that are about to be labelled again. Raises ChangedError where to ask.

    A record whose content has changed is not meant: its correction does not apply any more in any case.
    """
    if not relabel or not (changes.parts or changes.cannot_match):
        return
    count = await asyncio.to_thread(count_corrections, run_dir.path)
    if not count:
        return
    if not choice:
        records = "1 record that a person has" if count == 1 else f"{count:,} records that people have"
        raise ChangedError(
            f"{run_dir.path}: --relabel would ask again for {records} corrected or confirmed. Nothing was sent. "
            "Choose:\n"
            "  --keep-corrections   keeps their corrections\n"
            "  --drop-corrections   takes their corrections back; reviews.db still has them"
        )
    if choice == "drop":
        await asyncio.to_thread(drop_corrections, run_dir.path)
        log_event("corrections dropped", records=count)


def drop_corrections(folder: Path) -> None:
    """Take back every answer that decides a value, by further answers."""
    with open_reviews(folder) as reviews:
        reviews.add_answers([retraction(one, DROPPED_BY) for one in reviews.standing() if one.fields])


async def labelled_by_people(run_dir: RunDir, ledger: Ledger) -> list[str]:
    """The keys of the records that have no label of the model, and one of a person."""
    corrected = await asyncio.to_thread(read_corrections, run_dir.path)
    outcomes = await ledger.outcomes_of(list(corrected.by_key))
    return [
        key for key, outcome in outcomes.items() if outcome.label is None and not misfit(corrected.by_key[key], outcome)
    ]
