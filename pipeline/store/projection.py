"""A file of rows that grows with the ledger and can be rebuilt from it."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from pipeline import codec
from pipeline.errors import StoreError
from pipeline.files import AppendFile
from pipeline.records import Outcome, Status
from pipeline.store.formats import csv_block, json_block
from pipeline.store.layout import Layout, Table
from pipeline.store.queries import Checkpoint
from pipeline.store.rows import damage_of, to_row
from pipeline.store.rundir import RunDir, replace_durably

#: How many bytes are read at once for a digest.
BLOCK_BYTES = 1024 * 1024
CHANGED = "was changed while the run was at work"
#: Marks the shape of a file in input order. Such a file of labelpipe 0.3 grew; it lacks the mark and is rebuilt.
_SORTED = "sorted"


class RowFormat:
    """The format of a file's rows: its table, and how a row becomes bytes."""

    def __init__(self, name: str, table: Table, layout: Layout) -> None:
        self.name = name
        self.table = table
        self.order = layout.order
        self.corrected, self.reviewed = layout.corrected, layout.reviewed
        self.escapes = layout.escape_formulas
        #: Equal for files whose rows have the same format and order.
        order = _SORTED if layout.order == "input" else layout.order
        more = [[layout.corrected, layout.reviewed]] if layout.corrected or layout.reviewed else []
        self.shape = codec.dumps([order, layout.escape_formulas, table.titles, table.carried, *more]).decode()

    def head(self) -> bytes:
        """Return the bytes before the first row."""
        return b"" if self.name.endswith(".jsonl") else csv_block([self.table.titles], escape_formulas=self.escapes)

    def row_count(self, outcome: Outcome) -> int:
        """Return how many rows of this file the outcome has."""
        return len(self.table.rows(outcome)) if outcome.status in self.table.statuses else 0

    def block(self, outcomes: Sequence[Outcome]) -> bytes:
        """Return the rows of the outcomes that belong in this file."""
        here = [outcome for outcome in outcomes if outcome.status in self.table.statuses]
        rows = [row for outcome in here for row in self.table.rows(outcome)]
        if not rows:
            return b""
        if self.name.endswith(".jsonl"):
            return json_block(self.table.titles, rows)
        return csv_block(rows, escape_formulas=self.escapes)


@dataclass(slots=True)
class RowMatch:
    """How far a file agrees with its expected rows. All fields change.

    `size_bytes` is the end of its last complete row, `position` the seq of the next row, and `rows` their number. At
    the first difference, `actual` is the rest of the file's block, and `expected` the bytes that it should have.
    """

    size_bytes: int = 0
    position: int = 1
    rows: int = 0
    actual: bytes = b""
    expected: bytes = b""


async def match_rows(
    file: BinaryIO, row_format: RowFormat, blocks: AsyncIterator[list[tuple[int, Outcome]]], match: RowMatch
) -> RowMatch:
    """Compare an open file with these rows, from `match` to the first difference."""
    if not match.size_bytes:
        head = row_format.head()
        if (actual := file.read(len(head))) != head:
            match.actual, match.expected = actual, head
            return match
        match.size_bytes = len(head)
    async for block in blocks:
        expected = row_format.block([outcome for _, outcome in block])
        actual = file.read(len(expected))
        complete, size_bytes = block, len(expected)
        if actual != expected:
            ends = list(accumulate(len(row_format.block([outcome])) for _, outcome in block))
            complete = [one for one, end in zip(block, ends, strict=True) if actual[:end] == expected[:end]]
            size_bytes = ends[len(complete) - 1] if complete else 0
        match.size_bytes += size_bytes
        match.position = complete[-1][0] + 1 if complete else match.position
        match.rows += sum(row_format.row_count(outcome) for _, outcome in complete)
        if actual != expected:
            match.actual, match.expected = actual[size_bytes:], expected[size_bytes:]
            break
    return match


