"""Reads records from a program: any iterable of mappings, an async one, or a pandas or polars frame."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, TypeAlias

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.background import iterate_in_thread
from pipeline.readers.rows import SPLIT_CHARACTERS, ReadContext, Row, Rows, bad_row
from pipeline.readers.source import Source
from pipeline.readers.values import to_json

#: The most records that wait in memory.
AHEAD = 256
NAME = "records"

#: What a program may pass: an iterable of mappings, an async one, or a pandas or polars frame.
RecordInput: TypeAlias = Any


def iterable_source(records: RecordInput) -> Source:
    """Return the records as a source named `records`. Raises InputError if they are not an iterable of records."""
    if isinstance(records, str | bytes | Mapping):
        raise InputError(f"records: a {type(records).__name__} is a single object; give a list of mappings")
    if not isinstance(records, Iterable | AsyncIterable) and not _is_frame(records):
        hint = "; call collect() first" if callable(getattr(records, "collect", None)) else ""
        raise InputError(f"records: a {type(records).__name__} is not iterable; give an iterable of mappings{hint}")
    read = _async_rows if isinstance(records, AsyncIterable) else _sync_rows
    rows, count = partial(read, records), partial(_count, records)
    is_iterator = isinstance(records, Iterator | AsyncIterator)
    return Source(NAME, None, "records", None, is_iterator=is_iterator, rows=rows, read_count=count)


def _count(records: RecordInput) -> int | None:
    try:
        return len(records)
    except TypeError:
        return None


def _is_frame(records: RecordInput) -> bool:
    return hasattr(records, "iter_rows") or hasattr(records, "itertuples")


def _mappings(records: RecordInput, context: ReadContext) -> Iterator[Any]:
    """Yield one mapping after another. polars frames have `iter_rows`, pandas frames `itertuples`."""
    if not _is_frame(records):
        yield from records
    elif hasattr(records, "iter_rows"):
        yield from records.iter_rows(named=True)
    else:
        columns = context.columns([str(name) for name in records.columns])
        for values in records.itertuples(index=False, name=None):
            yield dict(zip(columns, values, strict=True))


def _rows(records: RecordInput, context: ReadContext) -> Iterator[Row]:
    number = 0
    try:
        for number, record in enumerate(_mappings(records, context), 1):
            yield _row(number, record, context)
    except InputError:
        raise
    except Exception as error:
        raise _iteration_error(number, error) from error


def _row(number: int, record: Any, context: ReadContext) -> Row:
    """Return a record as a row. Raises InputError if the very first is not a mapping: then none will be."""
    if not isinstance(record, Mapping):
        trouble = f"a mapping of names to values is needed, but this is a {type(record).__name__}"
        if number == 1:
            raise InputError(f"records: record 1: {trouble}")
        return bad_row(number, _repr(record), trouble)
    try:
        fields = {str(name): to_json(value) for name, value in record.items()}
        data = codec.dumps(fields)
    except Exception as error:  # the class of a value may raise anything
        return bad_row(number, _repr(record), f"cannot be read: {_describe_error(error)}")
    if b"\\ud" in data and (whole := codec.clean(fields)) != fields:
        context.progress.note(SPLIT_CHARACTERS, context.name)
        fields, data = whole, codec.dumps(whole)
    return number, fields, codec.digest64(data), ""


def _repr(record: Any) -> bytes:
    try:
        return repr(record).encode("utf-8", "replace")
    except Exception as error:  # as above
        return f"({type(record).__name__}: {_describe_error(error)})".encode("utf-8", "replace")


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _iteration_error(number: int, error: Exception) -> InputError:
    return InputError(f"records: the iterator raised after record {number:,}: {_describe_error(error)}")


async def _sync_rows(records: RecordInput, context: ReadContext) -> Rows:
    async with aclosing(iterate_in_thread(lambda: _rows(records, context), ahead=AHEAD)) as parts:
        async for rows in parts:
            context.progress.lines_read += len(rows)
            yield rows


async def _async_rows(records: AsyncIterable[Any], context: ReadContext) -> Rows:
    """Yield the rows of an async iterable, as many as are ready. One task reads it from beginning to end."""
    queue: asyncio.Queue[Row | Exception | None] = asyncio.Queue(AHEAD)
    task = asyncio.create_task(_fill(records, queue, context), name="labelpipe-records")
    try:
        last: Row | Exception | None = (0, {}, 0, "")
        while isinstance(last, tuple):
            items = [await queue.get()]
            while not queue.empty():
                items.append(queue.get_nowait())
            last = items[-1]
            rows = [item for item in items if isinstance(item, tuple)]
            context.progress.lines_read += len(rows)
            yield rows
        if last is not None:
            raise last
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _fill(
    records: AsyncIterable[Any], queue: asyncio.Queue[Row | Exception | None], context: ReadContext
) -> None:
    number = 0
    try:
        async for record in records:
            number += 1
            await queue.put(_row(number, record, context))
    except InputError as error:
        await queue.put(error)
    except Exception as error:
        await queue.put(_iteration_error(number, error))
    else:
        await queue.put(None)
