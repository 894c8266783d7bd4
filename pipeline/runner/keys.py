"""Keys that come twice in one pass over the input."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.records import Record
from pipeline.store import Ledger


async def repeated_in(ledger: Ledger, batch: Sequence[Record]) -> set[int]:
    """Positions of records whose key came before in this pass. Names that were made up never do, but are noted too."""
    return set(await ledger.mark_seen([(record.key, f"{record.source}:{record.line}") for record in batch]))