def row_formats(layout: Layout) -> list[RowFormat]:
    """Return the formats of a layout's text files."""
    table = layout.label_table()
    labels = [RowFormat(f"labels.{kind}", table, layout) for kind in layout.formats if kind in ("csv", "jsonl")]
    return [*labels, RowFormat("failed.csv", layout.failed_table(), layout)]


def growing(layout: Layout) -> list[RowFormat]:
    """Return the files that grow during the run, with rows in the order of answers."""
    return row_formats(layout) if layout.order != "input" else []


def made_at_the_end(layout: Layout) -> list[RowFormat]:
    """Return the files that are made in one step when a session ends: those in input order, and Parquet."""
    texts = row_formats(layout) if layout.order == "input" else []
    return [*texts, *([parquet_format(layout)] if "parquet" in layout.formats else [])]


def row_problem(outcome: Outcome, layout: Layout) -> Exception | None:
    """Return why the outcome cannot be a row of the ledger or a file, or None if it can."""
    try:
        row = to_row(1, outcome)
        if (why := damage_of(row)) is not None:
            return ValueError(why)
        for row_format in row_formats(layout.grown([outcome])):
            row_format.block([outcome])
    except Exception as error:  # Whatever it is, it concerns only this outcome.
        return error
    return None


def row_format_of(name: str, shape: str) -> RowFormat:
    """Return the format of a file that has this shape."""
    tag, escapes, titles, carried, *more = codec.loads_exact(shape)
    corrected, reviewed = more[0] if more else (0, False)
    order = "input" if tag == _SORTED else tag
    about = name == "failed.csv"
    labels = () if about else tuple(titles[len(carried) :])
    labelled = frozenset({Status.LABELLED})
    table = Table(frozenset(Status) - labelled if about else labelled, tuple(titles), tuple(carried), labels, about)
    layout = Layout(labels, order=order, escape_formulas=escapes, corrected=corrected, reviewed=reviewed)
    return RowFormat(name, table, layout)


def digest_of(path: Path, size_bytes: int | None = None) -> bytes:
    """Return the digest of the file's first bytes, or of all of it. Raises OSError."""
    return bytes(_read_into(new_digest(), path, size_bytes).digest())


def new_digest() -> Any:
    """Return a digest object to update as the file grows."""
    return hashlib.blake2b(digest_size=16)


def _read_into(digest: Any, path: Path, size_bytes: int | None) -> Any:
    left = path.stat().st_size if size_bytes is None else size_bytes
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
    return digest


def parquet_format(layout: Layout) -> RowFormat:
    """Return the format of labels.parquet. Other code makes its bytes."""
    return RowFormat("labels.parquet", layout.label_table(), layout)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise StoreError if the disk cannot store the file of rows."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: cannot write: {error.strerror or error}. "
            "No row is lost: fix the cause, then run the same command again."
        ) from error


