"""Reads the gold records of [quality] gold, which measure a run."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import ConfigError, InputError, did_you_mean, list_names
from pipeline.gold import (
    KEY,
    MORE_GOLD_NAMES,
    MeasuredField,
    as_class,
    as_set,
    fields_of_tools,
    find_field,
    has_value,
    only_field,
)
from pipeline.parts.inputs import input_settings, resolve_inputs
from pipeline.parts.selection import is_of_shard, shard_of
from pipeline.parts.tables import delimiter_of, describe_table_error, table_source
from pipeline.quality import uniform
from pipeline.readers import Source, key_from_value, placeholder_key, read_records
from pipeline.records import JSON, Record
from pipeline.settings import InputSettings, Settings
from pipeline.task import Task

#: The most rows of gold that are read; more would add nothing.
MOST_GOLD = 20_000


@dataclass(frozen=True, slots=True)
class GoldRecords:
    """The gold records of a run, and the label field that they are about.

    `mixed` are records to ask in addition to those of the input, in random order. `right` maps the key of a record,
    mixed or from the input, to its gold value.
    """

    field: MeasuredField
    column: str
    mixed: Sequence[Record]
    right: Mapping[str, JSON]


async def gold_of(settings: Settings, task: Task) -> GoldRecords | None:
    """Return the gold of [quality], or a shard's part of it; None if none is set. Raises ConfigError."""
    gold = await _all_gold(settings, task)
    if gold is None or settings.input.shard is None:
        return gold
    shard = shard_of(settings.input.shard)
    right = {key: value for key, value in gold.right.items() if is_of_shard(key, shard)}
    return replace(gold, mixed=[record for record in gold.mixed if record.key in right], right=right)


async def _all_gold(settings: Settings, task: Task) -> GoldRecords | None:
    """Return the gold of all shards.

    If the file has the fields that the prompt shows, its records are mixed into the run. If it has only keys and
    labels, the run's own records with these keys are compared instead.
    """
    name = settings.quality.gold
    if name is None:
        return None
    path = settings.find(name)
    fields = fields_of_tools(task.fingerprint["tools"], settings.task.rows)
    records = await _records(path, [settings.input.key or KEY, KEY])
    columns = list(dict.fromkeys(column for record in records for column in record.fields))
    column = _column(settings, path, columns, fields)
    field = _field(column, fields)
    key = next((one for one in (settings.input.key, KEY) if one in columns), None)
    labelled = _first_of_each(key, [record for record in records if has_value(record.fields.get(column))])
    if not labelled:
        raise ConfigError(f"quality.gold: {path} has no value in the column {column!r}")
    _refuse_unknown(path, field, column, labelled)
    prompt_fields = _prompt_fields(task, columns, {key, column, *_gold_columns(columns, fields)})
    if not prompt_fields:
        if settings.input.key is None or key is None:
            raise ConfigError(_lacking(path, task, columns))
        return GoldRecords(field, column, (), {key_from_value(one.fields[key]): one.fields[column] for one in labelled})
    examples = _examples(task, prompt_fields)
    mixed = [
        (_canary(record, path, key, {column, *_gold_columns(columns, fields)}, prompt_fields), record.fields[column])
        for record in labelled
        if _values(record.fields, prompt_fields) not in examples
    ]
    mixed = list({record.key: (record, right) for record, right in reversed(mixed)}.values())
    mixed.sort(key=lambda one: uniform(0, "canary", one[0].key))
    numbered = [replace(record, ordinal=-place) for place, (record, _) in enumerate(mixed, 1)]
    return GoldRecords(field, column, numbered, {record.key: right for record, right in mixed})


async def _records(path: Path, keys: Iterable[str]) -> list[Record]:
    if not await asyncio.to_thread(path.is_file):
        raise ConfigError(f"quality.gold: {path} is not there: expected a CSV or JSONL file with the right labels")
    records: list[Record] = []
    try:
        source = table_source(path, next(iter(keys)))
        async with aclosing(read_records([source], limit=MOST_GOLD)) as batches:
            async for batch in batches:
                records += batch
    except InputError as error:
        raise ConfigError(f"quality.gold: {describe_table_error(error)}") from None
    if bad := next((record for record in records if record.problem is not None), None):
        reason = bad.problem.message if bad.problem else ""
        raise ConfigError(f"quality.gold: {path}:{bad.line} cannot be read: {reason}")
    return records


def _column(settings: Settings, path: Path, columns: Sequence[str], fields: Mapping[str, MeasuredField]) -> str:
    """Return the column that contains the gold."""
    name = settings.quality.gold_column
    if name is not None:
        if name not in columns:
            raise ConfigError(
                f"quality.gold_column = {name!r}: {path} has no such column{did_you_mean(name, columns)}; it has "
                f"{list_names(columns)}"
            )
        return name
    candidates = [column for column in columns if find_field(column, fields, MORE_GOLD_NAMES)]
    if len(candidates) == 1:
        return candidates[0]
    what = (
        f"several columns of labels ({list_names(candidates)})"
        if candidates
        else f"no column of labels; it has {columns}"
    )
    raise ConfigError(f"quality.gold: {path} has {what}: name one in quality.gold_column")


