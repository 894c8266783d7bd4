"""Reads Hugging Face datasets that `save_to_disk` wrote: Arrow streams, without the `datasets` package."""

import asyncio
import mmap
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import InputError, MissingExtraError
from pipeline.readers.arrow import rows_of, slices
from pipeline.readers.rows import BrokenStreamError, ReadContext, Row, Rows
from pipeline.readers.source import Source, Stamp

_STATE = "state.json"
_SPLITS = "dataset_dict.json"


def is_dataset(path: Path) -> bool:
    """Whether the folder is a saved dataset, or several splits of one."""
    return (path / _STATE).is_file() or (path / _SPLITS).is_file()


def is_plain_folder(path: Path) -> bool:
    """Whether the path is a folder of files, and not a saved dataset."""
    return path.is_dir() and not is_dataset(path)


def dataset_source(name: str, path: Path) -> Source:
    """Return a saved dataset as a source. Raises InputError if it is not one, or has splits and none is named."""
    if (path / _SPLITS).is_file():
        splits = _json(name, path / _SPLITS).get("splits") or []
        raise InputError(
            f"input.path: {name!r} has the splits {', '.join(map(str, splits))}; name one, as in "
            f"'{name.rstrip('/')}/{next(iter(splits), 'train')}'"
        )
    state = _json(name, path / _STATE)
    if state.get("_indices_data_files"):
        raise InputError(
            f"input.path: {name!r} was saved with a selection beside it; call flatten_indices() and save it again"
        )
    files = [path / str(each.get("filename")) for each in state.get("_data_files") or []]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise InputError(
            f"input.path: {name!r}: {_STATE} names {missing[0] if missing else 'no file'}; nothing to read"
        )
    size_bytes = sum(file.stat().st_size for file in files)
    stamp, count = partial(_stamp, name, files), partial(_count, name, files)
    rows = partial(_rows, files)
    return Source(name, path, "dataset", size_bytes, rows=rows, read_stamp=stamp, read_count=count)


def _json(name: str, path: Path) -> dict[str, Any]:
    try:
        content = codec.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"input.path: {name!r} is not a saved dataset: {path.name}: {error.strerror}") from error
    except codec.JSONDecodeError as error:
        raise InputError(f"input.path: {name!r}: {path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"input.path: {name!r}: {path.name} is not a JSON object")
    return content


def _stamp(name: str, files: Sequence[Path]) -> Stamp:
    stats = [(file.name, file.stat()) for file in files]
    return {"name": name, "files": [[each, stat.st_size, stat.st_mtime_ns] for each, stat in stats]}


def _count(name: str, files: Sequence[Path]) -> int | None:
    """Return the number of rows. In a mapped file, only the heads of the batches are read."""
    count = 0
    for file in files:
        try:
            count += sum(piece.num_rows for piece in _slices(name, file))
        except BrokenStreamError:
            return None
    return count


async def _rows(files: Sequence[Path], context: ReadContext) -> Rows:
    steps = _steps(context, files)
    progress = context.progress
    while step := await asyncio.to_thread(next, steps, None):
        rows, size_bytes = step
        progress.lines_read += len(rows)
        yield rows
        progress.bytes_read += size_bytes


def _steps(context: ReadContext, files: Sequence[Path]) -> Iterator[tuple[list[Row], int]]:
    """Yield rows, a few MiB of them at a time, with the size of the file that ends with them."""
    number = 1
    for file in files:
        try:
            for piece in _slices(context.name, file):
                rows = rows_of(piece, number, context.columns(piece.schema.names), media=True)
                number += len(rows)
                yield rows, 0
        except BrokenStreamError as error:
            error.line = number
            raise
        yield [], file.stat().st_size


def _map_file(file: Path) -> mmap.mmap:
    """Map the file, so that a batch of photos is never in memory as a whole. Raises OSError, ValueError."""
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def _slices(name: str, file: Path) -> Iterator[Any]:
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError("Reading a saved dataset", "parquet") from None
    try:
        mapping = _map_file(file)
        with pyarrow.ipc.open_stream(pyarrow.py_buffer(mapping)) as stream:
            for piece in (piece for batch in stream for piece in slices(batch)):
                yield piece
                if hasattr(mapping, "madvise"):
                    mapping.madvise(mmap.MADV_DONTNEED)  # pages that were read would count as this process's memory
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BrokenStreamError(f"{file.name} is damaged here and the rest is lost: {error}") from error
