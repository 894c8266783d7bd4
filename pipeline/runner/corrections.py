"""Handles people's corrections when records are asked again or files rewritten."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ChangedError, LabelpipeError, RunInUseError
from pipeline.runlog import log_event, run_log
from pipeline.runner.run_changes import RunChanges
from pipeline.runner.session_parts import CorrectionsChoice
from pipeline.runner.sql_export import export
from pipeline.runner.summary import recount_summary
from pipeline.store import (
    Layout,
    Ledger,
    RunDir,
    Sinks,
    misfit,
    open_reviews,
    read_corrections,
    read_reviews,
    retraction,
)

#: The author of the answers that take corrections back.
DROPPED_BY = "--drop-corrections"


def count_corrections(folder: str | Path) -> int:
    """Return how many records of this folder's run people have corrected or confirmed."""
    return len(read_corrections(Path(folder)).by_key)


async def settle_corrections(run_dir: RunDir, changes: RunChanges, choice: CorrectionsChoice, *, relabel: bool) -> None:
    """Keep or drop the corrections of records that will be labeled again. Raises ChangedError without a choice.

    This does not concern records whose content has changed: their corrections no longer apply anyway.
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
    """Take back every answer that decides a value, by adding answers."""
    with open_reviews(folder) as reviews:
        reviews.add_answers([retraction(one, DROPPED_BY) for one in reviews.active_answers() if one.fields])


async def labelled_by_people(run_dir: RunDir, ledger: Ledger) -> list[str]:
    """Return the keys of the records that have a person's label and none of the model."""
    corrected = await asyncio.to_thread(read_corrections, run_dir.path)
    outcomes = await ledger.outcomes_of(list(corrected.by_key))
    return [
        key for key, outcome in outcomes.items() if outcome.label is None and not misfit(corrected.by_key[key], outcome)
    ]


# -- rewriting the files -----------------------------------------------------------------------------------------------


#: How many times the files of a large run are rewritten while people continue to answer.
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class RewriteResult:
    """What happened to the files: "written", "at_work" (the run writes them), or "waiting"; and a message."""

    state: str
    message: str


async def rewrite(run_dir: RunDir) -> RewriteResult:
    """Write the output files and the table of [output.sql] with the current corrections."""
    messages: list[str] = []
    try:
        for _ in range(ROUNDS):
            with run_dir.open_for_writing():
                version, more = await _write(run_dir)
            messages += more
            # Somebody may have answered meanwhile and left the files to us.
            if version == (await asyncio.to_thread(read_corrections, run_dir.path)).version:
                return RewriteResult("written", " ".join(messages))
        messages.append("More answers came in the meantime. The end of that review, or the next session, writes them.")
        return RewriteResult("written", " ".join(messages))
    except RunInUseError:
        return RewriteResult(
            "at_work", "The run is in progress. It writes the corrections into the files when it ends."
        )
    except LabelpipeError as error:
        return RewriteResult("waiting", f"The answers are kept, but the files were not written: {error}")


async def write_late(run_dir: RunDir) -> None:
    """Write the corrections that came between a session's last look at them and the release of its lock.

    Call it after the release: people who answered before that left the files to the session, and people who answer
    later write them. Errors are not reported here: `verify` and the next session report them.
    """
    with suppress(LabelpipeError):
        if await _is_behind(run_dir):
            await rewrite(run_dir)


async def _is_behind(run_dir: RunDir) -> bool:
    reviews = await asyncio.to_thread(read_reviews, run_dir.path)
    if reviews is None:
        return False
    with reviews:
        version = await asyncio.to_thread(reviews.version)
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        text = await ledger.meta_get("layout")
    return text is not None and Layout.from_text(text).corrected != version


async def _write(run_dir: RunDir) -> tuple[int, list[str]]:
    """Write the files once. Return the version of the corrections in them, and messages."""
    with run_log(run_dir.log):
        async with await Ledger.open(run_dir.ledger) as ledger:
            text = await ledger.meta_get("layout_asked")
            has_table = await ledger.meta_get("sql") is not None
            if text is None:  # an earlier version made the run, and its next session writes the files
                return (await asyncio.to_thread(read_corrections, run_dir.path)).version, []
            layout = Layout.from_text(text)
            sinks = await Sinks.start(run_dir, ledger, layout)
            try:
                await sinks.finish()
            finally:
                await sinks.close()
            await recount_summary(run_dir, ledger, (run_dir.read_manifest() or {}).get("label_columns") or ())
        log_event("corrections written", files=list(layout.formats), version=sinks.layout.corrected)
        moved = list(map(str, sinks.moved))
        if has_table and "sql" in layout.formats:
            moved.append(await _write_table(run_dir))
        return sinks.layout.corrected, moved


async def _write_table(run_dir: RunDir) -> str:
    """Update the table of the run. Return a message about the result or the error."""
    try:
        done = await export(run_dir.path)
    except LabelpipeError as error:
        log_event("the table is not written", level=logging.ERROR, reason=str(error))
        return f"The table was not written: {error}"
    return f"The table {done.table} was written."
