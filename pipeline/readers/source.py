"""One input: what it is called, how it is read, and what tells that it has changed."""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from pipeline import codec
from pipeline.errors import InputError, MissingInputError
from pipeline.readers.compression import ENDINGS, HEAD_BYTES, Inflater, detect
from pipeline.readers.dialect import AUTO_DIALECT, TextDialect
from pipeline.readers.json_documents import is_single_document
from pipeline.readers.rows import Blocks, BrokenStreamError, ReadContext, Rows
from pipeline.readers.signatures import reject_non_text
from pipeline.records import JSON

FORMATS_BY_ENDING = {f".{name}": name for name in ("jsonl", "json", "csv", "tsv", "parquet", "text")}
FORMATS_BY_ENDING |= {".ndjson": "jsonl", ".txt": "text"}
FORMAT_NAMES = ("auto", "jsonl", "json", "csv", "tsv", "parquet", "text", "files", "text_files", "dataset")

#: formats in which each file is a record
FILE_FORMATS = frozenset({"files", "text_files"})
_UNITS = {"parquet": "row", "sql": "row", "dataset": "row", "records": "record", **dict.fromkeys(FILE_FORMATS, "file")}

#: A folder of more is not looked through to its end.
NAMES_MAX = 10_000

Stamp = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """One input and its format: a local file, stdin, or what `rows` or `blocks` of text read.

    `name` is the path or address as it was written (for a glob: as the pattern is), with forward slashes and without
    any secret; it is unique in a run. `format` is one of FORMAT_NAMES, sql or records; for stdin and pipes it may be
    "auto": told by the first byte. `size_bytes` is None for what has no size, like a pipe. `dialect` is
    what the user says of how a text is written, `partition` are columns that the folders' names give,
    `notes` what is to be told of it.

    `read_stamp` gives what differs when the content does, without reading it; None where nothing tells. `read_count`
    gives the number of records, None where it is not known; both may wait for a disk or a server. `key_field` names a
    record where the config names no key. `identity` is the same for the same place under another name. Where a stamp is
    what a server said at first, `restamp` asks it anew, for all the files of an address, by their names; it raises
    InputError.
    """

    name: str
    path: Path | None
    format: str
    size_bytes: int | None
    dialect: TextDialect = AUTO_DIALECT
    partition: Mapping[str, JSON] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    key_field: str | None = None
    is_iterator: bool = False
    identity: str = ""
    # Not to be shown: they may hold an address that is a secret.
    rows: Callable[[ReadContext], Rows] | None = field(default=None, repr=False)
    blocks: Callable[[int], Blocks] | None = field(default=None, repr=False)
    read_stamp: Callable[[], Stamp | None] = field(default=lambda: None, repr=False)
    read_count: Callable[[], int | None] = field(default=lambda: None, repr=False)
    restamp: Callable[[], Mapping[str, Stamp | None]] | None = field(default=None, repr=False)

    @property
    def has_reader(self) -> bool:
        """Whether it is neither the text of a local file nor stdin."""
        return self.rows is not None or self.blocks is not None

    @property
    def single_pass(self) -> bool:
        """Whether it can be read only once, as stdin or a pipe: not before the run and not after it."""
        return self.is_iterator or (self.size_bytes is None and not self.has_reader)

    @property
    def unit(self) -> str:
        """What a record is in it."""
        return _UNITS.get(self.format, "line")

    def stamp(self) -> Stamp | None:
        """What differs when the content does, without reading it; None where nothing tells. Raises OSError."""
        if self.has_reader:
            return self.read_stamp()
        # What is read once has nothing that lasts: a pipe's times change as it is written to and read.
        stat = self.path.stat() if self.path is not None and not self.single_pass else None
        return {
            "name": self.name,
            "size_bytes": None if stat is None else stat.st_size,
            "modified_ns": None if stat is None else stat.st_mtime_ns,
        }


def natural_key(name: str) -> str:
    """The sorting key by which part-2 comes before part-10, folder by folder."""
    # One text a name, for there may be 100,000: a number stands there as its length and its digits.
    numbered = _DIGITS.sub(_number, name)
    return "\0".join([numbered.replace("/", "\0"), "\0", name])


_DIGITS = re.compile(r"[0-9]+")


def _number(match: re.Match[str]) -> str:
    digits = match[0].lstrip("0")
    return f"\1{chr(2 + len(digits))}{digits}"


def compression_suffix(name: str) -> str:
    """The ending that says how a file is compressed, or nothing."""
    ending = PurePath(name).suffix.lower()
    return ending if ending in ENDINGS else ""


def format_by_ending(name: str) -> str:
    """The format that the name's ending tells, that of a compression left out; "" where it tells none."""
    return FORMATS_BY_ENDING.get(PurePath(name.lower().removesuffix(compression_suffix(name))).suffix, "")


def detect_format(name: str, format_name: str, head: Callable[[], bytes] | None) -> str:
    """The format that was given or, under `auto`, by the name's ending, else by the first bytes. Raises InputError."""
    if format_name != "auto":
        return format_name
    if known := format_by_ending(name):
        return known
    content = _decompress_head(head(), name) if head else b""
    format_found = _format_of_content(content)
    if not format_found:
        reject_non_text(content, name, markup=True)
        endings = " ".join(FORMATS_BY_ENDING)
        raise InputError(
            f"input.path: the format of {name!r} cannot be determined (known endings: {endings}); set input.format "
            '("text_files" makes each file a record that holds its text, "files" each picture, sound or document)'
        )
    return format_found


def _decompress_head(data: bytes, name: str) -> bytes:
    kind = detect(data[:HEAD_BYTES], name)
    if not kind:
        return data
    try:
        return next(Inflater(kind).feed(data))[0]
    except BrokenStreamError:
        return b""


def _format_of_content(head: bytes) -> str | None:
    """Parquet and JSONL can be told by their first bytes; of the rest any text could be any format."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if is_single_document(head):
        return "json"
    line, ended, _ = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not line.startswith(b"{"):
        return None
    try:
        return "jsonl" if isinstance(codec.loads(line), dict) else None
    except codec.JSONDecodeError:
        return None if ended else "jsonl"  # the first line may be longer than the look


def missing_input_error(name: str, path: Path, reason: str = "No such file or directory") -> MissingInputError:
    """The error for an input of this name, which was looked for at `path`; it says what is like it."""
    gone = next((folder for folder in reversed(path.parents) if not folder.is_dir()), None)
    absent = gone or path
    close = get_close_matches(absent.name, _names_in(absent.parent), n=1)
    suggestion = str(gone.with_name(close[0])) if gone and close else name.removesuffix(path.name) + "".join(close)
    hint = (f" There is no folder {gone}." if gone else "") + (f" Did you mean {suggestion!r}?" if close else "")
    return MissingInputError(f"input.path: {name!r} cannot be read: {reason} (looked for at {path.absolute()}).{hint}")


def _names_in(folder: Path) -> list[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        return [entry.name for entry in islice(entries, NAMES_MAX) if entry.is_dir() or entry.is_file()]
    return []
