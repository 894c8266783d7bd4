"""The rows of a file that a person or another tool has written: CSV as a spreadsheet writes it, JSON Lines, Parquet."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.readers import TextDialect, read_records, resolve_sources
from pipeline.records import JSON
from pipeline.threads import in_daemon


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row: its values by their titles, and its line in the file."""

    line: int
    values: Mapping[str, JSON]


async def read_file_rows(path: Path) -> AsyncGenerator[list[FileRow], None]:
    """The rows of a file, in blocks. Its encoding, delimiter and line ends are found out.

    Raises InputError for a file, or a row of it, that cannot be read.
    """
    if not await in_daemon(path.is_file):
        raise InputError(f"{path}: there is no such file")
    sources = await in_daemon(lambda: resolve_sources(path.as_posix(), base=Path(), dialect=TextDialect(header=True)))
    async with aclosing(read_records(sources)) as batches:
        async for records in batches:
            for record in records:
                if record.problem is not None:
                    raise InputError(f"{record.problem.message}. Nothing was imported from the file.")
            yield [FileRow(record.line, record.fields) for record in records]
