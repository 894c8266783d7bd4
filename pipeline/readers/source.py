"""One input: what it is called, how it is read, and what tells that it has changed."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from pipeline import codec
from pipeline.errors import InputError
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

Stamp = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SourceAccess:
    """How to read what is neither the text of a local file nor stdin: by `rows`, or by `blocks` of text.

    `stamp` gives what differs when the content does, without reading it; None where nothing tells. `count` gives the
    number of records, None where it is not known; both may wait for a disk or a server. `named_by` is the field that
    names a record where the config names none. What can be read only `once` is a stream. `mark` is the same for the
    same place under another name. Where `stamp` is what a server said at first, `again` asks it anew, for all the files
    of an address, by their names; it raises InputError.
    """

    rows: Callable[[ReadContext], Rows] | None = None
    blocks: Callable[[int], Blocks] | None = None
    stamp: Callable[[], Stamp | None] = lambda: None
    count: Callable[[], int | None] = lambda: None
    key_field: str | None = None
    single_pass: bool = False
    identity: str = ""
    restamp: Callable[[], Mapping[str, Stamp | None]] | None = field(default=None, repr=False)  # may hold a secret


@dataclass(frozen=True, slots=True)
class Source:
    """One file or folder, stdin (neither `path` nor `access`), or what `access` reads; and its format.

    `name` is the path or address as it was written (for a glob: as the pattern is), with forward slashes and without
    any secret; it is unique in a run. `format` is one of FORMAT_NAMES, sql or records; for stdin and pipes it may be
    "auto": told by the first byte. `size_bytes` is None for what has no size, like a pipe. `dialect` is
    what the user says of how a text is written, `partition` are columns that the folders' names give,
    `notes` what is to be told of it.
    """

    name: str
    path: Path | None
    format: str
    size_bytes: int | None
    access: SourceAccess | None = None
    dialect: TextDialect = AUTO_DIALECT
    partition: Mapping[str, JSON] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def single_pass(self) -> bool:
        """Whether it can be read only once, as stdin or a pipe: not before the run and not after it."""
        return self.size_bytes is None if self.access is None else self.access.single_pass

    @property
    def key_field(self) -> str | None:
        """The field that names a record where the config names none."""
        return None if self.access is None else self.access.key_field

    @property
    def unit(self) -> str:
        """What a record is in it."""
        return _UNITS.get(self.format, "line")

    def stamp(self) -> Stamp | None:
        """What differs when the content does, without reading it; None where nothing tells. Raises OSError."""
        if self.access is not None:
            return self.access.stamp()
        # What is read once has nothing that lasts: a pipe's times change as it is written to and read.
        stat = self.path.stat() if self.path is not None and not self.single_pass else None
        return {
            "name": self.name,
            "size_bytes": None if stat is None else stat.st_size,
            "modified_ns": None if stat is None else stat.st_mtime_ns,
        }

    def count(self) -> int | None:
        """How many records there are, where that is known without reading them."""
        return None if self.access is None else self.access.count()


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
