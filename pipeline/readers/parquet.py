"""Parquet, by pyarrow: a row at a time for the caller, a piece of a row group at a time for the disk."""

from __future__ import annotations

import asyncio
import base64
import datetime
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import InputError, MissingExtraError
from pipeline.readers.rows import BrokenStreamError, Reading, Row, Rows
from pipeline.records import JSON

_BATCH_ROWS = 1024
_PLAIN = (str, int, bool, type(None))


def count_rows(path: Path, name: str) -> int:
    """How many rows the file says it has."""
    file = _open(path, name)
    try:
        return int(file.metadata.num_rows)
    finally:
        file.close()


async def parquet(path: Path, size_bytes: int, reading: Reading) -> Rows:
    """The rows of a file, with values that JSON can hold; the line of a row is its number.

    Dates and times become ISO text, decimals, durations and other types their text, binary values text if they are
    UTF-8 and base64 otherwise, NaN null.
    """
    file = await asyncio.to_thread(_open, path, reading.name)
    total = max(1, file.metadata.num_rows)
    pieces = file.iter_batches(batch_size=_BATCH_ROWS)
    number = 1
    progress, before = reading.progress, reading.progress.bytes_read
    # Closed at the end only: while a cancelled read still runs in its thread, the file must stay open.
    while rows := await asyncio.to_thread(_next_rows, pieces, number):
        number += len(rows)
        progress.lines_read += len(rows)
        progress.bytes_read = before + size_bytes * (number - 1) // total
        for start in range(0, len(rows), reading.batch):
            yield rows[start : start + reading.batch]
    file.close()


def _open(path: Path, name: str) -> Any:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MissingExtraError("Reading a Parquet file", "parquet") from None
    try:
        # Without these two a whole row group's columns would be fetched at once.
        file = ParquetFile(path, pre_buffer=False, buffer_size=1024 * 1024)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{name}: not a Parquet file that can be read: {error}") from error
    twice = [repr(column) for column, count in Counter(file.schema_arrow.names).items() if count > 1]
    if twice:
        raise InputError(f"{name}: has columns of the same name: {', '.join(twice)}; rename them")
    return file


def _next_rows(pieces: Iterator[Any], number: int) -> list[Row]:
    """The rows of the next piece, the first of which is row `number`; none at the end."""
    import pyarrow

    try:
        piece = next(pieces, None)
        while piece is not None and not piece.num_rows:
            piece = next(pieces, None)
    except (pyarrow.ArrowException, OSError) as error:
        broken = BrokenStreamError(f"the Parquet data are damaged here and the rest is lost: {error}")
        broken.line = number
        raise broken from error
    return [] if piece is None else _rows(piece, number)


def _rows(piece: Any, first: int) -> list[Row]:
    names = piece.schema.names
    columns = [_values(column) for column in piece.columns]
    cells = zip(*columns, strict=True) if columns else [()] * piece.num_rows
    return [
        (number, dict(zip(names, values, strict=True)), codec.digest64(codec.dumps(values)), "")
        for number, values in enumerate(cells, first)
    ]


def _values(column: Any) -> list[JSON]:
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError):
        values = [_careful(scalar) for scalar in column]
    return [value if type(value) in _PLAIN else _plain(value) for value in values]


def _careful(scalar: Any) -> Any:
    """A value where some cannot be had: nanoseconds and far years, which Python's own types do not hold, as text."""
    import pyarrow

    if scalar.is_valid and isinstance(scalar, pyarrow.StructScalar):
        return {name: _careful(scalar[index]) for index, name in enumerate(scalar)}
    if scalar.is_valid and isinstance(scalar, pyarrow.ListScalar):
        return [_careful(each) for each in scalar.values]
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        pass
    try:
        text = str(scalar.cast(pyarrow.string()).as_py())
    except pyarrow.ArrowException:
        return str(scalar.value)
    # Beyond the year 32767 Arrow writes "<value out of range: ...>".
    return str(scalar.value) if text.startswith("<") else text.replace(" ", "T", 1)


def _plain(value: Any) -> JSON:
    if isinstance(value, float):
        return _plain_float(value)
    if isinstance(value, bytes):
        return _plain_bytes(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, _PLAIN) else str(value)


def _plain_float(value: float) -> JSON:
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _plain_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
