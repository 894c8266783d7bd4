"""The columns that `output.columns` names: whether any record of the input has them, asked before a call is made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from pipeline.errors import InputError, SetupError, did_you_mean, list_names
from pipeline.readers import FILE_FORMATS, ReadProgress, Records, Source, read_records
from pipeline.records import Record
from pipeline.runner.opening import is_local
from pipeline.settings import Settings

#: Records of a source that is not on this machine that are looked at for a column that the others before lack.
LOOKED_AT = 1_000
#: Formats in which all records of a source have the same fields.
_TABLES = frozenset({"csv", "tsv", "parquet", "sql", "dataset"}) | FILE_FORMATS
#: What can be saved of an unreadable record is in this field, which no other record has.
_RAW = "raw"


@dataclass(slots=True)
class ColumnCheck:
    """The fields seen so far, and the wanted columns that are not among them. Both change."""

    missing: list[str]
    field_names: dict[str, None]

    @classmethod
    def of(cls, settings: Settings) -> ColumnCheck:
        """None seen yet."""
        return cls([name for name in settings.output.columns or () if name != _RAW], {})

    def add(self, records: Sequence[Record]) -> bool:
        """The fields of so many more records; gives whether any of them can be read."""
        good = [record for record in records if record.problem is None or record.problem.code != "unreadable"]
        for record in good:
            self.field_names |= dict.fromkeys(record.fields)
        self.missing = [name for name in self.missing if name not in self.field_names]
        return bool(good)

    @property
    def message(self) -> str:
        """What is wrong; empty where nothing is, or no record could be read."""
        if not self.missing or not self.field_names:
            return ""
        name, fields = self.missing[0], self.field_names
        return f"output.columns: no record has {name!r}{did_you_mean(name, fields)}; it has {list_names(fields)}"


async def validate_columns(settings: Settings, sources: Sequence[Source]) -> None:
    """Open each source, so that a bad header or encoding is told now. Raises SetupError, also for unknown columns."""
    if message := (await check_columns(settings, sources)).message:
        raise SetupError(message)


async def check_columns(settings: Settings, sources: Sequence[Source]) -> ColumnCheck:
    """The fields of the records, until all wanted columns were seen; each source is opened.

    Where some record that cannot be looked at may have a column, it is not missing.
    """
    fields, sure = ColumnCheck.of(settings), True
    for source in sources:
        sure &= not source.single_pass and await _read_fields(source, fields, settings.input.key)
    return fields if sure else ColumnCheck([], fields.field_names)


async def _read_fields(source: Source, fields: ColumnCheck, key: str | None) -> bool:
    """Add the fields of a source; gives whether these are all that it has, as far as any column is missing."""
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
    """The same records, of sources that can be read once only. Raises InputError where the first lack a column.

    A JSON object may have a column that others lack: of those it is told at the end.
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
