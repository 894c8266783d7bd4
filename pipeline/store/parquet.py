"""Computes the types and values of labels.parquet, and compares the file with the ledger."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.codec import clean
from pipeline.errors import MissingExtraError
from pipeline.records import JSON, Outcome
from pipeline.store.columntypes import column_type, convert, infer_kinds
from pipeline.store.layout import Table

#: Yields all outcomes in blocks. It is called once for the types and once for the rows.
Blocks = Callable[[], AsyncIterator[list[tuple[int, Outcome]]]]


def require() -> Any:
    """Return the pyarrow package. Raises MissingExtraError."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("writing Parquet", "parquet") from None
    return pyarrow


async def column_kinds(table: Table, blocks: Blocks) -> list[str]:
    """Return each column's type by its values: bool, int64, double, or string, also for nested and mixed values."""
    kinds = ["nothing"] * len(table.titles)
    async for block in blocks():
        kinds = infer_kinds(kinds, table_rows(table, block))
    return list(map(column_type, kinds))


async def read(path: Path) -> AsyncGenerator[list[list[JSON]], None]:
    """Yield the file's rows in blocks; the first block contains only the titles."""
    pyarrow = require()
    file = await asyncio.to_thread(pyarrow.parquet.ParquetFile, path)
    try:
        yield [list(file.schema_arrow.names)]
        batches = file.iter_batches(batch_size=1024)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield [list(row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]
    finally:
        file.close()


@dataclass(slots=True)
class ParquetComparison:
    """A comparison's progress: how many rows agree, and whether the file ended before the rows or differs."""

    rows: int = 0
    ended: bool = False
    fault: str = ""


async def compare(path: Path, table: Table, blocks: Blocks) -> ParquetComparison:
    """Compare the file's values with the table's. Raises MissingExtraError, OSError, ValueError."""
    kinds = await column_kinds(table, blocks)
    result = ParquetComparison()
    async with aclosing(read(path)) as there, aclosing(_values(table, kinds, blocks)) as expected:
        if await anext(there) != [[clean(title) for title in table.titles]]:
            result.fault = "has other columns than the ledger's rows."
            return result
        async for block in there:
            for row in block:
                key, wanted = await anext(expected, ("", None))
                if row != wanted:
                    whose = f" ({key})" if wanted is not None else ", which it does not have"
                    result.fault = f"differs from the ledger in row {result.rows + 1:,}{whose}."
                    return result
                result.rows += 1
        result.ended = await anext(expected, None) is not None
    return result


async def _values(
    table: Table, kinds: Sequence[str], blocks: Blocks
) -> AsyncGenerator[tuple[str, list[JSON] | None], None]:
    """Yield the rows as they are stored, each with its record's key."""
    async for block in blocks():
        for _, outcome in block:
            if outcome.status in table.statuses:
                for row in table.rows(outcome):
                    yield outcome.record.key, list(map(convert, kinds, row))


def table_rows(table: Table, block: Sequence[tuple[int, Outcome]]) -> list[list[JSON]]:
    return [row for _, outcome in block if outcome.status in table.statuses for row in table.rows(outcome)]
