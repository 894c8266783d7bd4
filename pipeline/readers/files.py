"""A folder of files as an input: each file is a record, known by its path and by what is in it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.rows import Reading, Row, Rows
from pipeline.readers.source import Source, SourceAccess, Stamp

#: so many bytes at the start and at the end of a file stand for its content, beside its size
EDGE_BYTES = 64 * 1024
#: files that one thread looks at in one go
AT_ONCE = 64


def files_source(written: str, names: Sequence[str], base: Path) -> Source:
    """The files of these names, in this order, as one source. Its records are named by their paths."""
    access = SourceAccess(
        rows=partial(_rows, names, base),
        stamp=partial(_stamp, written, names, base),
        count=lambda: len(names),
        named_by="path",
    )
    return Source(written, None, "files", None, access)


def refuse_overlap(found: Sequence[tuple[str, Sequence[str]]]) -> None:
    """No file under two patterns. Raises InputError."""
    seen: dict[str, str] = {}
    for written, names in found if len(found) > 1 else ():
        for name in names:
            other = seen.setdefault(os.path.normpath(name), written)
            if other != written:
                raise InputError(f"input.path: {name!r} is given twice (by {other!r} and by {written!r}); name it once")


async def _rows(names: Sequence[str], base: Path, reading: Reading) -> Rows:
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        rows = await asyncio.to_thread(lambda first, these: list(_looked_at(first, these, base)), start + 1, part)
        reading.progress.lines_read += len(rows)
        for at in range(0, len(rows), reading.batch):
            yield rows[at : at + reading.batch]


def _looked_at(first: int, names: Sequence[str], base: Path) -> Iterator[Row]:
    for number, name in enumerate(names, first):
        fields, sayable = _fields(name)
        if not sayable:
            yield number, fields, codec.digest64(os.fsencode(name)), f"{fields['path']}: its name is not valid UTF-8"
            continue
        try:
            size_bytes, digest = _digest(os.path.join(base, name))  # noqa: PTH118
        except OSError as error:
            reason = error.strerror or type(error).__name__
            yield number, fields, codec.digest64(reason.encode()), f"{fields['path']}: cannot be read: {reason}"
        else:
            yield number, {**fields, "size_bytes": size_bytes}, digest, ""


def _fields(name: str) -> tuple[dict[str, str | int], bool]:
    """What a name says, and whether it can be said in UTF-8; where not, the bytes at fault as escapes."""
    said = os.fsencode(name).decode("utf-8", "backslashreplace")
    path = PurePosixPath(said)
    folder = path.parent.as_posix()
    return {
        "path": said,
        "name": path.name,
        "stem": path.stem,
        "suffix": path.suffix,
        "folder": "" if folder == "." else folder,
    }, said == name


def _digest(path: str) -> tuple[int, int]:
    """Size and digest; the digest is of the size and of both ends of the file. Raises OSError."""
    # Not blocking: to open a pipe might wait for ever. There may be 100,000 of these: no Path, no buffer.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is no file")
        size = status.st_size
        held = os.read(file, min(size, EDGE_BYTES))
        if size > EDGE_BYTES:
            os.lseek(file, max(EDGE_BYTES, size - EDGE_BYTES), os.SEEK_SET)
            held += os.read(file, EDGE_BYTES)
    finally:
        os.close(file)
    return size, codec.digest64(b"%d " % size + held)


def _stamp(written: str, names: Sequence[str], base: Path) -> Stamp:
    """Names, sizes and times of all the files, as one digest."""
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        try:
            found = os.stat(os.path.join(base, name))  # noqa: PTH116, PTH118 - no Path for each of 100,000
            digest.update(b"%s\0%d\0%d\0" % (os.fsencode(name), found.st_size, found.st_mtime_ns))
        except OSError:
            digest.update(b"%s\0gone\0" % os.fsencode(name))
    return {"name": written, "files": len(names), "digest": digest.hexdigest()}
