"""The text formats: each is a function from a stream of UTF-8 blocks to rows, and a dictionary chooses it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.csvrows import RECORD_CHARS, Cut, RecordCutter
from pipeline.readers.lines import LineSplitter, cut_lines
from pipeline.readers.rows import Blocks, BrokenStreamError, Reading, Row, Rows, bad_row

Format = Callable[[Blocks, Reading], Rows]

LINE_BYTES = 64 * 1024 * 1024  #: a longer line of JSONL or text is unreadable; it is never held whole
_EXCERPT_CHARS = 80
#: goes before a line of text in its digest: the same line read as JSON is another record
_TEXT = b"text\0"

# Digits become 0 and all but a minus a space: so a long run of digits is found at the speed of a memory scan.
_DIGITS = bytes(48 if 48 <= byte <= 57 else 45 if byte == 45 else 32 for byte in range(256))
#: from here on an integer may be beyond the 64 bits of the fast JSON reader
_LONG_NUMBER, _LONG_NEGATIVE = b"0" * 20, b"-" + b"0" * 19


async def jsonl(blocks: Blocks, reading: Reading) -> Rows:
    """One JSON object a line; blank lines are skipped."""
    async with aclosing(cut_lines(blocks, reading, LineSplitter(LINE_BYTES))) as lines:
        async for first, batch in lines:
            long_numbers = _has_long_number(b"".join(batch))
            yield list(_json_rows(first, batch, reading.encoding, long_numbers))


def _json_rows(first: int, batch: list[bytes], encoding: str, long_numbers: bool) -> Iterator[Row]:
    for number, line in enumerate(batch, first):
        raw = line.rstrip(b"\r")
        if len(raw) > LINE_BYTES:
            yield bad_row(number, raw, _too_long())
            continue
        try:
            value = codec.loads(raw)
            if long_numbers and _has_long_number(raw):
                value = codec.loads_exact(raw.decode())
        except (ValueError, RecursionError) as error:
            if raw.strip():
                yield bad_row(number, raw, _json_trouble(raw, error, encoding))
            continue
        if type(value) is dict:
            yield number, value, codec.digest64(raw), ""
        else:
            yield bad_row(number, raw, _not_an_object(value))


def _has_long_number(raw: bytes) -> bool:
    digits = raw.translate(_DIGITS)
    return _LONG_NUMBER in digits or _LONG_NEGATIVE in digits


def _json_trouble(raw: bytes, error: Exception, encoding: str) -> str:
    if trouble := _undecodable(raw, encoding):
        return trouble
    if not isinstance(error, codec.JSONDecodeError):
        return f"not valid JSON: {error}"
    start = max(0, error.pos - _EXCERPT_CHARS // 2)
    excerpt = error.doc[start : start + _EXCERPT_CHARS]
    return f"not valid JSON: {error.msg} at column {error.colno}: {excerpt!r}"


def _not_an_object(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return f"a JSON object is needed, but the line holds {names.get(type(value), 'a number')}"


def _too_long() -> str:
    return f"a line longer than {LINE_BYTES:,} bytes"


def _undecodable(raw: bytes, encoding: str) -> str:
    """What is wrong with the bytes; nothing if they are good."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        column = len(raw[: error.start].decode()) + 1
        return f"not valid {encoding} at column {column}; see input.encoding"
    return ""


async def text(blocks: Blocks, reading: Reading) -> Rows:
    """The field `text` from each line; blank lines are skipped."""
    async with aclosing(cut_lines(blocks, reading, LineSplitter(LINE_BYTES))) as lines:
        async for first, batch in lines:
            yield [
                _text_row(number, line.removesuffix(b"\r"), reading.encoding)
                for number, line in enumerate(batch, first)
                if line.strip()
            ]


def _text_row(number: int, raw: bytes, encoding: str) -> Row:
    if len(raw) > LINE_BYTES:
        return bad_row(number, raw, _too_long())
    try:
        return number, {"text": raw.decode()}, codec.digest64(_TEXT + raw), ""
    except UnicodeDecodeError:
        return bad_row(number, raw, _undecodable(raw, encoding))


