"""Reads sources as numbered records."""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from pipeline import codec
from pipeline.errors import InputError, did_you_mean, list_names
from pipeline.files import CHUNK_BYTES
from pipeline.readers.arrow import count_rows, parquet
from pipeline.readers.formats import FORMATS
from pipeline.readers.rows import BrokenStreamError, ReadContext, ReadProgress, Row, Rows
from pipeline.readers.source import Source
from pipeline.readers.stream import utf8_blocks
from pipeline.records import JSON, Problem, Record
from pipeline.threads import in_daemon

#: The form of made-up keys. A given key of this form gets one more backslash, so that no two keys are ever equal.
_LIKE_MADE_UP = re.compile(r"\\*\(.*:\d+\)", re.DOTALL)

Records = AsyncGenerator[list[Record], None]
BATCH = 256  #: The most records that are yielded at once.


async def read_records(
    sources: Sequence[Source],
    *,
    key: str | None = None,
    limit: int | None = None,
    progress: ReadProgress | None = None,
    batch: int = BATCH,
    chunk_bytes: int = CHUNK_BYTES,
) -> Records:
    """Yield the records of all sources in order, in batches of 1 to `batch`; at most `limit` records, good or bad.

    A record that cannot be read, or has no usable `key` field, has a `problem`. Raises InputError if a source as a
    whole cannot be read. Close the generator (`contextlib.aclosing`) if you leave it early.
    """
    progress = ReadProgress() if progress is None else progress
    await _set_totals(sources, limit, progress)
    count = 0
    for source in sources:
        if count == limit:
            break
        context = _context(source, batch, progress)
        before = progress.lines_read
        async with aclosing(_rows_or_error(source, context, chunk_bytes)) as parts:
            async for rows in parts:
                for start in range(0, len(rows), batch):
                    most = batch if limit is None else min(batch, limit - count)
                    if records := _to_records(rows[start : start + most], source, context.unit, count, key):
                        count += len(records)
                        progress.records = count
                        progress.lines_done = before + records[-1].line
                        yield records
                if count == limit:
                    break
    progress.exact_total = count


async def read_rows(source: Source, *, batch: int = BATCH) -> Rows:
    """Yield the rows of one source, without records and digests, which is much faster. Raises InputError.

    The problem of a row includes its place.
    """
    context = _context(source, batch, ReadProgress(), digests=False)
    async with aclosing(_rows_or_error(source, context, CHUNK_BYTES)) as parts:
        async for rows in parts:
            if any(row[-1] for row in rows):
                rows = [_with_place(row, source, context.unit) for row in rows]  # noqa: PLW2901
            yield rows


async def peek(
    source: Source, *, n: int = 50, key: str | None = None, progress: ReadProgress | None = None
) -> list[Record]:
    """Return the first `n` records without reading everything. `progress` receives the notes about the source.

    Raises InputError for stdin, pipes, and streams, which can be read only once and so not here.
    """
    if source.single_pass:
        raise InputError(f"{source.name}: cannot be examined before the run; it can be read only once")
    first: list[Record] = []
    async with aclosing(read_records([source], key=key, limit=n, progress=progress)) as batches:
        async for records in batches:
            first += records
    return first


async def _set_totals(sources: Sequence[Source], limit: int | None, progress: ReadProgress) -> None:
    """Set what is known about the total before anything is read."""
    sizes = [source.size_bytes for source in sources]
    progress.bytes_total = None if None in sizes else sum(size or 0 for size in sizes)
    progress.limit = limit
    total = 0
    for source in sources:
        count = await in_daemon(partial(_count, source))
        if count is None:
            return
        total += count
    progress.exact_total = total if limit is None else min(limit, total)


def _context(source: Source, batch: int, progress: ReadProgress, *, digests: bool = True) -> ReadContext:
    return ReadContext(
        source.name, source.dialect, batch, progress, source.single_pass, digests=digests, unit=source.unit
    )


def _with_place(row: Row, source: Source, unit: str) -> Row:
    """Add the place to the row's problem, unless the row has a name of its own, like a file."""
    line, fields, digest, trouble = row
    if trouble and source.key_field is None:
        trouble = f"{source.name}, {unit} {line}: {trouble}"
    return line, fields, digest, trouble


def _add_notes(source: Source, progress: ReadProgress) -> None:
    for note in source.notes:
        progress.note(note, source.name)
    if source.partition:
        progress.note(f"its folders' names give the columns {', '.join(source.partition)}", source.name)


