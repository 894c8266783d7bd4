"""Keys that come twice in one pass over the input."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.records import Record
from pipeline.store import Ledger


async def repeated_in(ledger: Ledger, batch: Sequence[Record]) -> set[int]:
    """Positions of records whose key came before in this pass. Records that cannot be read are named by their place."""
    named = [at for at, record in enumerate(batch) if record.problem is None]
    places = [(batch[at].key, f"{batch[at].source}:{batch[at].line}") for at in named]
    again = await ledger.mark_seen(places)
    return {named[at] for at in again}
