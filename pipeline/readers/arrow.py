"""Reads rows from Arrow record batches and Parquet files, a slice of a row group at a time."""

import asyncio
import base64
import mimetypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import InputError, MissingExtraError
from pipeline.readers.rows import BrokenStreamError, ReadContext, Row, Rows
from pipeline.readers.values import Unreadable, all_to_json, to_json
from pipeline.records import JSON

#: At most this many bytes of Arrow data become Python values at once.
PIECE_BYTES = 4 * 1024 * 1024
SLICE_ROWS = 1024

#: The first bytes of images and audio -> the MIME type.
_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
)
_RIFF = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}

#: A local file, or a function that opens a remote one.
ParquetSource = Path | Callable[[], Any]


def slices(batch: Any) -> Iterator[Any]:
    """Yield slices of the batch that are small enough to become Python values at once."""
    count = batch.num_rows
    size = max(1, min(SLICE_ROWS, PIECE_BYTES * count // max(1, batch.nbytes)))
    for start in range(0, count, size):
        yield batch.slice(start, size)


def rows_of(piece: Any, first: int, names: Sequence[str], *, media: bool = False) -> list[Row]:
    """Return the rows of a record batch, numbered from `first`. With `media`, images and audio become data URLs.

    `names` are the unique names of its columns.
    """
    prefix = codec.column_names_digest(names)
    faults: dict[int, str] = {}
    columns = [_values(column, media, name, faults) for name, column in zip(names, piece.columns, strict=True)]
    cells = zip(*columns, strict=True) if columns else [()] * piece.num_rows
    return [
        (
            first + place,
            dict(zip(names, values, strict=True)),
            codec.digest64(prefix + codec.dumps(values)),
            faults.get(place, ""),
        )
        for place, values in enumerate(cells)
    ]


def _values(column: Any, media: bool, name: str, faults: dict[int, str]) -> list[JSON]:
    """Return the values of a column. `faults` gets the position of each unreadable value, and what is wrong with it."""
    try:
        values = column.to_pylist()
    except Exception:  # foreign types, time zones, and bytes may raise anything
        values = [_read_scalar(scalar) for scalar in column]
        faults |= {
            place: f"{name!r}: {value.trouble}" for place, value in enumerate(values) if type(value) is Unreadable
        }
    if media and _has_media(column.type):
        values = [_media_to_json(value) for value in values]
    return all_to_json(values)


def _has_media(kind: Any) -> bool:
    """Whether Hugging Face stores images and audio in this type, or it is a list of such a type."""
    import pyarrow

    while pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        kind = kind.value_type
    if not pyarrow.types.is_struct(kind) or kind.num_fields != 2:
        return False
    fields = {kind.field(at).name: kind.field(at).type for at in range(2)}
    data = fields.get("bytes")
    return (
        "path" in fields and data is not None and (pyarrow.types.is_binary(data) or pyarrow.types.is_large_binary(data))
    )


def _media_to_json(value: Any) -> JSON:
    """Return an image or audio as a data URL, or its path if its bytes are missing."""
    if isinstance(value, list):
        return [_media_to_json(each) for each in value]
    if not isinstance(value, Mapping):
        return to_json(value)
    data = value.get("bytes")
    if data is None:
        return to_json(value.get("path"))
    return f"data:{_media_type(data, value.get('path') or '')};base64,{base64.b64encode(data).decode()}"


def _media_type(data: bytes, path: str) -> str:
    if data.startswith(b"RIFF") and data[8:12] in _RIFF:
        return _RIFF[data[8:12]]
    mime = next((kind for start, kind in _KINDS if data.startswith(start)), None)
    return mime or mimetypes.guess_type(path)[0] or "application/octet-stream"


def _read_scalar(scalar: Any) -> Any:
    try:
        return _scalar_value(scalar)
    except UnicodeDecodeError:
        return Unreadable.text(_raw_bytes(scalar))
    except Exception as error:  # as above
        return Unreadable(f"cannot be read: {error}")


def _raw_bytes(scalar: Any) -> bytes:
    data = getattr(scalar, "as_buffer", lambda: None)()
    return b"" if data is None else data.to_pybytes()


def _scalar_value(scalar: Any) -> Any:
    """Convert a scalar. Nanoseconds and distant years, which Python's types cannot hold, become text."""
    import pyarrow

    if scalar.is_valid and isinstance(scalar, pyarrow.StructScalar):
        return {name: _scalar_value(scalar[index]) for index, name in enumerate(scalar)}
    if scalar.is_valid and isinstance(scalar, pyarrow.ListScalar):
        return [_scalar_value(each) for each in scalar.values]
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError, LookupError, pyarrow.ArrowException):  # LookupError: an unknown time zone
        pass
    try:
        text = str(scalar.cast(pyarrow.string()).as_py())
    except pyarrow.ArrowException:
        return str(scalar.value)
    # Beyond the year 32767, Arrow writes "<value out of range: ...>".
    return str(scalar.value) if text.startswith("<") else text.replace(" ", "T", 1)


def count_rows(source: ParquetSource, name: str) -> int:
    """Return the number of rows that the file's metadata declares."""
    file = _open_parquet(source, name)
    try:
        return int(file.metadata.num_rows)
    finally:
        file.close(force=True)


async def parquet(source: ParquetSource, size_bytes: int, context: ReadContext) -> Rows:
    """Yield the rows of a file, with values that JSON can hold. The line of a row is its number."""
    file = await asyncio.to_thread(_open_parquet, source, context.name)
    total = max(1, file.metadata.num_rows)
    # Files of the Hugging Face Hub have this key, and store images as bytes and a path.
    media = b"huggingface" in (file.schema_arrow.metadata or {})
    batches, names = file.iter_batches(batch_size=SLICE_ROWS), context.columns(file.schema_arrow.names)
    number = 1
    progress, before = context.progress, context.progress.bytes_read
    # Closed only at the end: the file must stay open while a canceled read still runs in its thread.
    while rows := await asyncio.to_thread(_next_rows, batches, number, names, media):
        number += len(rows)
        progress.lines_read += len(rows)
        progress.bytes_read = before + size_bytes * (number - 1) // total
        yield rows
    file.close(force=True)


def _open_parquet(source: ParquetSource, name: str) -> Any:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MissingExtraError("Reading a Parquet file", "parquet") from None
    try:
        # Without these two arguments, the columns of a whole row group would be fetched at once.
        return ParquetFile(source() if callable(source) else source, pre_buffer=False, buffer_size=1024 * 1024)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{name}: not a Parquet file that can be read: {error}") from error


def _next_rows(batches: Iterator[Any], number: int, names: Sequence[str], media: bool) -> list[Row]:
    """Return the rows of the next batch, numbered from `number`; none at the end."""
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
