"""The outcomes in the order of the rows: as they were committed, or as the input has them."""

from collections.abc import AsyncIterator

from pipeline.records import Outcome
from pipeline.store.correctionset import NOTHING, CorrectionSet
from pipeline.store.ledger import Ledger


async def rows_of(
    ledger: Ledger,
    order: str,
    first: int = 1,
    *,
    upto: int | None = None,
    corrected: CorrectionSet = NOTHING,
    answers: bool = True,
) -> AsyncIterator[list[tuple[int, Outcome]]]:
    """The outcomes with their seqs, in blocks: from seq `first` on if they are in the order of completion, else all.

    They are as people have `corrected` them. With `upto` those that came later are left out. Without `answers`, what
    the model said is left out: the rows do not need it.
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
