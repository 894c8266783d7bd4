"""Finds files of rows that somebody has changed, and moves them aside before anything is written.

A file is the run's if its first bytes have the digest in the ledger and the rest is the beginning of the ledger's next
rows, because a kill may come between the two writes. Any other file is compared byte by byte.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import MissingExtraError
from pipeline.records import Outcome
from pipeline.store import parquet
from pipeline.store.correctionset import corrections_for
from pipeline.store.layout import Layout
from pipeline.store.ledger import Ledger
from pipeline.store.outcomerows import rows_of
from pipeline.store.projection import (
    BLOCK_BYTES,
    RowFormat,
    RowMatch,
    digest_of,
    match_rows,
    parquet_format,
    row_format_of,
    row_formats,
)
from pipeline.store.queries import Checkpoint
from pipeline.store.rundir import RunDir, disk_errors
from pipeline.store.writes import NO_FILE

_CHANGED = "was changed after this run wrote it"
NAMES = ("labels.csv", "labels.jsonl", "labels.parquet", "failed.csv")


@dataclass(frozen=True, slots=True)
class MovedFile:
    """A file that was not as the run left it: its name, its new path, and what was wrong with it."""

    name: str
    to: Path
    why: str

    def __str__(self) -> str:
        return (
            f"{self.name} {self.why}. It was moved, untouched, to {self.to}, and {self.name} was made again from the "
            "ledger. The changes are in the moved file only."
        )


async def move_changed_files(run_dir: RunDir, ledger: Ledger) -> list[MovedFile]:
    """Move changed files aside, and store how far the unchanged files go. Raises StoreError.

    This is the first step of a session, because the ledger must still be as the last session left it to show what a
    file may contain.
    """
    moved, noted = [], {}
    text = await ledger.meta_get("layout")
    layout = Layout.from_text(text) if text else None
    checkpoints = await ledger.checkpoints()
    for name in NAMES:
        path = run_dir.path / name
        with disk_errors(path, "cannot be looked at"):
            try:
                status = await asyncio.to_thread(path.lstat)
            except FileNotFoundError:
                continue
            checkpoint = checkpoints.get(name)
            why, now = await _look_at(path, status, checkpoint, layout, ledger)
            if why:
                moved.append(move_aside(path, why))
                # Record that no file exists, so that somebody else's new file is not mistaken for ours.
                now = NO_FILE
            if now is not None and now != checkpoint:
                noted[name] = now
    if noted:
        await ledger.save_checkpoints(noted)
    return moved


def move_aside(path: Path, why: str) -> MovedFile:
    """Rename the file so that its name shows what it is, without overwriting any file. Raises StoreError."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    for number in count(1):
        ending = f"-{number}" if number > 1 else ""
        to = path.with_name(f"{path.stem}.changed-{stamp}{ending}{path.suffix}")
        if not os.path.lexists(to):
            break
    with disk_errors(path, f"cannot be moved to {to}"):
        path.rename(to)
    return MovedFile(path.name, to, why)


async def _look_at(
    path: Path, status: os.stat_result, checkpoint: Checkpoint | None, layout: Layout | None, ledger: Ledger
) -> tuple[str, Checkpoint | None]:
    """Return what is wrong with the file, or an empty text, and its checkpoint, moved to its last complete row."""
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "no plain file"
        return f"is {kind}, which this run did not make", checkpoint
    if not status.st_size:
        return "", NO_FILE  # The file is empty, so nobody loses anything.
    if checkpoint is None:
        return "was not written by this run", None
    if status.st_size >= checkpoint.bytes >= 0 and checkpoint.digest == await asyncio.to_thread(
        digest_of, path, checkpoint.bytes
    ):
        if status.st_size == checkpoint.bytes:
            return "", checkpoint
        row_format = None if path.suffix == ".parquet" else row_format_of(path.name, checkpoint.shape)
        if row_format is not None and row_format.order != "input":
            blocks = _rows(ledger, row_format, checkpoint.position)
            if (followed := await _followed(path, checkpoint, row_format, blocks)) is not None:
                return "", followed
    elif 0 <= status.st_size < checkpoint.bytes and not checkpoint.is_stale:
        return "is shorter than this run left it", checkpoint
    if path.suffix == ".parquet":
        return await _look_at_parquet(path, status, checkpoint, layout, ledger)
    for row_format in _possible_formats(path.name, checkpoint, layout):
        empty = replace(checkpoint, bytes=0, position=1, shape=row_format.shape)
        if (followed := await _followed(path, empty, row_format, _rows(ledger, row_format))) is not None:
            # A file in input order is written in one step, so this one was written just before a kill.
            return "", replace(followed, is_stale=True) if row_format.order == "input" else followed
    return _CHANGED, checkpoint


def _possible_formats(name: str, checkpoint: Checkpoint, layout: Layout | None) -> list[RowFormat]:
    """Return the formats that the rows may have: the current one and the earlier one."""
    formats = [] if layout is None else [one for one in row_formats(layout) if one.name == name]
    if checkpoint.shape and checkpoint.shape not in [one.shape for one in formats]:
        formats.append(row_format_of(name, checkpoint.shape))
    return formats


async def _look_at_parquet(
    path: Path, status: os.stat_result, checkpoint: Checkpoint, layout: Layout | None, ledger: Ledger
) -> tuple[str, Checkpoint | None]:
    """Accept a Parquet file if its values are the ledger's, because it may have been made just before a kill."""
    is_ours = False
    if layout is not None:
        with suppress(MissingExtraError, OSError, ValueError):  # pyarrow's errors are ValueErrors
            table = parquet_format(layout).table
            is_ours = not (await parquet.compare(path, table, partial(_rows, ledger, layout))).fault
    if not is_ours:
        return _CHANGED, checkpoint
    return "", replace(checkpoint, bytes=status.st_size, digest=await asyncio.to_thread(digest_of, path))


async def _rows(ledger: Ledger, rows: Layout | RowFormat, first: int = 1) -> AsyncIterator[list[tuple[int, Outcome]]]:
    """Yield the outcomes in the order of these rows, with the corrections that the rows contain."""
    corrected = await corrections_for(ledger.path.parent, rows)
    async for block in rows_of(ledger, rows.order, first, corrected=corrected):
        yield block


async def _followed(
    path: Path, checkpoint: Checkpoint, row_format: RowFormat, blocks: AsyncIterator[list[tuple[int, Outcome]]]
) -> Checkpoint | None:
    """Return the checkpoint at the file's last whole row, and cut off the rest; None if the file contains other data.

    Everything after `checkpoint` must be the beginning of these rows.
    """
    with path.open("r+b") as file:
        file.seek(checkpoint.bytes)
        match = await match_rows(file, row_format, blocks, RowMatch(checkpoint.bytes, checkpoint.position))
        if not match.expected.startswith(match.actual.rstrip(b"\0")) or not _ends(file):
            return None
        # Make the file durable, without a torn row.
        file.truncate(match.size_bytes)
        os.fsync(file.fileno())
        size, digest = match.size_bytes, digest_of(path, match.size_bytes)
        return replace(checkpoint, bytes=size, position=match.position, digest=digest)


def _ends(file: BinaryIO) -> bool:
    """Whether the rest of the file is empty. After a power cut, some disks return zeros for what was not written."""
    return all(not block.strip(b"\0") for block in iter(lambda: file.read(BLOCK_BYTES), b""))
