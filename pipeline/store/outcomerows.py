"""Reads the outcomes of a run: in blocks, for the files of rows, or as one table in memory."""

import asyncio
from collections.abc import AsyncIterator
from operator import itemgetter
from pathlib import Path

from pipeline.errors import SetupError
from pipeline.records import JSON, Outcome
from pipeline.store.correctionset import NOTHING, CorrectionSet, read_corrections
from pipeline.store.layout import Layout
from pipeline.store.ledger import Ledger
from pipeline.store.rundir import RunDir

#: The last column: why a record has no label.
PROBLEM = "problem"


async def rows_of(
    ledger: Ledger,
    order: str,
    first: int = 1,
    *,
    upto: int | None = None,
    corrected: CorrectionSet = NOTHING,
    answers: bool = True,
) -> AsyncIterator[list[tuple[int, Outcome]]]:
    """Yield the outcomes with their seqs, in blocks: from seq `first` in order of completion, otherwise all.

    The outcomes are as `corrected`. With `upto`, later seqs are left out. Without `answers`, the model's answers are
    left out, because the rows do not need them.
    """
    if order != "input":
        while block := _within(await ledger.rows_after(first - 1, answers=answers), upto):
            yield corrected.apply_to_block(block)
            first = block[-1][0] + 1
        return
    after = (-1, 0)
    while block := await ledger.rows_in_order(after, answers=answers):
        after = (block[-1][1].record.ordinal, block[-1][0])
        if block := _within(block, upto):
            yield corrected.apply_to_block(block)


def _within(block: list[tuple[int, Outcome]], upto: int | None) -> list[tuple[int, Outcome]]:
    return block if upto is None else [row for row in block if row[0] <= upto]


async def read_table(folder: str | Path) -> tuple[list[str], list[int], list[list[JSON]]]:
    """Return titles, the place of each row's record in the input, and the rows of labels.*, with `problem` added.

    A record without a label has a row too, with the code of its problem. Raises SetupError if there is no run.
    """
    run_dir = RunDir(Path(folder))
    places: list[tuple[int, Outcome]] = []
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        saved = await ledger.meta_get("layout")
        reviewed = saved is not None and Layout.from_text(saved).reviewed
        corrected = await asyncio.to_thread(read_corrections, run_dir.path, column=reviewed)
        # Sort here: without an index by place, which few runs have, each block in that order reads the whole ledger.
        async for block in rows_of(ledger, "completion", corrected=corrected):
            places += [(outcome.record.ordinal, outcome) for _, outcome in block]
    places.sort(key=itemgetter(0))
    if saved is None:
        raise SetupError(f"{folder}: no row was written yet")
    table = Layout.from_text(saved).grown([outcome for _, outcome in places]).label_table()
    index: list[int] = []
    rows: list[list[JSON]] = []
    for place, outcome in places:
        code = outcome.problem.code if outcome.problem else None
        values = [[*values, code] for values in table.rows(outcome)]
        rows += values
        index += [place] * len(values)
    last = PROBLEM if PROBLEM not in table.titles else f"labelpipe_{PROBLEM}"
    return [*table.titles, last], index, rows
