"""Defines an input: its name, how it is read, and what shows that it has changed."""

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

#: Formats in which each file is a record.
FILE_FORMATS = frozenset({"files", "text_files"})
_UNITS = {"parquet": "row", "sql": "row", "dataset": "row", "records": "record", **dict.fromkeys(FILE_FORMATS, "file")}

#: Only this many names in a folder are compared with a missing one.
NAMES_MAX = 10_000

Stamp = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """One input and its format: a local file, stdin, or what `rows` or `blocks` of text read.

    `name` is the path or address as written (for a glob: in the form of the pattern), with forward slashes and without
    secrets. It is unique in a run. `format` is one of FORMAT_NAMES, sql, or records; for stdin and pipes it may be
    "auto", which the first byte decides. `size_bytes` is None if there is no size, as for a pipe. `dialect` is how the
    user says a text is written, `partition` are columns from the folders' names, and `notes` are for the user.

    `read_stamp` returns what differs if the content does, without reading it; None if nothing shows this. `read_count`
    returns the number of records, None if it is unknown. Both may wait for a disk or a server. `key_field` is the key
    if the config names none. `identity` is the same for the same place under another name. If a stamp is what a server
    first reported, `restamp` requests the stamps of all files of the address again, by name. It raises InputError.
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
    # Not in repr, because they may contain a secret address.
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
        """Whether it can be read only once, like stdin or a pipe, so neither before the run nor after it."""
        return self.is_iterator or (self.size_bytes is None and not self.has_reader)

    @property
    def unit(self) -> str:
        """The word for one record of it."""
        return _UNITS.get(self.format, "line")

    def stamp(self) -> Stamp | None:
        """Return what differs if the content does, without reading it; None if nothing shows this. Raises OSError."""
        if self.has_reader:
            return self.read_stamp()
        # A single-pass source has nothing lasting: a pipe's times change as it is written and read.
        stat = self.path.stat() if self.path is not None and not self.single_pass else None
        return {
            "name": self.name,
            "size_bytes": None if stat is None else stat.st_size,
            "modified_ns": None if stat is None else stat.st_mtime_ns,
        }


def natural_key(name: str) -> str:
    """Return the sort key that puts part-2 before part-10, folder by folder."""
    # One text per name, because there may be 100,000. A number in it becomes its length and its digits.
    numbered = _DIGITS.sub(_number, name)
    return "\0".join([numbered.replace("/", "\0"), "\0", name])


_DIGITS = re.compile(r"[0-9]+")


def _number(match: re.Match[str]) -> str:
    digits = match[0].lstrip("0")
    return f"\1{chr(2 + len(digits))}{digits}"


def compression_suffix(name: str) -> str:
    """Return the ending that names a compression; empty if there is none."""
    ending = PurePath(name).suffix.lower()
    return ending if ending in ENDINGS else ""


def format_by_ending(name: str) -> str:
    """Return the format for the name's ending, not counting that of a compression; empty if there is none."""
    return FORMATS_BY_ENDING.get(PurePath(name.lower().removesuffix(compression_suffix(name))).suffix, "")


def detect_format(name: str, format_name: str, head: Callable[[], bytes] | None) -> str:
    """Return the given format or, if it is `auto`, that of the ending, else of the first bytes. Raises InputError."""
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
    """Return Parquet, JSON, or JSONL by the first bytes. Any other text could be in any format: None."""
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
        return None if ended else "jsonl"  # the first line may be longer than the head


def missing_input_error(name: str, path: Path, reason: str = "No such file or directory") -> MissingInputError:
    """Create the error for an input that is missing at `path`. It suggests a similar name."""
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
