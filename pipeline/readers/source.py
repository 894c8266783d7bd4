"""What the user named as input, as a list of sources: paths, globs and stdin."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.compression import ENDINGS, HEAD_BYTES, Inflater, detect
from pipeline.readers.rows import BrokenStreamError

FORMATS_BY_ENDING = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
}
FORMAT_NAMES = ("auto", "jsonl", "csv", "tsv", "parquet", "text")
STDIN = "-"
_LOOK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or stdin (`path` is None), and how to read it.

    `name` is the path as it was written (for a glob: relative as the pattern is), with forward slashes; it is unique
    in a run. `format` is jsonl, csv, tsv, parquet or text; for stdin it may be "auto": told by the first byte.
    `size_bytes` is None for what has no size, like a pipe.
    """

    name: str
    path: Path | None
    format: str
    size_bytes: int | None


def resolve_sources(path: str | Sequence[str], *, format: str = "auto", base: Path) -> list[Source]:  # noqa: A002
    """The sources that `path` names, relative to `base`, in the order in which they are read.

    That is the order of the list; within a glob (`**` goes through all folders) by name, folder by folder, with
    numbers in a name compared as numbers: part-2 before part-10. Raises InputError, which says what to do.
    """
    if format not in FORMAT_NAMES:
        raise InputError(f"input.format: {format!r} is not known; it is one of {', '.join(FORMAT_NAMES)}")
    written = [path] if isinstance(path, str) else list(path)
    if not written or not all(written):
        raise InputError('input.path names no file; set it to a file, a list, a glob, or "-" for stdin')
    sources = [source for each in written for source in _named(each, format, base)]
    _refuse_twice(sources)
    return sources


def _named(written: str, format_name: str, base: Path) -> Iterator[Source]:
    if written == STDIN:
        if format_name == "parquet":
            raise InputError("input.path: Parquet cannot be read from stdin; name the file")
        yield Source("stdin", None, format_name, None)
        return
    plain = str(Path(written).expanduser()) if written.startswith("~") else written
    # A file whose real name looks like a glob is that file.
    names = _matches(plain, base) if glob.has_magic(plain) and not (base / plain).exists() else [plain]
    for name in names:
        yield _source(PurePath(name).as_posix(), base / name, format_name)


def _matches(pattern: str, base: Path) -> list[str]:
    # Path.glob takes no absolute pattern and follows other rules for ** from version to version.
    found = glob.glob(pattern, root_dir=base, recursive=True)  # noqa: PTH207
    files = [name for name in found if (base / name).is_file()]
    if not files:
        raise InputError(f"input.path: no file matches {pattern!r} (relative paths start at {base})")
    return sorted(set(files), key=natural)


def natural(name: str) -> tuple[list[list[str | int]], str]:
    """The sorting key by which part-2 comes before part-10, folder by folder."""
    pieces = [re.split(r"([0-9]+)", part) for part in PurePath(name).parts]
    return [[int(piece) if index % 2 else piece for index, piece in enumerate(part)] for part in pieces], name


def _source(name: str, path: Path, format_name: str) -> Source:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"input.path: {name!r} cannot be read: {error.strerror} ({path})") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"input.path: {name!r} is a folder; name its files, as in '{name.rstrip('/')}/*.jsonl'")
    if not os.access(path, os.R_OK):
        raise InputError(f"input.path: {name!r} cannot be read: no permission ({path})")
    regular = stat.S_ISREG(status.st_mode)
    found = _format(name, path, format_name, regular)
    if found == "parquet" and (not regular or _packing(name)):
        raise InputError(f"input.path: {name!r}: Parquet is read from a plain file; unpack it first")
    return Source(name, path, found, status.st_size if regular else None)


def _packing(name: str) -> str:
    """The ending that says how a file is compressed, or nothing."""
    ending = PurePath(name).suffix.lower()
    return ending if ending in ENDINGS else ""


def _format(name: str, path: Path, format_name: str, regular: bool) -> str:
    if format_name != "auto":
        return format_name
    ending = PurePath(name.lower().removesuffix(_packing(name))).suffix
    found = FORMATS_BY_ENDING.get(ending) or (_format_by_look(_head(name, path)) if regular else None)
    if not found:
        known = " ".join(FORMATS_BY_ENDING)
        raise InputError(f"input.path: no telling the format of {name!r} (known endings: {known}); set input.format")
    return found


def _head(name: str, path: Path) -> bytes:
    """The first plain bytes of a file."""
    try:
        with path.open("rb") as file:
            data = file.read(_LOOK_BYTES)
    except OSError as error:
        raise InputError(f"input.path: {name!r} cannot be read: {error.strerror} ({path})") from error
    kind = detect(data[:HEAD_BYTES], name)
    if not kind:
        return data
    try:
        return next(Inflater(kind).feed(data))[0]
    except BrokenStreamError:
        return b""


def _format_by_look(head: bytes) -> str | None:
    """Parquet and JSONL can be told by their first bytes; of the rest any text could be any format."""
    if head.startswith(b"PAR1"):
        return "parquet"
    line, ended, _ = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not line.startswith(b"{"):
        return None
    try:
        return "jsonl" if isinstance(codec.loads(line), dict) else None
    except codec.JSONDecodeError:
        # The first line may be longer than the look; a JSON text over several lines is not JSONL.
        return None if ended else "jsonl"


def _refuse_twice(sources: list[Source]) -> None:
    seen: dict[str, str] = {}
    for source in sources:
        real = str(source.path.resolve()) if source.path else STDIN
        for mark in {real, f"name {source.name}"}:
            if mark in seen:
                raise InputError(f"input.path: {source.name!r} is given twice (also as {seen[mark]!r}); name it once")
            seen[mark] = source.name