class Projection:
    """A growing file. `position` is the seq of the next row that it may need."""

    def __init__(self, run_dir: RunDir, row_format: RowFormat, checkpoint: Checkpoint) -> None:
        self.path = run_dir.path / row_format.name
        self.row_format = row_format
        #: The columns have grown since the file was begun, or somebody has changed it.
        self.is_old = False
        # Mutable state: what is certain about the finished file; and for the growing one, its end, how much is on the
        # disk, and its digest. A torn file may have a partial row after `size_bytes`, so it is reopened and cut before
        # anything is appended.
        self.checkpoint = checkpoint
        self.position = 1
        self.size_bytes = 0
        self._synced_bytes = 0
        self._digest = new_digest()
        self._file: AppendFile | None = None
        self._growing = self.path
        self._is_torn = True
        self._identity: tuple[int, int] | None = None

    @property
    def unsynced_bytes(self) -> int:
        """How much a power cut could still destroy."""
        return self.size_bytes - self._synced_bytes

    async def resume(self) -> bool:
        """Continue from the file's checkpoint. Returns False if the file must be rebuilt."""
        checkpoint = self.checkpoint
        if (
            checkpoint.is_stale
            or checkpoint.bytes < 0
            or checkpoint.shape != self.row_format.shape
            or not self._fits(checkpoint)
        ):
            return False
        self._digest = await asyncio.to_thread(_read_into, new_digest(), self.path, checkpoint.bytes)
        self.position, self.size_bytes, self._synced_bytes = checkpoint.position, checkpoint.bytes, checkpoint.bytes
        await self._cut()
        return True

    @property
    def is_building(self) -> bool:
        """Whether the file is being rebuilt next to the old one."""
        return self._growing != self.path

    def external_change(self) -> str:
        """Return how somebody has changed or replaced the file since it was opened, or an empty text."""
        if self.is_building or self._identity is None or self._is_torn:
            return ""
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            self.is_old = True  # It is rebuilt, as at the next start.
            return ""
        if (status.st_dev, status.st_ino) != self._identity:
            return "was replaced while the run was at work"
        return "" if status.st_size == self.size_bytes else CHANGED

    async def content_change(self) -> str:
        """Do the same by comparing every byte. It reads the file once."""
        fault = self.external_change()
        if fault or self.is_building or self._file is None or self._is_torn:
            return fault
        with writing(self.path), suppress(FileNotFoundError):
            return "" if await asyncio.to_thread(digest_of, self.path) == self._digest.digest() else CHANGED
        return ""

    async def begin_rebuild(self, row_format: RowFormat) -> None:
        """Rebuild the file next to the old one, which stays until `finish_rebuild`."""
        await self.close()
        self.row_format, self.position, self.is_old = row_format, 1, False
        self._growing, self.size_bytes, self._synced_bytes = self.path.with_name(f"{self.path.name}.part"), 0, 0
        self._digest = new_digest()

    async def add(self, outcomes: Sequence[Outcome], position: int) -> None:
        """Write the rows of these outcomes, the only ones missing before `position`."""
        block = self.row_format.block(outcomes)
        if not self.size_bytes:
            block = self.row_format.head() + block
        if block:
            await self._append(block)
        self.position = position

    async def finish_rebuild(self) -> None:
        """Replace the old file with the rebuilt one."""
        if not self.is_building:
            return
        if not self.size_bytes:
            await self._append(self.row_format.head())
        await self.close()
        with writing(self.path):
            await asyncio.to_thread(replace_durably, self._growing, self.path)
        self._growing = self.path
        await self._cut()
        await self.sync()

    async def sync(self) -> None:
        """Sync the file to the disk, and move the checkpoint to its end."""
        file = await self._whole()
        with writing(self.path):
            if self.unsynced_bytes:
                await file.sync()
        self._synced_bytes = self.size_bytes
        self.checkpoint = Checkpoint(self.size_bytes, self.position, self.row_format.shape, self._digest.digest())

    async def close(self) -> None:
        """Close the file. Can be called twice."""
        file, self._file, self._is_torn = self._file, None, True
        if file is not None:
            # Rows that a full disk did not take are written again from the ledger, so this error adds nothing.
            with suppress(OSError):
                await file.close()

    def _fits(self, checkpoint: Checkpoint) -> bool:
        head = self.row_format.head()
        with writing(self.path), suppress(FileNotFoundError), self.path.open("rb") as file:
            return file.read(len(head)) == head and file.seek(0, os.SEEK_END) >= checkpoint.bytes >= len(head)
        return False

    async def _whole(self) -> AppendFile:
        """Return the file, open and without a torn end."""
        return await self._cut() if self._is_torn or self._file is None else self._file

    async def _cut(self) -> AppendFile:
        """Open the file and cut it at the end of its last whole row."""
        await self.close()
        file = AppendFile(self._growing)
        with writing(self.path):
            await file.open(keep_bytes=self.size_bytes)
        self._file, self._is_torn = file, False
        status = self._growing.stat()
        self._identity = (status.st_dev, status.st_ino)
        return file

    async def _append(self, block: bytes) -> None:
        file = await self._whole()
        self._is_torn = True
        with writing(self.path):
            await file.append(block)
        self._is_torn = False
        self.size_bytes += len(block)
        self._digest.update(block)
