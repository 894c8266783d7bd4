"""Defines what the stages of reading exchange: rows, and the context and progress of one reading."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from pipeline.codec import digest64
from pipeline.readers.dialect import TextDialect
from pipeline.readers.headers import unique_columns
from pipeline.records import JSON
from pipeline.units import shorten_list

#: Line, fields, digest, and what is wrong ("" for a good row). A bare tuple, because there is one for each record.
#: Equal digests mean equal fields, including names, in every format. White space may change only the digest.
Row = tuple[int, dict[str, JSON], int, str]
Rows = AsyncGenerator[list[Row], None]
Blocks = AsyncGenerator[bytes, None]

#: The note about texts that a program has cut within a character (a lone surrogate), which UTF-8 cannot hold.
SPLIT_CHARACTERS = "characters that were cut in two are read as \ufffd"

RAW_CHARS = 10_000  #: How much of an unreadable line is saved.


class BrokenStreamError(Exception):
    """The rest of a source is lost: its compressed data are damaged or cut off.

    `line` is where it broke, and `raw` the beginning of the incomplete record. The line stage sets both.
    """

    line = 1
    raw = b""

    def row(self) -> Row:
        """Return the one unreadable row that represents everything that is lost."""
        return bad_row(self.line, self.raw, str(self))


@dataclass(slots=True)
class ReadProgress:
    """How far the reading has come. All of it changes while records are read.

    Bytes are those on the disk, so for a compressed file the compressed ones. Lines count those split from the input
    (`lines_read`) and those whose records were yielded (`lines_done`). `notes` are what was detected, each with the
    sources that it applies to; `detected_options` are the same as keys of [input] and their values. `on_note` is called
    with each new note. `excluded_counts` counts the records that are left out, by the key of [input] that excludes
    them; for `unclear_count` of these, input.where could not be evaluated.
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
        """Add a note about how this source is read. It is reported only once, and saved with all its sources.

        `doubtful`: the source is read this way, but somebody should confirm that this is right.
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
        """Format the notes on how the input is read, one per line."""
        return [line for line, _ in self.notes_with_doubts()]

    def notes_with_doubts(self) -> list[tuple[str, bool]]:
        """Return the same lines, each with whether it is doubtful."""
        return [(f"{shorten_list(names)}: {text}", text in self.doubtful_notes) for text, names in self.notes.items()]

    def describe_empty(self, names: Sequence[str]) -> str:
        """Explain why there is nothing to label if no record of these sources is taken."""
        sources = ", ".join(names[:3]) + " ..." * (len(names) > 3)
        if not self.excluded_counts:
            return f"the input has no records, so there is nothing to label: {sources}"
        counts = ", ".join(f"{count:,} by input.{key}" for key, count in self.excluded_counts.items())
        return f"all {self.excluded_counts.total():,} records of {sources} are left out: {counts}"

    def estimate(self) -> int | None:
        """Estimate how many records there will be in all; None while nothing is known, as for stdin."""
        if self.exact_total is not None:
            return self.exact_total
        if not self.records or not self.bytes_read or self.bytes_total is None:
            return None
        # A chunk is read at once but yielded in pieces. The lines show how much of it is still to come.
        ahead = max(1.0, self.lines_read / self.lines_done) if self.lines_done else 1.0
        selected = self.records - self.excluded_counts.total()
        total = round(selected * ahead * max(1.0, self.bytes_total / self.bytes_read))
        return total if self.limit is None else min(total, self.limit)


@dataclass(slots=True)
class ReadContext:
    """What a format must know about its source. At most `batch` lines are yielded at once.

    A `single_pass` source may be slow, so nothing waits for more of it. Without `digests`, those of a table are 0,
    because they take a third of the time. `encoding` and `unit` (the word for a record) are detected at the beginning
    of the text. Nothing else changes.
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
        """Return the columns of a table with these names, each only once. Notes report the names that were made up."""
        columns, notes = unique_columns(names)
        for note in notes:
            self.progress.note(note, self.name)
        return columns


def bad_row(line: int, raw: bytes, trouble: str) -> Row:
    """Create a row that could not be read. The field `raw` contains the beginning of its bytes as text."""
    text = raw[: 4 * RAW_CHARS].decode("utf-8", errors="replace")[:RAW_CHARS]
    return line, {"raw": text}, digest64(raw), trouble


def describe_decoding_error(raw: bytes, encoding: str) -> str:
    """Describe what is wrong with the bytes; empty if they are valid."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        column = len(raw[: error.start].decode()) + 1
        return f"not valid {encoding} at column {column}; see input.encoding"
    return ""
