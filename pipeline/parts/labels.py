"""Builds the label fields of [task.labels], and reads files of labels."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import ConfigError, InputError, did_you_mean, list_names
from pipeline.labelfields import Choice, LabelField, json_identity
from pipeline.parts.tables import describe_table_error, plain_name, table_source
from pipeline.readers import peek
from pipeline.records import Record
from pipeline.settings import Settings, label_field

#: The columns of a file of labels.
LABEL, DESCRIPTION, EXAMPLES = "label", "description", "examples"
#: A longer file cannot be labels: a schema takes a thousand values.
MOST_ROWS = 5_000


def label_fields(settings: Settings) -> dict[str, LabelField]:
    """Return the fields of [task.labels]; {} if something else defines the labels. Raises ConfigError."""
    return fields_of_forms(settings, settings.task.labels or {}, "task.labels")


def fields_of_forms(settings: Settings, forms: Mapping[str, Any], key: str) -> dict[str, LabelField]:
    """Return the label fields of the forms under `key`. Raises ConfigError for an invalid file of labels."""
    return {name: _read(settings, label_field(form), f"{key}.{name}") for name, form in forms.items()}


def _read(settings: Settings, field: LabelField, key: str) -> LabelField:
    if field.file is None:
        return field
    path = label_file(settings, field.file)
    return replace(field, choices=tuple(_choices(path, _records(path, key), key)), file=None)


def label_file(settings: Settings, name: str) -> Path:
    """Return the path of a file of labels: next to the config, or else as for any other path of the config.

    The current directory comes second here, because a run also writes a `labels.csv`.
    """
    beside = settings.config_path and settings.config_path.parent / name
    return beside if beside and beside.is_file() else settings.find(name)


def _records(path: Path, key: str) -> list[Record]:
    if not path.is_file():
        raise ConfigError(f"{key}: {path} is not there: expected a file with the columns {LABEL} and {DESCRIPTION}")
    try:
        source = table_source(path, LABEL)
        # In its own loop, because the caller may be in one. The file is small.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, peek(source, n=MOST_ROWS + 1)).result()
    except InputError as error:
        raise ConfigError(f"{key}: {describe_table_error(error)}") from error


def _choices(path: Path, records: Sequence[Record], key: str) -> Iterator[Choice]:
    if len(records) > MOST_ROWS:
        raise ConfigError(f"{key}: {path} has more than {MOST_ROWS:,} rows: a field takes at most 1,000 labels")
    if not records:
        raise ConfigError(f"{key}: {path} contains no labels: expected one row per label")
    _refuse_columns(path, records, key)
    lines: dict[tuple[bool, object], int] = {}
    for record in records:
        place = f"{path}:{record.line}: {key}"
        if record.problem is not None:
            raise ConfigError(f"{place}: {record.problem.message}")
        choice = _choice(record, place)
        before = lines.setdefault(json_identity(choice.value), record.line)
        if before != record.line:
            raise ConfigError(f"{place}: the label {choice.value!r} is in line {before} already: remove one of them")
        yield choice


def _choice(record: Record, place: str) -> Choice:
    fields = {plain_name(name): value for name, value in record.fields.items()}
    if LABEL not in fields:
        there = list_names(record.fields) + did_you_mean(LABEL, record.fields)
        raise ConfigError(f"{place}: no column {LABEL!r}; there are {there}")
    value = fields[LABEL]
    if isinstance(value, str):
        value = value.strip()
    if value in ("", None) or not isinstance(value, str | int | float):
        raise ConfigError(f"{place}: the label is {_excerpt(value)}: expected a text, a number, true or false")
    return Choice(value, _text(fields, DESCRIPTION, place), _examples(fields.get(EXAMPLES), place))


def _refuse_columns(path: Path, records: Sequence[Record], key: str) -> None:
    """Raise ConfigError if a file has other columns, but none with the meanings of the labels."""
    names = dict.fromkeys(name for record in records if record.problem is None for name in record.fields)
    others = [name for name in names if plain_name(name) not in (LABEL, EXAMPLES)]
    if others and DESCRIPTION not in map(plain_name, names):
        raise ConfigError(
            f"{key}: {path} has no column {DESCRIPTION!r}, but {others[0]!r}; the columns of a file of labels are "
            f"{LABEL}, {DESCRIPTION} and, optionally, {EXAMPLES}"
        )


def _text(fields: Mapping[str, Any], name: str, place: str) -> str:
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return (value or "").strip()
    raise ConfigError(f"{place}: {name} is {_excerpt(value)}: expected a text")


def _examples(value: Any, place: str) -> tuple[str, ...]:
    """Return the examples of a cell: one text, or a JSON list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = codec.loads(value)
        except codec.JSONDecodeError:
            return (value.strip(),)
    texts = [value] if isinstance(value, str) else value or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{place}: {EXAMPLES} is {_excerpt(value)}: expected a text, or a JSON list of texts")
    return tuple(text.strip() for text in texts if text.strip())


def _excerpt(value: Any) -> str:
    return "empty" if value in ("", None) else codec.dumps(value).decode()[:60]
