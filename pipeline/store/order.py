"""The outcomes in the order of the rows: as they were committed, or as the input has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from pipeline.records import Outcome
from pipeline.store.ledger import Ledger


def first_position(order: str) -> int:
    """Where the first row is: seqs begin with 1, ordinals with 0."""
    return 0 if order == "input" else 1


async def rows_of(
    ledger: Ledger, order: str, first: int, *, gaps: bool = False
) -> AsyncIterator[list[tuple[int, Outcome]]]:
    """The outcomes from position `first` on, with their positions, in blocks.

    A position is a seq, or the ordinal in the input's order; then the rows end before the first ordinal that has no
    outcome yet, unless `gaps` are allowed.
    """
    if order != "input":
        while block := await ledger.rows_after(first - 1):
            yield block
            first = block[-1][0] + 1
        return
    after = (first, 0)
    while found := await ledger.rows_in_order(after):
        places = [(outcome.record.ordinal, outcome) for _, outcome in found]
        whole = len(places) if gaps else _without_gap(places, first)
        if whole:
            yield places[:whole]
        if whole < len(found):
            return
        first, after = places[-1][0] + 1, (places[-1][0], found[-1][0])


def _without_gap(places: Sequence[tuple[int, Outcome]], expected: int) -> int:
    """How many of the rows come before the first missing ordinal."""
    for index, (ordinal, _) in enumerate(places):
        if ordinal > expected:
            return index
        expected = ordinal + 1
    return len(places)
