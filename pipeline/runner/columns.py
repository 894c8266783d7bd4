"""Checks, before any call, that records of the input have the columns that `output.columns` names."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from pipeline.errors import InputError, SetupError, did_you_mean, list_names
from pipeline.readers import FILE_FORMATS, ReadProgress, Records, Source, read_records
from pipeline.records import Record
from pipeline.runner.opening import is_local
from pipeline.settings import Settings

#: How many records of a remote source are checked for a missing column.
LOOKED_AT = 1_000
#: Formats in which all records of a source have the same fields.
_TABLES = frozenset({"csv", "tsv", "parquet", "sql", "dataset"}) | FILE_FORMATS
#: The field with what could be recovered of an unreadable record. No other record has it.
_RAW = "raw"


@dataclass(slots=True)
class ColumnCheck:
    """The fields seen so far, and the wanted columns that are not among them. Both change."""

    missing: list[str]
    field_names: dict[str, None]

    @classmethod
    def of(cls, settings: Settings) -> ColumnCheck:
        """Return a check that has seen no fields yet."""
        return cls([name for name in settings.output.columns or () if name != _RAW], {})

    def add(self, records: Sequence[Record]) -> bool:
        """Add the fields of these records. Return whether any of them can be read."""
        good = [record for record in records if record.problem is None or record.problem.code != "unreadable"]
        for record in good:
            self.field_names |= dict.fromkeys(record.fields)
        self.missing = [name for name in self.missing if name not in self.field_names]
        return bool(good)

    @property
    def message(self) -> str:
        """What is wrong; empty if nothing is, or if no record could be read."""
        if not self.missing or not self.field_names:
            return ""
        name, fields = self.missing[0], self.field_names
        return f"output.columns: no record has {name!r}{did_you_mean(name, fields)}; it has {list_names(fields)}"


async def validate_columns(settings: Settings, sources: Sequence[Source]) -> None:
    """Open each source to find bad headers and encodings now. Raises SetupError, also for unknown columns."""
    if message := (await check_columns(settings, sources)).message:
        raise SetupError(message)


async def check_columns(settings: Settings, sources: Sequence[Source]) -> ColumnCheck:
    """Open each source, and collect fields until all wanted columns were seen.

    A column does not count as missing if a record that was not checked may have it.
    """
    fields, sure = ColumnCheck.of(settings), True
    for source in sources:
        sure &= not source.single_pass and await _read_fields(source, fields, settings.input.key)
    return fields if sure else ColumnCheck([], fields.field_names)


async def _read_fields(source: Source, fields: ColumnCheck, key: str | None) -> bool:
    """Add the fields of a source. Return whether nothing else in it could have a missing column."""
    limit = None if is_local(source) else LOOKED_AT
    count = 0
    async with aclosing(read_records([source], key=key, limit=limit)) as batches:
        async for records in batches:
            count += len(records)
            is_complete = fields.add(records) and source.format in _TABLES
            if is_complete or not fields.missing:
                return True
    return count != limit


async def check_columns_as_read(
    batches: Records, settings: Settings, sources: Sequence[Source], reading: ReadProgress
) -> AsyncGenerator[list[Record], None]:
    """Yield the records of sources that can be read only once. Raises InputError if the first lack a column.

    A JSON object may have a column that others lack, so for those it is reported at the end.
    """
    fields = ColumnCheck.of(settings)
    is_table = all(source.format in _TABLES for source in sources)
    async with aclosing(batches):
        async for batch in batches:
            if fields.missing:
                fields.add(batch)
                if is_table and fields.message:
                    raise InputError(fields.message)
            yield batch
    if fields.message:
        reading.note(fields.message, sources[0].name, doubtful=True)
