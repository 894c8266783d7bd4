"""Opens a run for measuring: its label fields, how its records are named, and the examples that the model saw."""

from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError, did_you_mean, list_names
from pipeline.gold import GOLD_NAMES, MeasuredField, class_name, fields_of_tools, find_field, infer_kind, only_field
from pipeline.labelfields import Rename
from pipeline.readers import key_from_value
from pipeline.records import JSON
from pipeline.store import LabelRow, Ledger, RunDir, renames_of
from pipeline.targets import merged_run_and_manifest
from pipeline.task import fields_in_prompt

#: How many labels to sample for the kind of a field, if its schema does not show it.
VALUES_SAMPLED = 2_000
#: The columns that labelpipe adds.
_OWN_COLUMNS = frozenset({"row_key", "simulated", "agreement", "votes", "needs_review", "reviewed"})
#: The keys of an example that are not fields of a record.
_NO_FIELDS = frozenset({"label", "tool"})
#: A name for the gold column of the only label field.
_GOLD = "gold"


class Examples:
    """The records whose labels the model saw in its prompt: its labels for them prove nothing."""

    def __init__(self, examples: Sequence[Mapping[str, JSON]], key: str | None, prompt_fields: frozenset[str]) -> None:
        self._keys = {key_from_value(example.get(name)) for example in examples for name in (key, "key") if name} - {""}
        self._texts: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        for example in examples:
            names = tuple(
                sorted(
                    name for name in example if name not in _NO_FIELDS and (not prompt_fields or name in prompt_fields)
                )
            )
            if names:
                self._texts.setdefault(names, set()).add(_values(example, names))

    def __bool__(self) -> bool:
        return bool(self._keys or self._texts)

    def has(self, key: str, fields: Mapping[str, JSON] | None) -> bool:
        """Whether this record is one of them: by its key, or because its prompt shows the same."""
        if key in self._keys:
            return True
        return any(_values(fields or {}, names) in texts for names, texts in self._texts.items())


