"""Parquet, by pyarrow: a row at a time for the caller, a piece of a row group at a time for the disk."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, MissingExtraError
from pipeline.readers.arrow import SLICE_ROWS, rows_of
from pipeline.readers.rows import BrokenStreamError, ReadContext, Row, Rows

#: a local file, or what opens one that lies elsewhere
ParquetSource = Path | Callable[[], Any]


def count_rows(source: ParquetSource, name: str) -> int:
    """How many rows the file says it has."""
    file = _open(source, name)
    try:
        return int(file.metadata.num_rows)
    finally:
        file.close(force=True)


async def parquet(source: ParquetSource, size_bytes: int, context: ReadContext) -> Rows:
    """The rows of a file, with values that JSON can hold; the line of a row is its number."""
    file = await asyncio.to_thread(_open, source, context.name)
    total = max(1, file.metadata.num_rows)
    # Files of the Hugging Face Hub say so, and hold pictures as bytes beside a path.
    media = b"huggingface" in (file.schema_arrow.metadata or {})
    batches, names = file.iter_batches(batch_size=SLICE_ROWS), context.columns(file.schema_arrow.names)
    number = 1
    progress, before = context.progress, context.progress.bytes_read
    # Closed at the end only: while a cancelled read still runs in its thread, the file must stay open.
    while rows := await asyncio.to_thread(_next_rows, batches, number, names, media):
        number += len(rows)
        progress.lines_read += len(rows)
        progress.bytes_read = before + size_bytes * (number - 1) // total
        yield rows
    file.close(force=True)


def _open(source: ParquetSource, name: str) -> Any:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MissingExtraError("Reading a Parquet file", "parquet") from None
    try:
        # Without these two a whole row group's columns would be fetched at once.
        return ParquetFile(source() if callable(source) else source, pre_buffer=False, buffer_size=1024 * 1024)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{name}: not a Parquet file that can be read: {error}") from error


def _next_rows(batches: Iterator[Any], number: int, names: Sequence[str], media: bool) -> list[Row]:
    """The rows of the next batch, the first of which is row `number`; none at the end."""
    import pyarrow

    try:
        batch = next(batches, None)
        while batch is not None and not batch.num_rows:
            batch = next(batches, None)
    except (pyarrow.ArrowException, OSError) as error:
        damage = BrokenStreamError(f"the Parquet data are damaged here and the rest is lost: {error}")
        damage.line = number
        raise damage from error
    return [] if batch is None else rows_of(batch, number, names, media=media)