async def delimited(blocks: Blocks, reading: Reading, delimiter: str) -> Rows:
    """CSV or TSV: the first row names the fields; blank lines are skipped; every value stays a string."""
    table = _Table(reading)
    cutter = RecordCutter(delimiter)
    # A line that the splitter had to cut is longer than a record may be, at four bytes a character at most.
    splitter = LineSplitter(4 * RECORD_CHARS, returns=True)
    try:
        async with aclosing(cut_lines(blocks, reading, splitter)) as lines:
            async for first, batch in lines:
                yield list(table.rows(cutter.feed(table.decode(first, batch))))
    except BrokenStreamError as error:
        yield list(table.rows(cutter.flush()))
        # The torn record begins where its quote was opened, not where the data broke.
        line, pending = cutter.pending
        if pending:
            error.line, error.raw = line, pending.encode("utf-8", "surrogateescape") + error.raw
        raise
    yield list(table.rows(cutter.feed([], end=True)))


class _Table:
    """Cells to rows, by the header that comes first."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._columns: list[str] = []
        self._names = b""  # the columns, as they go into each row's digest
        self._undecodable_until = 0  # the last line known to hold bytes that are not in the encoding

    def decode(self, first: int, batch: list[bytes]) -> list[str]:
        """The lines as text. Bytes that cannot be decoded become lone surrogates, which no good text holds."""
        try:
            return [line.decode() for line in batch]
        except UnicodeDecodeError:
            self._undecodable_until = first + len(batch) - 1
            return [line.decode("utf-8", "surrogateescape") for line in batch]

    def rows(self, cuts: Iterable[Cut]) -> Iterator[Row]:
        for line, raw, cells, found in cuts:
            trouble = found
            if not found and line <= self._undecodable_until:
                trouble = _undecodable(_encoded(raw), self._reading.encoding)
            if not self._columns:
                self._columns = self._header(line, cells, trouble)
                self._names = codec.names_mark(self._columns)
            elif trouble or len(cells) != len(self._columns):
                count = f"{len(cells)} cells where the header has {len(self._columns)}"
                yield bad_row(line, _encoded(raw).rstrip(b"\r\n"), trouble or count)
            else:
                yield (
                    line,
                    dict(zip(self._columns, cells, strict=True)),
                    codec.digest64(self._names + codec.dumps(cells)),
                    "",
                )

    def _header(self, line: int, cells: list[str], trouble: str) -> list[str]:
        where = f"{self._reading.name}, line {line}: the header"
        if trouble:
            raise InputError(f"{where} cannot be read: {trouble}")
        empty = [str(number) for number, name in enumerate(cells, 1) if not name.strip()]
        if empty:
            raise InputError(f"{where} has no name for column {', '.join(empty)}; the first row must name every column")
        twice = [repr(name) for name, count in Counter(cells).items() if count > 1]
        if twice:
            raise InputError(f"{where} has columns of the same name: {', '.join(twice)}; rename them")
        return cells


def _encoded(raw: list[str]) -> bytes:
    return "".join(raw).encode("utf-8", "surrogateescape")


async def guessed(blocks: Blocks, reading: Reading) -> Rows:
    """JSONL, if the input begins like it; for stdin, which has no name to go by."""
    head = b""
    async with aclosing(blocks):
        async for block in blocks:
            head += block
            if head.strip():
                break
        if head.strip() and not re.match(rb"\s*\{", head):
            raise InputError(
                f"{reading.name}: no telling what format this is; set input.format (jsonl, csv, tsv, text)"
            )
        async with aclosing(jsonl(_joined(head, blocks), reading)) as rows:
            async for part in rows:
                yield part


async def _joined(head: bytes, blocks: Blocks) -> AsyncGenerator[bytes, None]:
    yield head
    async with aclosing(blocks):
        async for block in blocks:
            yield block


FORMATS: dict[str, Format] = {
    "jsonl": jsonl,
    "csv": partial(delimited, delimiter=","),
    "tsv": partial(delimited, delimiter="\t"),
    "text": text,
    "auto": guessed,
}