def _values(fields: Mapping[str, JSON], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(class_name(fields.get(name)) for name in names)


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A run whose ledger is open for reading. `fields` are the label fields by column.

    `key` is the input's field that names a record; None if its place does. `prompt_fields` are the record's fields that
    the prompt names, and `field_names` all that were found in records. `row_fields` are the label fields that each row
    of a record has for itself. `own_columns` are the label columns that labelpipe added.
    """

    run_dir: RunDir
    manifest: Mapping[str, Any]
    ledger: Ledger
    fields: Mapping[str, MeasuredField]
    key: str | None
    prompt_fields: frozenset[str]
    examples: Examples
    simulated: bool
    running: bool
    row_fields: frozenset[str]
    own_columns: frozenset[str]
    field_names: tuple[str, ...]

    def field(self, name: str, option: str = "--field") -> MeasuredField:
        """Return the label field of this name. Raises SetupError."""
        if name not in self.fields:
            raise SetupError(
                f"{option} {name}: the run in {self.run_dir.path} has no such label field"
                f"{did_you_mean(name, self.fields)}; it has {list_names(self.fields)}"
            )
        return self.fields[name]


@asynccontextmanager
async def open_measured_run(named: str | Path | None, ordered: Sequence[str] = ()) -> AsyncGenerator[MeasuredRun, None]:
    """Open the named run, and find out what must be known before its labels are read. Raises SetupError."""
    run_dir, manifest = await merged_run_and_manifest(named)
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        yield await _measured_run(run_dir, manifest, ledger, ordered)


async def _measured_run(
    run_dir: RunDir, manifest: Mapping[str, Any], ledger: Ledger, ordered: Sequence[str]
) -> MeasuredRun:
    fingerprint = manifest.get("fingerprint") or {}
    key = (manifest.get("reading") or {}).get("key")
    rows = fingerprint.get("rows")
    prompt_fields = fields_in_prompt(fingerprint)
    first = await ledger.labels_after(0, VALUES_SAMPLED, fields=True)
    if not first:
        raise SetupError(f"{run_dir.path}: no record has an outcome yet, so there is nothing to compare")
    fields = fields_of_tools(fingerprint.get("tools") or [], rows, ordered)
    former = {name: _former_names(one, renames_of(manifest)) for name, one in fields.items()}
    fields = {name: replace(one, former=former[name]) for name, one in fields.items()}
    labels = [label for row in first for label in labels_in(row)]
    # The label fields of the schema, then those that callbacks have added.
    names = dict.fromkeys([*fields, *(name for label in labels for name in label if name not in _OWN_COLUMNS)])
    measured = {
        name: infer_kind(fields.get(name, MeasuredField(name, "unknown")), [label.get(name) for label in labels])
        for name in names
    }
    run = MeasuredRun(
        run_dir,
        manifest,
        ledger,
        measured,
        key,
        prompt_fields,
        Examples(fingerprint.get("examples") or [], key, prompt_fields),
        bool(manifest.get("simulated")),
        run_dir.is_running(),
        frozenset(name for row in first for one in row.rows or () for name in one if name not in (row.label or {})),
        frozenset(name for label in labels for name in label if name in _OWN_COLUMNS) - fields.keys(),
        tuple(dict.fromkeys(name for row in first for name in row.fields or ())),
    )
    for name in ordered:
        if not run.field(name, "--ordered").values:
            raise SetupError(f"--ordered {name}: the field has no list of values in the task, so it has no order")
    return run


def _former_names(field: MeasuredField, renames: Sequence[Rename]) -> dict[str, str]:
    """Return the classes' names before renames, with their present names."""
    names: dict[str, str] = {}
    for rename in (one for one in renames if one.column == field.name):
        now = {class_name(old): class_name(new) for old, new in rename.pairs}
        names = {old: now.get(name, name) for old, name in names.items()} | now
    return {old: name for old, name in names.items() if name in field.values and old not in field.values}


def labels_in(row: LabelRow) -> Iterator[Mapping[str, JSON]]:
    """Yield the label of a record, or that of each of its rows."""
    if row.label is not None and row.rows is None:
        yield row.label
    for one in row.rows or ():
        yield {**(row.label or {}), **one}


# -- matching columns with label fields --------------------------------------------------------------------------------


def chosen_fields(run: MeasuredRun, columns: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """Return the label field of each named column of gold, by column. Raises SetupError.

    `fields` names them in the same order. Without it, a column belongs to the field of its own name, of that name with
    `gold_` or the like around it, or to the only label field that it can be about.
    """
    if fields and len(fields) != len(columns):
        raise SetupError(f"got {len(columns)} --column and {len(fields)} --field: name a field for each column")
    if fields:
        chosen = {column: run.field(field).name for column, field in zip(columns, fields, strict=True)}
    else:
        chosen = {column: _field_of(run, column) for column in columns}
    names = list(chosen.values())
    if twice := next((name for name in names if names.count(name) > 1), None):
        both = [column for column, name in chosen.items() if name == twice]
        raise SetupError(f"--column: {' and '.join(both)} are both about {twice}: use one of them at a time")
    return chosen


def _field_of(run: MeasuredRun, column: str) -> str:
    if column in run.fields:
        return column
    if (name := find_field(column, run.fields)) is not None:
        return name
    if (only := only_field(run.fields)) is not None:
        return only
    raise SetupError(f"--column {column}: name its label field with --field; the run has {list_names(run.fields)}")


def gold_names(run: MeasuredRun, only: Sequence[str] = ()) -> list[str]:
    """Return the possible names of gold columns for these label fields."""
    names = only or list(run.fields)
    return [form.format(name) for form in GOLD_NAMES for name in names] + [_GOLD] * (only_field(run.fields) in names)


def gold_columns_in(
    run: MeasuredRun,
    available: Collection[str],
    only: Sequence[str] = (),
    *,
    input: bool = False,  # noqa: A002
) -> dict[str, str]:
    """Return the columns that look like gold by their names, one for each label field, with the field.

    In a gold file the label's own name comes first. In an `input` that may be anything, so `gold_topic` comes first.
    """
    forms = GOLD_NAMES[::-1] if input else GOLD_NAMES
    columns: dict[str, str] = {}
    for name in only or run.fields:
        names = [form.format(name) for form in forms]
        names.insert(0 if input else len(names), _GOLD if only_field(run.fields) == name else names[0])
        if (column := next((one for one in names if one in available), None)) is not None:
            columns[column] = name
    return columns
