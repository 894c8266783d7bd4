"""The text formats: each is a function from a stream of UTF-8 blocks to rows, and a dictionary chooses it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import aclosing
from functools import partial

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.lines import LineSplitter, cut_lines
from pipeline.readers.rows import CUT_IN_TWO, Blocks, Reading, Row, Rows, bad_row, undecodable
from pipeline.readers.stream import joined
from pipeline.readers.table import delimited
from pipeline.records import JSON

Format = Callable[[Blocks, Reading], Rows]

LINE_BYTES = 64 * 1024 * 1024  #: a longer line of JSONL or text is unreadable; it is never held whole
_EXCERPT_CHARS = 80
#: goes before a line of text in its digest: the same line read as JSON is another record
_TEXT = b"text\0"


async def jsonl(blocks: Blocks, reading: Reading) -> Rows:
    """One JSON object a line; blank lines are skipped."""
    async with aclosing(cut_lines(blocks, reading, LineSplitter(LINE_BYTES))) as lines:
        async for first, batch in lines:
            yield list(_json_rows(first, batch, reading))


def _json_rows(first: int, batch: list[bytes], reading: Reading) -> Iterator[Row]:
    # Numbers that lose digits are rare: a look at all lines at once is cheaper than one at each.
    loads = codec.loads_numbers if codec.may_lose_digits(b"\n".join(batch)) else codec.loads
    for number, line in enumerate(batch, first):
        raw = line.rstrip(b"\r")
        if len(raw) > LINE_BYTES:
            yield bad_row(number, raw, _too_long())
            continue
        try:
            value = loads(raw)
        except (ValueError, RecursionError) as error:
            if not raw.strip():
                continue
            value = _loosely(raw, reading)
            if value is None:
                yield bad_row(number, raw, _json_trouble(raw, error, reading.encoding))
                continue
        if type(value) is dict:
            yield number, value, codec.digest64(raw), ""
        else:
            yield bad_row(number, raw, _not_an_object(value))


def _loosely(raw: bytes, reading: Reading) -> JSON:
    """The value of a line that is no JSON only for what other programs write; None where that is not all."""
    try:
        value = codec.loads_loosely(raw)
    except ValueError:
        return None
    if b"\\u" in raw and "\ufffd" in str(value):
        reading.progress.note(CUT_IN_TWO, reading.name)
    return value


def _json_trouble(raw: bytes, error: Exception, encoding: str) -> str:
    if trouble := undecodable(raw, encoding):
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
        return bad_row(number, raw, undecodable(raw, encoding))


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
        async with aclosing(jsonl(joined(head, blocks), reading)) as rows:
            async for part in rows:
                yield part


FORMATS: dict[str, Format] = {
    "jsonl": jsonl,
    "csv": partial(delimited, usual=","),
    "tsv": partial(delimited, usual="\t"),
    "text": text,
    "auto": guessed,
}
