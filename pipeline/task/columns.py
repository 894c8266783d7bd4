"""Defines the label columns of a task: how calls fill them, in one row or several, and which values they allow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.errors import CallbackError, TaskError, UnfinishedError
from pipeline.records import JSON, LabelResult, ValidCall
from pipeline.task.options import ROWS_OF_CALLS
from pipeline.task.schema import compile_schema
from pipeline.task.schema_tree import Schema, types_of

#: The tool that was called, if the task has several.
TOOL_COLUMN = "tool"
#: The name of a row if a record has several: the record's key, "#", and the row's 0-based place.
ROW_KEY = "row_key"


class Columns:
    """The label columns of a task, and how calls fill them. Raises TaskError for names that collide.

    `tools` maps each tool to its label fields, and `extra` to the columns that its callback declares. `row_fields` are
    the fields of an item if `rows` names a list.
    """

    def __init__(
        self,
        tools: Mapping[str, Sequence[str]],
        extra: Mapping[str, Sequence[str]],
        *,
        call: str,
        rows: str | None,
        row_fields: Sequence[str],
        reply: str | None,
    ) -> None:
        self._several = len(tools) > 1
        self._names_tool = self._several and call != "all"
        self._one_tool = call == "one" or rows == ROWS_OF_CALLS
        self._rows = rows
        self._row_fields = tuple(row_fields)
        self._reply = reply
        self.names = tuple(self._all_names(tools))
        self.extra = tuple(self.column_name(tool, name) for tool, names in extra.items() for name in names)
        every = self.names + self.extra
        if duplicates := sorted({name for name in every if every.count(name) > 1}):
            raise TaskError(
                f"the label columns {', '.join(map(repr, duplicates))} would occur twice: rename one of them"
            )

    def _all_names(self, tools: Mapping[str, Sequence[str]]) -> Iterator[str]:
        if self._rows is not None:
            yield ROW_KEY
        if self._names_tool:
            yield TOOL_COLUMN
        for tool, fields in tools.items():
            yield from (self.column_name(tool, name) for name in fields if name != self._rows)
        yield from self._row_fields
        if self._reply is not None:
            yield self._reply

    def column_name(self, tool: str, field: str) -> str:
        """Return the column of a tool's field."""
        return f"{tool}_{field}" if self._several else field

    def build(self, valid_calls: Sequence[ValidCall], reply: str | None, key: str) -> LabelResult:
        """Build the row or rows of a record. Raises UnfinishedError if the final text is missing."""
        ending: dict[str, JSON] = {} if self._reply is None else {self._reply: reply}
        if self._reply is not None and reply is None:
            raise UnfinishedError(
                "the model still called a function in the last turn: allow more turns with task.max_turns"
            )
        if self._rows is None:
            return LabelResult({**self._one_row(valid_calls), **ending})
        if self._rows == ROWS_OF_CALLS:
            cells = [self._cells(call, names_tool=True) for call in valid_calls]
            return LabelResult(ending, self._with_row_keys(key, cells))
        common = self._one_row(valid_calls)
        items = common.pop(self._rows, None) or []
        # An undeclared argument must not fill the column of an item that lacks it.
        common = {name: value for name, value in common.items() if name not in self._row_fields}
        return LabelResult({**common, **ending}, self._with_row_keys(key, [self._item(item) for item in items]))

    def _one_row(self, valid_calls: Sequence[ValidCall]) -> dict[str, JSON]:
        row: dict[str, JSON] = {}
        if self._names_tool and valid_calls:
            called_tools = list(dict.fromkeys(call.tool for call in valid_calls))
            row[TOOL_COLUMN] = called_tools[-1] if self._one_tool else called_tools
        for call in valid_calls:
            row |= self._cells(call, names_tool=False)
        return row

    def _cells(self, call: ValidCall, *, names_tool: bool) -> dict[str, JSON]:
        if not (call.extra or self._several):
            return dict(call.label)  # nearly every call of a simple task
        if clashing := [name for name in call.extra if self.column_name(call.tool, name) in self.names]:
            raise CallbackError(
                f"the callback returned {clashing[0]!r}, which is a column of the task: give it another name"
            )
        cells = {self.column_name(call.tool, name): value for name, value in {**call.label, **call.extra}.items()}
        return {TOOL_COLUMN: call.tool, **cells} if names_tool and self._names_tool else cells

    def _item(self, item: Any) -> dict[str, JSON]:
        # Only declared fields: without strict mode an item may contain anything, even the name of another column.
        if isinstance(item, Mapping):
            return {name: item[name] for name in self._row_fields if name in item}
        return {self._row_fields[0]: item}

    def _with_row_keys(self, key: str, cells: Sequence[Mapping[str, JSON]]) -> tuple[Mapping[str, JSON], ...]:
        """Add the row keys. Arguments with the names of our two columns are dropped: a call may contain anything."""
        ours = (ROW_KEY, self._reply)
        rows = [{name: value for name, value in row.items() if name not in ours} for row in cells]
        return tuple({ROW_KEY: f"{key}#{place}", **row} for place, row in enumerate(rows))


