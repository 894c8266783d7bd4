"""Reads a folder of files as input: each file is a record, identified by its path and its content."""

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.encodings import detect_encoding, looks_like_text
from pipeline.readers.rows import ReadContext, Row, Rows
from pipeline.readers.source import Source, Stamp
from pipeline.records import JSON

#: The bytes at each end of a file that represent its content, together with its size.
EDGE_BYTES = 64 * 1024
#: A longer text is not a record: the texts of AT_ONCE files must fit into memory.
MOST_TEXT_BYTES = 4 * 1024 * 1024
#: The number of files that a thread reads in one go.
AT_ONCE = 64

#: Takes the path and name of a file, and returns its record's fields beyond those of the name, and its digest.
FileReader = Callable[[str, str], tuple[dict[str, JSON], int]]


def files_source(pattern: str, names: Sequence[str], base: Path, format_name: str = "files") -> Source:
    """Return these files, in this order, as one source. Its records' keys are their paths.

    With the format "text_files", a record also contains the text of its file.
    """
    rows = partial(_rows, names, base, format_name == "text_files")
    stamp = partial(_stamp, pattern, names, base)
    count = partial(len, names)
    return Source(pattern, None, format_name, None, key_field="path", rows=rows, read_stamp=stamp, read_count=count)


def reject_overlap(names_by_pattern: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Require that no file is under two patterns. Raises InputError."""
    owners: dict[str, str] = {}
    for pattern, names in names_by_pattern if len(names_by_pattern) > 1 else ():
        for name in names:
            other = owners.setdefault(os.path.normpath(name), pattern)
            if other != pattern:
                raise InputError(f"input.path: {name!r} is given twice (by {other!r} and by {pattern!r}); name it once")


async def _rows(names: Sequence[str], base: Path, with_text: bool, context: ReadContext) -> Rows:
    read = partial(_read_text, encoding=context.dialect.encoding) if with_text else _read_edges
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        rows = await asyncio.to_thread(_read_files, start + 1, part, base, read)
        context.progress.lines_read += len(rows)
        yield rows


def _read_files(first: int, names: Sequence[str], base: Path, read: FileReader) -> list[Row]:
    rows: list[Row] = []
    for number, name in enumerate(names, first):
        fields, is_utf8 = _fields(name)
        path = str(fields["path"])
        if not is_utf8:
            rows.append((number, fields, codec.digest64(os.fsencode(name)), f"{path}: its name is not valid UTF-8"))
            continue
        try:
            more, digest = read(os.path.join(base, name), path)  # noqa: PTH118
            rows.append((number, {**fields, **more}, digest, ""))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            rows.append((number, fields, codec.digest64(reason.encode()), f"{path}: cannot be read: {reason}"))
        except InputError as error:
            rows.append((number, fields, codec.digest64(str(error).encode()), str(error)))
    return rows


def _fields(name: str) -> tuple[dict[str, str | int], bool]:
    """Return the fields of a name, and whether it is UTF-8. If not, the bytes at fault are escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    path = PurePosixPath(text)
    folder = path.parent.as_posix()
    return {
        "path": text,
        "name": path.name,
        "stem": path.stem,
        "suffix": path.suffix,
        "folder": "" if folder == "." else folder,
    }, text == name


def _read_edges(path: str, _name: str) -> tuple[dict[str, JSON], int]:
    """Return the size, and a digest of the size and both ends of the file. Raises OSError."""
    with _open_regular_file(path) as (file, size):
        content = os.read(file, min(size, EDGE_BYTES))
        if size > EDGE_BYTES:
            os.lseek(file, max(EDGE_BYTES, size - EDGE_BYTES), os.SEEK_SET)
            content += os.read(file, EDGE_BYTES)
    return {"size_bytes": size}, codec.digest64(b"%d " % size + content)


def is_text_file(path: Path) -> bool:
    """Whether the file looks like text at its beginning."""
    try:
        with _open_regular_file(str(path)) as (file, _size):
            return looks_like_text(os.read(file, EDGE_BYTES))
    except OSError:
        return False


def _read_text(path: str, name: str, *, encoding: str | None) -> tuple[dict[str, JSON], int]:
    """Return size and text, and the digest of the whole text. Raises OSError, and InputError if it is not text."""
    content = b""
    with _open_regular_file(path) as (file, size):
        if size > MOST_TEXT_BYTES:
            raise InputError(f"{name}: has {size:,} bytes; the text of a record may have {MOST_TEXT_BYTES:,}")
        while len(content) <= MOST_TEXT_BYTES and (more := os.read(file, MOST_TEXT_BYTES)):
            content += more
    try:
        text = content.decode(detect_encoding(content, encoding, name)).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: not valid {error.encoding} at byte {error.start + 1:,}; see input.encoding"
        ) from None
    return {"size_bytes": size, "text": text}, codec.digest64(text.encode())


@contextmanager
def _open_regular_file(path: str) -> Iterator[tuple[int, int]]:
    """Open a regular file; yield its descriptor and its size in bytes. Raises OSError."""
    # Nonblocking, because opening a pipe may wait forever. There may be 100,000 files, so no Path and no buffer.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a file")
        yield file, status.st_size
    finally:
        os.close(file)


def _stamp(pattern: str, names: Sequence[str], base: Path) -> Stamp:
    """Return one digest of the names, sizes, and times of all the files."""
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        try:
            status = os.stat(os.path.join(base, name))  # noqa: PTH116, PTH118 - no Path for each of 100,000
            digest.update(b"%s\0%d\0%d\0" % (os.fsencode(name), status.st_size, status.st_mtime_ns))
        except OSError:
            digest.update(b"%s\0gone\0" % os.fsencode(name))
    return {"name": pattern, "files": len(names), "digest": digest.hexdigest()}
