"""The text formats: each is a function from a stream of UTF-8 blocks to rows, and a dictionary chooses it."""

import re
from collections.abc import Callable
from contextlib import aclosing
from functools import partial

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.dialect import LOOK_BYTES
from pipeline.readers.json_documents import has_lines, is_one_text, json_texts
from pipeline.readers.json_rows import LINE_BYTES, json_rows, too_long
from pipeline.readers.lines import LineSplitter, cut_lines
from pipeline.readers.rows import Blocks, Reading, Row, Rows, bad_row, undecodable
from pipeline.readers.stream import joined, with_head
from pipeline.readers.table import delimited

Format = Callable[[Blocks, Reading], Rows]

#: goes before a line of text in its digest: the same line read as JSON is another record
_TEXT = b"text\0"


async def jsonl(blocks: Blocks, reading: Reading) -> Rows:
    """One JSON object a line; blank lines are skipped."""
    async with aclosing(cut_lines(blocks, reading, LineSplitter(LINE_BYTES))) as lines:
        async for first, batch in lines:
            yield list(json_rows(first, batch, reading))


async def json(blocks: Blocks, reading: Reading, *, lines: bool) -> Rows:
    """Objects, one a line or otherwise, as the beginning of the text tells; `lines` where its name says a line each."""
    async with aclosing(with_head(blocks, LOOK_BYTES, or_with=b"\n" if reading.single_pass else b"")) as found:
        head = await anext(found, b"")
        one_text = is_one_text(head) if lines else not has_lines(head)
        if reading.dialect.records:
            one_text = True  # it is one object, or refused
        elif one_text and lines:
            _tell_misnamed(reading)
        elif one_text and head.lstrip().startswith(b"["):
            reading.progress.note("looks like a JSON array: each of its objects is a record", reading.name)
        read = json_texts if one_text else jsonl
        async with aclosing(read(joined(head, found), reading)) as parts:
            async for rows in parts:
                yield rows


def _tell_misnamed(reading: Reading) -> None:
    fault = "is a JSON array or indented JSON, not an object a line"
    if reading.dialect.format_is_said:
        raise InputError(f'{reading.name}: {fault}; set input.format = "json"')
    reading.progress.note(
        f'{fault} as its name says; it is read as such. Set input.format = "json" if that is right',
        reading.name,
        doubtful=True,
    )


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
        return bad_row(number, raw, too_long())
    try:
        return number, {"text": raw.decode()}, codec.digest64(_TEXT + raw), ""
    except UnicodeDecodeError:
        return bad_row(number, raw, undecodable(raw, encoding))


async def guessed(blocks: Blocks, reading: Reading) -> Rows:
    """JSON, if the input begins like it; for stdin, which has no name to go by."""
    head = b""
    async with aclosing(blocks):
        async for block in blocks:
            head += block
            if head.strip():
                break
        if head.strip() and not re.match(rb"\s*[{\[]", head):
            raise InputError(
                f"{reading.name}: its format cannot be determined; set input.format (json, jsonl, csv, tsv, text)"
            )
        async with aclosing(json(joined(head, blocks), reading, lines=False)) as rows:
            async for part in rows:
                yield part


FORMATS: dict[str, Format] = {
    "jsonl": partial(json, lines=True),
    "json": partial(json, lines=False),
    "csv": partial(delimited, usual=","),
    "tsv": partial(delimited, usual="\t"),
    "text": text,
    "auto": guessed,
}