def row_fields(schema: Schema, name: str) -> tuple[str, ...]:
    """Return the columns of an item of the list `name`. Raises TaskError if it is not a list."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    node = _resolve(schema, properties.get(name, {}))
    if "array" not in types_of(node):
        fields = ", ".join(map(repr, properties))
        raise TaskError(
            f'task.rows is {name!r}: expected "{ROWS_OF_CALLS}", or a label field that is a list; fields are {fields}'
        )
    item = _resolve(schema, node.get("items", {}))
    return tuple(item.get("properties", {})) or (name,)


def _resolve(schema: Schema, node: Any) -> Schema:
    """Return the node behind a reference, or the only form of a union that is not null."""
    forms = [form for form in node.get("anyOf", ()) if form.get("type") != "null"]
    if len(forms) == 1:
        node = forms[0]
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        target: Schema = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
        return target
    return dict(node)


@dataclass(frozen=True)
class LabelColumn:
    """One label column. `schema` describes its values; `is_required` is whether every label has one."""

    name: str
    schema: Mapping[str, Any]
    is_required: bool = False

    @property
    def values(self) -> tuple[JSON, ...]:
        """The values that the schema lists, if it does; for a list, those of its items."""
        listed = self.schema.get("enum") or self._items.get("enum") or ()
        return tuple(listed)

    @property
    def is_list(self) -> bool:
        """Whether a value is a list of values."""
        return bool(self._items)

    @property
    def _items(self) -> Mapping[str, Any]:
        items = self.schema.get("items")
        return items if isinstance(items, Mapping) else {}

    @cached_property
    def _compiled(self) -> Any:
        return compile_schema(dict(self.schema))

    def accepts(self, value: JSON) -> bool:
        """Whether the schema allows this value."""
        try:
            return bool(self._compiled.is_valid(value))
        except ValueError:
            return False


def label_columns(tools: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[LabelColumn]:
    """Return the label columns in order, with their schemas from these tool definitions.

    A column without a schema (a reply, the name of a tool) accepts any text.
    """
    columns_by_name = dict(_columns_of_tools(tools))
    return [columns_by_name.get(name) or LabelColumn(name, {"type": "string"}) for name in columns]


def _columns_of_tools(tools: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, LabelColumn]]:
    for tool in tools:
        function = tool.get("function") or {}
        schema = function.get("parameters") or {}
        shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
        for name, field_schema in (schema.get("properties") or {}).items():
            name_in_row = f"{function['name']}_{name}" if len(tools) > 1 else name
            is_required = name in (schema.get("required") or ())
            column = LabelColumn(
                name_in_row, {**field_schema, **shared} if isinstance(field_schema, Mapping) else {}, is_required
            )
            try:
                column.accepts(None)
            except TaskError:  # a schema that depends on the record is only described
                column = LabelColumn(name_in_row, {})
            yield name_in_row, column
