"""Writes the files of rows (labels.csv, labels.jsonl, labels.parquet, and failed.csv) from the ledger.

Rows are written after the ledger's commit, and the next commit stores how far the files go. After a crash, each file is
cut at its last whole row, and missing rows come from the ledger, so no row is torn, repeated, or lost. A file that
somebody has changed is moved aside and rebuilt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.records import Outcome
from pipeline.store import parquet
from pipeline.store.changedfiles import MovedFile, move_aside, move_changed_files
from pipeline.store.correctionset import (
    NOTHING,
    latest_corrections,
    read_corrections,
    refuse_lost,
    summarize_corrections,
)
from pipeline.store.layout import Layout
from pipeline.store.ledger import Ledger
from pipeline.store.outcomerows import rows_of
from pipeline.store.parquet import Blocks
from pipeline.store.projection import CHANGED, Projection, RowFormat, digest_of, growing, made_at_the_end, writing
from pipeline.store.queries import Checkpoint
from pipeline.store.rowfile import open_rows
from pipeline.store.rundir import RunDir, replace_durably
from pipeline.store.writes import NO_FILE, Checkpoints

#: A checkpoint moves when this much has been written since the last one. A crash repeats at most this much.
SYNC_BYTES = 1024 * 1024
#: If its columns grow, a file shorter than this is rebuilt at once, a longer one at the end.
SMALL_BYTES = 1024 * 1024


class Sinks:
    """The run's files of rows."""

    def __init__(self, run_dir: RunDir, ledger: Ledger, layout: Layout) -> None:
        self._run_dir = run_dir
        self._ledger = ledger
        self._wanted = layout
        # Mutable state: the columns and the last row that they cover; the corrections that the rows get; the files;
        # what the next commit stores; and the ledger's generation of the files.
        self._layout = layout
        self._corrected = NOTHING
        self._seq = 0
        self._files: list[Projection] = []
        self._checkpoints: Checkpoints | None = None
        self._generation = ledger.generation
        #: What to report about unused corrections.
        self.unused: list[str] = []
        #: The files that somebody changed during the run.
        self.moved: list[MovedFile] = []

    @classmethod
    async def start(
        cls,
        run_dir: RunDir,
        ledger: Ledger,
        layout: Layout,
        *,
        moved: Sequence[MovedFile] | None = None,
    ) -> Sinks:
        """Open the files, and write what the ledger has after their checkpoints, or rebuild them.

        `moved` is the result of `move_changed_files`. Without it, this method calls that function.

        Raises StoreError if a file cannot be written, MissingExtraError for Parquet without pyarrow.
        """
        if "parquet" in layout.formats:
            parquet.require()
        sinks = cls(run_dir, ledger, layout)
        sinks.moved += await move_changed_files(run_dir, ledger) if moved is None else moved
        try:
            await sinks._recover()
        except BaseException:
            await sinks.close()
            raise
        return sinks

    @property
    def layout(self) -> Layout:
        """The columns that are known so far."""
        return self._layout

    def checkpoints(self) -> Checkpoints | None:
        """Return how far the files go, for the next commit."""
        return self._checkpoints

    async def write(self, outcomes: Sequence[Outcome], seqs: Sequence[int]) -> None:
        """Write the rows of outcomes that the ledger has just committed. Raises StoreError.

        After an error or a cancellation, the next call or `finish` writes the missing rows.
        """
        if not outcomes:
            return
        outcomes = self._corrected.apply_all(outcomes)
        before = self._layout
        # An error or a cancellation may have left outcomes that were never written here.
        if seqs[0] == self._seq + 1:
            self._note_columns(outcomes, seqs[-1])
        else:
            await self._learn_columns()
        if self._generation != self._ledger.generation:
            return  # Rows have been archived or moved, so the files are rebuilt at the end.
        if self._layout is not before:
            await self._rebuild([file for file in self._outgrown() if file.size_bytes < SMALL_BYTES])
        # Before a row is added: a row written into somebody's edit would damage both.
        await self._rebuild([file for file in self._files if file.external_change()])
        await self._extend(outcomes, seqs)
        if sum(file.unsynced_bytes for file in self._files) >= SYNC_BYTES:
            await self._sync()

    async def finish(self) -> None:
        """Complete the files and close them. Raises StoreError."""
        await self._apply_new_corrections()
        if self._generation != self._ledger.generation:
            await self._start_over()
        await self._learn_columns()
        await self._move_changed_aside(self._files)
        old = self._outgrown()
        await self._rebuild([file for file in self._files if file.is_old or file in old])
        await self._catch_up(self._files)
        await self._sync()
        await self._store_checkpoints()
        if self._layout.order == "input":
            await self._ledger.index_ordinals()
        for row_format in made_at_the_end(self._layout):
            await self._make_at_once(row_format)
        if self._corrected.by_key:
            summary = await asyncio.to_thread(
                summarize_corrections, self._ledger.path, self._corrected.version, is_waiting=False
            )
            self.unused = [summary.text] if summary is not None and summary.unused else []
        await self.close()

    async def _make_at_once(self, row_format: RowFormat) -> None:
        """Rebuild a file from the ledger; the old one stays until the new one is complete. Raises StoreError."""
        path, ledger = self._run_dir.path / row_format.name, self._ledger
        before = (await ledger.checkpoints()).get(row_format.name, NO_FILE)
        if await asyncio.to_thread(lambda: path.exists() and path.stat().st_size and digest_of(path) != before.digest):
            self.moved.append(move_aside(path, CHANGED))
        # Do this first: after a kill, the new file's rows then show that it is ours, and not put here by somebody.
        await ledger.save_checkpoints({row_format.name: replace(before, is_stale=True)})
        await _write(
            path, row_format, lambda: rows_of(ledger, row_format.order, upto=self._seq, corrected=self._corrected)
        )
        size, digest = await asyncio.to_thread(lambda: (path.stat().st_size, digest_of(path)))
        await ledger.save_checkpoints({row_format.name: Checkpoint(size, self._seq, row_format.shape, digest)})

    async def close(self) -> None:
        """Close the files as they are. Can be called twice."""
        for file in self._files:
            await file.close()

    async def _recover(self) -> None:
        wanted = self._wanted.to_text()
        if await self._ledger.meta_get("layout_asked") != wanted:
            # An export uses this while the files' columns are unknown.
            await self._ledger.meta_set("layout_asked", wanted)
        text = await self._ledger.meta_get("layout")
        before = Layout.from_text(text) if text else None
        if before is not None:
            refuse_lost(self._run_dir.path, before)
        self._corrected = await asyncio.to_thread(latest_corrections, self._ledger.path, column=self._wanted.reviewed)
        self._layout = replace(self._wanted.following(before), corrected=self._corrected.version)
        if before is not None and self._layout.knows_rows_of(before):
            self._seq = int(await self._ledger.meta_get("layout_seq") or 0)
            if before.corrected != self._corrected.version:
                await self._learn_corrected_columns()
        await self._learn_columns()
        checkpoints = await self._ledger.checkpoints()
        self._files = [
            Projection(self._run_dir, row_format, checkpoints.get(row_format.name, NO_FILE))
            for row_format in growing(self._layout)
        ]
        await self._rebuild([file for file in self._files if not await file.resume()])
        await self._catch_up(self._files)
        await self._sync()
        await self._store_checkpoints()

    async def _learn_columns(self) -> None:
        """Add the columns of all rows that have not been read yet."""
        async for block in rows_of(self._ledger, "completion", self._seq + 1, corrected=self._corrected):
            self._note_columns([outcome for _, outcome in block], block[-1][0])

    def _note_columns(self, outcomes: Sequence[Outcome], seq: int) -> None:
        """Add the columns of outcomes up to `seq`."""
        self._layout, self._seq = self._layout.grown(outcomes), seq

    async def _apply_new_corrections(self) -> None:
        """Apply corrections that arrived during the session, also to rows that were written before."""
        now = await asyncio.to_thread(read_corrections, self._run_dir.path, column=self._wanted.reviewed)
        if now.version != self._corrected.version:
            self._corrected = now
            self._layout = replace(self._layout, corrected=now.version)
            await self._learn_corrected_columns()

    async def _learn_corrected_columns(self) -> None:
        """Add the columns of records that people have labeled, which may be new."""
        outcomes = await self._ledger.outcomes_of(list(self._corrected.by_key))
        self._layout = self._layout.grown(self._corrected.apply_all(list(outcomes.values())))

    async def _start_over(self) -> None:
        """Start over with the columns of the rows that exist now."""
        self._generation = self._ledger.generation
        self._layout, self._seq = replace(self._wanted.following(None), corrected=self._corrected.version), 0
        for file in self._files:
            file.is_old = True

    async def _move_changed_aside(self, files: Sequence[Projection]) -> None:
        """Move aside files that somebody has changed since they were opened. They are rebuilt."""
        for file in files:
            if why := await file.content_change():
                self.moved.append(move_aside(file.path, why))
                file.is_old = True

    def _outgrown(self) -> list[Projection]:
        """Return the files that lack columns that have appeared since they were begun."""
        shapes = {row_format.name: row_format.shape for row_format in growing(self._layout)}
        return [file for file in self._files if file.row_format.shape != shapes[file.row_format.name]]

    async def _rebuild(self, files: Sequence[Projection]) -> None:
        """Rebuild files from the ledger. Their checkpoints are invalidated first."""
        if not files:
            return
        await self._move_changed_aside(files)
        current = {row_format.name: row_format for row_format in growing(self._layout)}
        for file in files:
            file.checkpoint = replace(file.checkpoint, is_stale=True)
        await self._store_checkpoints()
        for file in files:
            await file.begin_rebuild(current[file.row_format.name])
        await self._catch_up(files)
        self._checkpoints = self._checkpoints_now()

    async def _extend(self, outcomes: Sequence[Outcome], seqs: Sequence[int]) -> None:
        behind = [file for file in self._files if file.is_building or file.position < seqs[0]]
        for file in self._files:
            if file.position == seqs[0] and not file.is_building:
                await file.add(outcomes, seqs[-1] + 1)
        await self._catch_up(behind)

    async def _catch_up(self, files: Sequence[Projection]) -> None:
        """Write the rows that the files lack."""
        if not files:
            return
        starts = [file.position for file in files]
        async for block in rows_of(self._ledger, "completion", min(starts), corrected=self._corrected):
            for file, start in zip(files, starts, strict=True):
                rows = [outcome for position, outcome in block if position >= start]
                await file.add(rows, max(file.position, block[-1][0] + 1))
        for file in files:
            await file.finish_rebuild()

    async def _sync(self) -> None:
        for file in self._files:
            await file.sync()
        self._checkpoints = self._checkpoints_now()

    async def _store_checkpoints(self) -> None:
        self._checkpoints = self._checkpoints_now()
        await self._ledger.commit((), self._checkpoints)

    def _checkpoints_now(self) -> Checkpoints:
        checkpoints = {
            file.row_format.name: replace(file.checkpoint, is_stale=True) if file.is_old else file.checkpoint
            for file in self._files
        }
        return Checkpoints(checkpoints, self._layout.to_text(), self._seq, self._generation)


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
