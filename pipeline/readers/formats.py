"""Maps the names of the text formats to functions that turn a stream of UTF-8 blocks into rows."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.dialect import LOOK_BYTES
from pipeline.readers.json_documents import has_object_per_line, is_single_document, json_documents
from pipeline.readers.json_rows import LINE_BYTES, describe_long_line, json_rows
from pipeline.readers.lines import LineSplitter, split_lines
from pipeline.readers.rows import Blocks, ReadContext, Row, Rows, bad_row, describe_decoding_error
from pipeline.readers.stream import prepend, with_head
from pipeline.readers.table import delimited

Format = Callable[[Blocks, ReadContext], Rows]

#: Precedes a line of text in its digest: the same line read as JSON is another record.
_TEXT = b"text\0"


async def _rows_by_line(
    blocks: Blocks, context: ReadContext, *, to_rows: Callable[[int, Sequence[bytes], ReadContext], Iterator[Row]]
) -> Rows:
    async with aclosing(split_lines(blocks, context, LineSplitter(LINE_BYTES))) as lines:
        async for first, batch in lines:
            yield list(to_rows(first, batch, context))


#: One JSON object per line. Blank lines are skipped.
jsonl = partial(_rows_by_line, to_rows=json_rows)


async def json(blocks: Blocks, context: ReadContext, *, lines: bool) -> Rows:
    """Yield objects, one per line or otherwise, as the text begins. `lines`: its name says one per line."""
    async with aclosing(with_head(blocks, LOOK_BYTES, or_with=b"\n" if context.single_pass else b"")) as stream:
        head = await anext(stream, b"")
        one_text = is_single_document(head) if lines else not has_object_per_line(head)
        if context.dialect.records:
            one_text = True  # it is one object, or it is refused
        elif one_text and lines:
            _note_misnamed(context)
        elif one_text and head.lstrip().startswith(b"["):
            context.progress.note("looks like a JSON array: each of its objects is a record", context.name)
        read = json_documents if one_text else jsonl
        async with aclosing(read(prepend(head, stream), context)) as parts:
            async for rows in parts:
                yield rows


def _note_misnamed(context: ReadContext) -> None:
    fault = "is a JSON array or indented JSON, not an object a line"
    if context.dialect.format_is_explicit:
        raise InputError(f'{context.name}: {fault}; set input.format = "json"')
    context.progress.note(
        f'{fault} as its name says; it is read as such. Set input.format = "json" if that is right',
        context.name,
        doubtful=True,
    )


def _text_rows(first: int, batch: Sequence[bytes], context: ReadContext) -> Iterator[Row]:
    """Yield each line as the field `text`. Blank lines are skipped."""
    for number, line in enumerate(batch, first):
        raw = line.removesuffix(b"\r")
        if not line.strip():
            continue
        if len(raw) > LINE_BYTES:
            yield bad_row(number, raw, describe_long_line())
            continue
        try:
            yield number, {"text": raw.decode()}, codec.digest64(_TEXT + raw), ""
        except UnicodeDecodeError:
            yield bad_row(number, raw, describe_decoding_error(raw, context.encoding))


async def auto(blocks: Blocks, context: ReadContext) -> Rows:
    """Yield JSON if the input begins like it. This is for stdin, which has no name that shows its format."""
    head = b""
    async with aclosing(blocks):
        async for block in blocks:
            head += block
            if head.strip():
                break
        if head.strip() and not re.match(rb"\s*[{\[]", head):
            raise InputError(
                f"{context.name}: its format cannot be determined; set input.format (json, jsonl, csv, tsv, text)"
            )
        async with aclosing(json(prepend(head, blocks), context, lines=False)) as rows:
            async for part in rows:
                yield part


FORMATS: dict[str, Format] = {
    "jsonl": partial(json, lines=True),
    "json": partial(json, lines=False),
    "csv": partial(delimited, usual=","),
    "tsv": partial(delimited, usual="\t"),
    "text": partial(_rows_by_line, to_rows=_text_rows),
    "auto": auto,
}
