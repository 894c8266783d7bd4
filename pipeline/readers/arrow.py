"""Arrow record batches to rows, for the formats that pyarrow reads."""

import base64
import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline import codec
from pipeline.readers.rows import Row
from pipeline.readers.values import Unreadable, plain, plain_all
from pipeline.records import JSON

#: so many bytes of Arrow data become Python values at once
PIECE_BYTES = 4 * 1024 * 1024
PIECE_ROWS = 1024

#: the first bytes of pictures and sounds -> what they are
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


def pieces(batch: Any) -> Iterator[Any]:
    """The batch in slices that are small enough to become Python values at once."""
    count = batch.num_rows
    size = max(1, min(PIECE_ROWS, PIECE_BYTES * count // max(1, batch.nbytes)))
    for start in range(0, count, size):
        yield batch.slice(start, size)


def rows_of(piece: Any, first: int, names: Sequence[str], *, media: bool = False) -> list[Row]:
    """The rows of a record batch, the first of which is row `first`; with `media` pictures as data URLs.

    `names` are those of its columns, each once.
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
    """The values of a column; of those that cannot be had the places, and what is wrong, go to `faults`."""
    try:
        values = column.to_pylist()
    except Exception:  # what there is in types, time zones and bytes is foreign
        values = [_had(scalar) for scalar in column]
        faults |= {
            place: f"{name!r}: {value.trouble}" for place, value in enumerate(values) if type(value) is Unreadable
        }
    if media and _has_media(column.type):
        values = [_shown(value) for value in values]
    return plain_all(values)


def _has_media(kind: Any) -> bool:
    """Whether the type is what Hugging Face keeps pictures and sounds in, or a list of it."""
    import pyarrow

    while pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        kind = kind.value_type
    if not pyarrow.types.is_struct(kind) or kind.num_fields != 2:
        return False
    found = {kind.field(at).name: kind.field(at).type for at in range(2)}
    held = found.get("bytes")
    return (
        "path" in found and held is not None and (pyarrow.types.is_binary(held) or pyarrow.types.is_large_binary(held))
    )


def _shown(value: Any) -> JSON:
    """A picture or sound as a data URL; its path where its bytes are not there."""
    if isinstance(value, list):
        return [_shown(each) for each in value]
    if not isinstance(value, Mapping):
        return plain(value)
    held = value.get("bytes")
    if held is None:
        return plain(value.get("path"))
    return f"data:{_kind(held, value.get('path') or '')};base64,{base64.b64encode(held).decode()}"


def _kind(held: bytes, path: str) -> str:
    if held.startswith(b"RIFF") and held[8:12] in _RIFF:
        return _RIFF[held[8:12]]
    found = next((kind for start, kind in _KINDS if held.startswith(start)), None)
    return found or mimetypes.guess_type(path)[0] or "application/octet-stream"


def _had(scalar: Any) -> Any:
    try:
        return _careful(scalar)
    except UnicodeDecodeError:
        return Unreadable.text(_bytes(scalar))
    except Exception as error:  # as above
        return Unreadable(f"cannot be read: {error}")


def _bytes(scalar: Any) -> bytes:
    held = getattr(scalar, "as_buffer", lambda: None)()
    return b"" if held is None else held.to_pybytes()


def _careful(scalar: Any) -> Any:
    """A value where some cannot be had: nanoseconds and far years, which Python's own types do not hold, as text."""
    import pyarrow

    if scalar.is_valid and isinstance(scalar, pyarrow.StructScalar):
        return {name: _careful(scalar[index]) for index, name in enumerate(scalar)}
    if scalar.is_valid and isinstance(scalar, pyarrow.ListScalar):
        return [_careful(each) for each in scalar.values]
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError, LookupError, pyarrow.ArrowException):  # a LookupError: no such time zone
        pass
    try:
        text = str(scalar.cast(pyarrow.string()).as_py())
    except pyarrow.ArrowException:
        return str(scalar.value)
    # Beyond the year 32767 Arrow writes "<value out of range: ...>".
    return str(scalar.value) if text.startswith("<") else text.replace(" ", "T", 1)