def _field(column: str, fields: Mapping[str, MeasuredField]) -> MeasuredField:
    if (name := find_field(column, fields, MORE_GOLD_NAMES)) is not None:
        return fields[name]
    if (only := only_field(fields)) is not None:
        return fields[only]
    raise ConfigError(
        f"quality.gold_column = {column!r} belongs to no label field: call it like one of {list_names(fields)}, or "
        "gold_ and that name"
    )


def _first_of_each(key: str | None, records: Sequence[Record]) -> list[Record]:
    """Return the records, without repeated keys."""
    if key is None:
        return list(records)
    names = [key_from_value(record.fields.get(key)) or f"line {record.line}" for record in records]
    return list(dict(zip(reversed(names), reversed(records), strict=True)).values())[::-1]


def _refuse_unknown(path: Path, field: MeasuredField, column: str, labelled: Sequence[Record]) -> None:
    """Raise ConfigError for a gold label that the task does not have: no answer could equal it."""
    for record in labelled if field.values else ():
        value = record.fields[column]
        labels = as_set(field, value) if field.kind == "set" else {as_class(field, value)}
        for name in sorted(labels.difference(field.values)):
            raise ConfigError(
                f"quality.gold: {path}:{record.line}: {name!r} in {column!r} is not a value of {field.name}"
                f"{did_you_mean(name, field.values)}; it has {list_names(field.values)}. "
                "Correct the cell, or leave it empty"
            )


def _gold_columns(columns: Iterable[str], fields: Mapping[str, MeasuredField]) -> set[str]:
    """Return the columns with gold of any field. No prompt may show them."""
    return {column for column in columns if find_field(column, fields, MORE_GOLD_NAMES)}


def _prompt_fields(task: Task, columns: Sequence[str], others: set[str | None]) -> tuple[str, ...]:
    """Return the fields that a gold record's prompt shows; () if the file lacks one."""
    fields = sorted(task.fields) or [column for column in columns if column not in others]
    return tuple(fields) if set(fields) <= set(columns) else ()


def _lacking(path: Path, task: Task, columns: Sequence[str]) -> str:
    missing = ", ".join(sorted(task.fields - set(columns))) or "a text"
    return (
        f"quality.gold: {path} lacks {missing}, which the prompt shows, so its records cannot be mixed into the run; "
        "and without input.key the run's own records cannot be told by their keys. Add the column, or set input.key"
    )


def _canary(record: Record, path: Path, key: str | None, hidden: set[str], prompt_fields: Sequence[str]) -> Record:
    fields = {name: value for name, value in record.fields.items() if name not in hidden}
    # Neither rows added above nor columns that the prompt does not show change the name.
    content = codec.digest64(codec.canonical({name: fields.get(name) for name in prompt_fields})) % 2**64
    name = (key_from_value(record.fields.get(key)) if key else "") or f"{path.name}:{content:016x}"
    # No key from a field looks like a placeholder.
    placeholder = placeholder_key(f"gold {name}")
    return replace(record, key=placeholder, fields=fields, digest=codec.digest64(codec.canonical(fields)))


def _examples(task: Task, prompt_fields: Sequence[str]) -> set[tuple[bytes, ...]]:
    """Return the prompt's examples. The model sees their labels, so they prove nothing."""
    examples: Sequence[Mapping[str, Any]] = task.fingerprint.get("examples") or ()
    return {_values(example, prompt_fields) for example in examples}


def _values(fields: Mapping[str, JSON], names: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(codec.canonical(fields.get(name)) for name in names)


# -- a gold file as a source -------------------------------------------------------------------------------------------


def gold_source(path: str, sets: Sequence[str] = (), keys: Sequence[str] = ()) -> Source:
    """Return a gold file, in any input format, as a source. Raises SetupError.

    `sets` are [input] settings for reading it, such as `input.encoding=cp1252`. `keys` are columns, one of which it
    has. If its first line contains one, that line is the header and determines the delimiter.
    """
    try:
        sources = resolve_inputs(path, _input_options(path, sets, _header_of(path, keys)), Path(), None, secret=False)
    except InputError as error:
        raise InputError(str(error).replace("input.path", "gold")) from error
    if len(sources) != 1:
        raise InputError(f"gold: {path} names {len(sources)} files; expected one")
    return sources[0]


def _header_of(path: str, keys: Sequence[str]) -> dict[str, Any]:
    file = Path(path)
    if not file.is_file():
        return {}
    try:
        delimiter = next(filter(None, (delimiter_of(file, key) for key in keys)), None)
    except OSError:  # reported when the file is read
        return {}
    return (
        {}
        if delimiter is None
        else {"delimiter": delimiter, "header": True, "skip_lines": 0, "skip_initial_space": True}
    )


def _input_options(path: str, sets: Sequence[str], header: Mapping[str, Any]) -> InputSettings:
    """Return how to read a file that is not in the config, from these arguments only, not from the run's [input]."""
    values: dict[str, Any] = {"path": path, **header}
    if sets:
        settings, keys = input_settings(path, sets)
        for key in keys:
            if not key.startswith("input.") or key == "input.path":
                raise ConfigError(f"--set {key}: only keys that say how the file is read, like input.encoding")
        values |= {name: getattr(settings.input, name) for name in (key.removeprefix("input.") for key in keys)}
    return InputSettings(**values)
