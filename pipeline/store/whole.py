"""A file of rows that is made in one go, from the ledger; the old one stays until the new one is whole."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from pipeline.records import Outcome
from pipeline.store import parquet
from pipeline.store.changedfiles import MovedFile, move_aside
from pipeline.store.correctionset import CorrectionSet
from pipeline.store.ledger import Ledger
from pipeline.store.order import rows_of
from pipeline.store.parquet import Blocks
from pipeline.store.projection import CHANGED, RowFormat, digest_of, writing
from pipeline.store.queries import Checkpoint
from pipeline.store.rowfile import open_rows
from pipeline.store.rundir import replace_durably
from pipeline.store.writes import NO_FILE


async def make(
    path: Path, row_format: RowFormat, ledger: Ledger, seq: int, corrected: CorrectionSet
) -> tuple[Checkpoint, list[MovedFile]]:
    """Write the rows of all outcomes up to `seq`; gives its checkpoint, and the file before if somebody changed it.

    Raises StoreError if the file cannot be written.
    """
    before, moved = (await ledger.checkpoints()).get(row_format.name, NO_FILE), list[MovedFile]()
    if await asyncio.to_thread(lambda: _is_anothers(path, before)):
        moved.append(move_aside(path, CHANGED))
    # First: after a kill the new file is known for ours by its rows, and not taken for one that was put here.
    await ledger.save_checkpoints({row_format.name: replace(before, is_stale=True)})

    def blocks() -> AsyncIterator[list[tuple[int, Outcome]]]:
        return rows_of(ledger, row_format.order, upto=seq, corrected=corrected)

    await _write(path, row_format, blocks)
    size, digest = await asyncio.to_thread(lambda: (path.stat().st_size, digest_of(path)))
    return Checkpoint(size, seq, row_format.shape, digest), moved


def _is_anothers(path: Path, checkpoint: Checkpoint) -> bool:
    """Whether the file holds what the run has not written; one that was emptied holds nothing of anybody's."""
    return path.exists() and path.stat().st_size > 0 and digest_of(path) != checkpoint.digest


async def _write(path: Path, row_format: RowFormat, blocks: Blocks) -> None:
    part, table = path.with_name(f"{path.name}.part"), row_format.table
    kinds = await parquet.column_kinds(table, blocks) if path.suffix == ".parquet" else ()
    with writing(path):
        file = await asyncio.to_thread(open_rows, part, table.titles, kinds, escape_formulas=row_format.escapes)
        try:
            async for block in blocks():
                await asyncio.to_thread(file.add, parquet.table_rows(table, block))
        finally:
            await asyncio.to_thread(file.close)
        await asyncio.to_thread(replace_durably, part, path)
