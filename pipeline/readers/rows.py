"""What passes between the stages of reading: rows, the choices of one reading, and the count of it."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from pipeline.codec import digest64
from pipeline.readers.dialect import TextDialect
from pipeline.readers.headers import unique_columns
from pipeline.records import JSON
from pipeline.units import shorten_list

#: line, fields, digest, and what is wrong ("" for a good row). A bare tuple: one is made for each record. Equal digests
#: mean equal fields, names included, in every format; fields that are equal may have other digests (as of white space).
Row = tuple[int, dict[str, JSON], int, str]
Rows = AsyncGenerator[list[Row], None]
Blocks = AsyncGenerator[bytes, None]

#: said of texts that a program has cut in the middle of a character (a lone surrogate), which no UTF-8 can hold
SPLIT_CHARACTERS = "characters that were cut in two are read as \ufffd"

RAW_CHARS = 10_000  #: as much of an unreadable line is kept


class BrokenStreamError(Exception):
    """The rest of a source cannot be had: its compressed data are damaged or cut off.

    `line` is where it broke and `raw` what had come of the torn record; the line stage fills both in.
    """

    line = 1
    raw = b""

    def row(self) -> Row:
        """The one unreadable row that stands for all that is lost."""
        return bad_row(self.line, self.raw, str(self))


@dataclass(slots=True)
class ReadProgress:
    """How far the reading has come; all of it changes while records are read.

    Bytes are those of the files as they lie on the disk, so for a compressed file the compressed ones.
    Lines count those cut from the input (`lines_read`) and those whose records were handed on (`lines_done`).
    `notes` are what was detected in reading, each with the sources of which it holds; `detected_options` the same as
    keys of [input] and their values. `on_note` is called with each note when it is made. `excluded_counts` counts the
    records that are not taken, by the key of [input] that excludes them; of `unclear_count` ones input.where could not
    be told.
    """

    bytes_read: int = 0
    bytes_total: int | None = None
    records: int = 0
    exact_total: int | None = None
    limit: int | None = None
    lines_read: int = 0
    lines_done: int = 0
    notes: dict[str, list[str]] = field(default_factory=dict)
    detected_options: dict[str, str | bool] = field(default_factory=dict)
    doubtful_notes: set[str] = field(default_factory=set)
    excluded_counts: Counter[str] = field(default_factory=Counter)
    unclear_count: int = 0
    on_note: Callable[[str], None] = lambda _: None

    def note(self, text: str, name: str, *, doubtful: bool = False, **chosen: str | bool) -> None:
        """Something is to be told of how this source reads: it is said once, and kept with all sources it holds for.

        `doubtful`: it is read so, but somebody should say that this is right.
        """
        self.detected_options |= chosen
        if doubtful:
            self.doubtful_notes.add(text)
        if text not in self.notes:
            self.on_note(f"{name}: {text}")
        names = self.notes.setdefault(text, [])
        if name not in names[-1:]:
            names.append(name)

    def format_notes(self) -> list[str]:
        """What is to be told of how the input reads, a line each."""
        return [line for line, _ in self.notes_with_doubts()]

    def notes_with_doubts(self) -> list[tuple[str, bool]]:
        """The same, each with whether it is doubtful."""
        return [(f"{shorten_list(names)}: {text}", text in self.doubtful_notes) for text, names in self.notes.items()]

    def describe_empty(self, names: Sequence[str]) -> str:
        """Why there is nothing to label, where no record of these sources was taken."""
        sources = ", ".join(names[:3]) + " ..." * (len(names) > 3)
        if not self.excluded_counts:
            return f"the input has no records, so there is nothing to label: {sources}"
        counts = ", ".join(f"{count:,} by input.{key}" for key, count in self.excluded_counts.items())
        return f"all {self.excluded_counts.total():,} records of {sources} are left out: {counts}"

    def estimate(self) -> int | None:
        """How many records there will be in all; None while nothing can be said, as for stdin."""
        if self.exact_total is not None:
            return self.exact_total
        if not self.records or not self.bytes_read or self.bytes_total is None:
            return None
        # A chunk is read at once but handed on bit by bit: the lines say how much of what was read is still to come.
        ahead = max(1.0, self.lines_read / self.lines_done) if self.lines_done else 1.0
        selected = self.records - self.excluded_counts.total()
        total = round(selected * ahead * max(1.0, self.bytes_total / self.bytes_read))
        return total if self.limit is None else min(total, self.limit)


@dataclass(slots=True)
class ReadContext:
    """What a format needs to know of the source it reads. At most `batch` lines are handed on at once.

    A `single_pass` source may come slowly: it is not waited for. Without `digests`, those of a table are 0, for
    they take a third of the time. `encoding` and `unit`, what a record is called,
    are what the beginning of the text has told; they are all that changes.
    """

    name: str
    dialect: TextDialect
    batch: int
    progress: ReadProgress
    single_pass: bool = False
    digests: bool = True
    encoding: str = "utf-8"
    unit: str = "line"

    def columns(self, names: Sequence[str]) -> list[str]:
        """The columns of a table with these names, each once; it is told which of them had to be given another."""
        columns, notes = unique_columns(names)
        for note in notes:
            self.progress.note(note, self.name)
        return columns


def bad_row(line: int, raw: bytes, trouble: str) -> Row:
    """A row that could not be read: what could be saved of it is in the field `raw`."""
    text = raw[: 4 * RAW_CHARS].decode("utf-8", errors="replace")[:RAW_CHARS]
    return line, {"raw": text}, digest64(raw), trouble


def describe_decoding_error(raw: bytes, encoding: str) -> str:
    """What is wrong with the bytes; nothing if they are good."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        column = len(raw[: error.start].decode()) + 1
        return f"not valid {encoding} at column {column}; see input.encoding"
    return ""