def _add_partition(rows: list[Row], source: Source, progress: ReadProgress) -> list[Row]:
    """Add the columns from the folders' names to the rows. A column of the file itself wins."""
    if not source.partition:
        return rows
    partition = codec.digest64(codec.canonical(dict(source.partition)))
    result = []
    for line, fields, digest, trouble in rows:
        for column in fields.keys() & source.partition.keys():
            progress.note(f"the column {column!r} is the file's own, not what its folder's name says", source.name)
        more = {} if trouble else {name: value for name, value in source.partition.items() if name not in fields}
        result.append((line, fields | more, digest ^ partition, trouble))
    return result


def _count(source: Source) -> int | None:
    """Return the number of records if it is known before they are read; otherwise None."""
    if source.format == "parquet" and source.path is not None:
        return count_rows(source.path, source.name)
    return source.read_count()


async def _rows_or_error(source: Source, context: ReadContext, chunk_bytes: int) -> Rows:
    """Yield the rows of a source. If it breaks off, one unreadable row replaces the rest."""
    _add_notes(source, context.progress)
    try:
        async with aclosing(_rows(source, context, chunk_bytes)) as parts:
            async for rows in parts:
                yield _add_partition(rows, source, context.progress)
    except BrokenStreamError as error:
        yield _add_partition([error.row()], source, context.progress)


def _rows(source: Source, context: ReadContext, chunk_bytes: int) -> Rows:
    if source.rows is not None:
        return source.rows(context)
    if source.format == "parquet" and source.path:
        return parquet(source.path, source.size_bytes or 0, context)
    blocks = utf8_blocks(source, context, chunk_bytes=chunk_bytes)
    return FORMATS[source.format](blocks, context)


def _to_records(rows: list[Row], source: Source, unit: str, ordinal: int, key: str | None) -> list[Record]:
    """Create the records of rows, numbered from `ordinal`."""
    name = source.name
    field = key or source.key_field
    records = []
    for line, fields, digest, trouble in rows:
        if trouble:
            records.append(_unreadable(source, unit, ordinal, (line, fields, digest, trouble), key))
        elif field is None:
            records.append(Record(name, ordinal, f"{name}:{line}", fields, line, digest))
        else:
            value = fields.get(field)
            # A given key that begins like a made-up one is rare, and its first character shows that it may be.
            if type(value) is str and value and value[0] not in "(\\":
                records.append(Record(name, ordinal, value, fields, line, digest))
            else:
                records.append(_with_key(Record(name, ordinal, "", fields, line, digest), field, unit))
        ordinal += 1
    return records


def _unreadable(source: Source, unit: str, ordinal: int, row: Row, key: str | None) -> Record:
    """Create the record of a row that cannot be read."""
    line, fields, digest, problem = _with_place(row, source, unit)
    place = f"{source.name}:{line}"
    name = placeholder_key(place) if key else str(fields[source.key_field]) if source.key_field else place
    return Record(source.name, ordinal, name, fields, line, digest, Problem("unreadable", problem))


def _with_key(record: Record, key: str, unit: str) -> Record:
    """Return the record with the key from its field, or with a problem if there is none."""
    value = record.fields.get(key)
    name = key_from_value(value)
    if name:
        return replace(record, key=name)
    absence = f"is missing; the fields are {list_names(record.fields)}{did_you_mean(key, record.fields)}"
    what = _describe_value(value) if key in record.fields else absence
    problem = Problem("no_key", f"{record.source}, {unit} {record.line}: the key field {key!r} {what}")
    return replace(record, key=placeholder_key(f"{record.source}:{record.line}"), problem=problem)


def _describe_value(value: JSON) -> str:
    if value is None:
        return "is null"
    return "is empty" if value == "" else f"is a {type(value).__name__}, not a name"


def placeholder_key(place: str) -> str:
    """Return the key of a record without one, in an input with a key field: its place, as in `(in.csv:3)`."""
    return f"({place})"


def key_from_value(value: JSON) -> str:
    """Return a field's value as a key; empty if it cannot be one.

    1, 1.0, and "1" are the same key, because files change the types of numbers.
    """
    if isinstance(value, str):
        return f"\\{value}" if _LIKE_MADE_UP.fullmatch(value) else str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value) if isinstance(value, int) else ""
