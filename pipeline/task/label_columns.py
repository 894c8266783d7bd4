"""The label columns of a task, from the tools that its manifest keeps: which values each of them may have."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.errors import TaskError
from pipeline.records import JSON
from pipeline.task.schema import compile_schema


@dataclass(frozen=True)
class LabelColumn:
    """One label column. `schema` is what its values fit, `is_required` whether every label has one."""

    name: str
    schema: Mapping[str, Any]
    is_required: bool = False

    @property
    def values(self) -> tuple[JSON, ...]:
        """The values that it may have, where the schema lists them; of a list of values, those of its items."""
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
    """The label columns in their order, with the schemas of these tool definitions.

    A column that comes of no schema (a reply, the name of a tool) takes any text.
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
