"""Writes a draw as a file to fill in: the key, the carried columns, the label columns, `unclear`, and `note`."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError
from pipeline.records import JSON, Outcome
from pipeline.review.drawing import DrawOptions, draw_facts, draw_records, find_or_make_draw
from pipeline.review.reviewed_run import ReviewedRun, load_reviewed_run
from pipeline.store import DrawItem, Layout, Ledger, csv_block, distinct, json_block, read_corrections, write_whole

#: The last columns of a draw.
UNCLEAR, NOTE = "unclear", "note"
_SUFFIXES = ("", ".csv", ".txt", ".jsonl", ".ndjson")


async def draw_to_file(
    run: str | Path | None, options: DrawOptions, to: str | Path, *, draw: int | None = None
) -> dict[str, Any]:
    """Draw records of a run, save the draw, and write it as a file to fill in; return the result as plain values.

    With `draw`, write the existing draw of this id. Raises SetupError.
    """
    path = Path(to)
    refuse_existing_file(path)
    if draw is None:
        reviewed_run, stored_draw, items = await draw_records(run, options)
    else:
        reviewed_run = await load_reviewed_run(run)
        stored_draw, draw_items, _ = await find_or_make_draw(reviewed_run, options, draw)
        items = list(draw_items)
    await write_draw(reviewed_run, items, path, blind=stored_draw.blind)
    return draw_facts(reviewed_run, stored_draw, items, path)


async def write_draw(reviewed_run: ReviewedRun, items: Sequence[DrawItem], path: Path, *, blind: bool) -> None:
    """Write the draw as CSV, or as JSON Lines if the name ends so. Raises StoreError.

    In CSV, a text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    corrected = await asyncio.to_thread(read_corrections, reviewed_run.run_dir.path)
    async with await Ledger.open(reviewed_run.run_dir.ledger, read_only=True) as ledger:
        outcomes = await ledger.outcomes_of([item.key for item in items])
    outcomes_now = [corrected.apply(outcomes[item.key]) for item in items]
    carried = tuple(name for name in _carried_columns(reviewed_run.layout, outcomes_now) if name != reviewed_run.key)
    titles = _titles(reviewed_run, carried)
    rows = [_row(reviewed_run, carried, outcome, blind=blind) for outcome in outcomes_now]
    if path.suffix in (".jsonl", ".ndjson"):
        data = json_block(titles, rows)
    else:
        data = csv_block([titles], escape_formulas=True) + csv_block(rows, escape_formulas=True)
    await asyncio.to_thread(write_whole, path, data)


async def write_records(run: str | Path | None, keys: Sequence[str], path: Path, *, blind: bool) -> None:
    """Write the records of a saved draw that have these keys. Raises SetupError, StoreError."""
    await write_draw(await load_reviewed_run(run), [DrawItem(key, 1.0) for key in keys], path, blind=blind)


def refuse_existing_file(path: Path) -> None:
    """Raise SetupError if the file exists, since it may contain answers, or cannot be written as a draw."""
    if path.suffix.lower() not in _SUFFIXES:
        raise SetupError(f"{path}: a draw is CSV or JSON Lines: choose a name that ends in .csv or .jsonl")
    if path.exists():
        raise SetupError(f"{path}: already exists and may hold answers. Choose another name, or move it away.")
    if not path.absolute().parent.is_dir():
        raise SetupError(f"{path}: there is no folder {path.absolute().parent}")


def _carried_columns(layout: Layout, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Return the carried columns, including those of records without a label."""
    if layout.fixed:
        return layout.columns
    names = dict.fromkeys(layout.columns)
    for outcome in outcomes:
        names.update(dict.fromkeys(outcome.record.fields))
    return tuple(names)


def _titles(reviewed_run: ReviewedRun, carried: Sequence[str]) -> list[str]:
    """Return the titles. A carried column whose title is taken becomes `input_<name>`, as in labels.csv."""
    ours = (reviewed_run.key_title, *reviewed_run.names, UNCLEAR, NOTE)
    return [reviewed_run.key_title, *distinct(carried, ours), *reviewed_run.names, UNCLEAR, NOTE]


def _row(reviewed_run: ReviewedRun, carried: Sequence[str], outcome: Outcome, *, blind: bool) -> list[JSON]:
    label = {} if blind else outcome.label or {}
    fields = outcome.record.fields
    return [outcome.record.key, *map(fields.get, carried), *map(label.get, reviewed_run.names), None, None]
