"""Prepares the label fields for the page: choices with their meanings, or an input."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.labelfields import json_identity
from pipeline.quality import normalize_text
from pipeline.records import JSON
from pipeline.review.cell_values import is_equal, parse_cell
from pipeline.store import cell
from pipeline.task import LabelColumn
from pipeline.terminal import printable

#: Ranges of at most this many whole numbers are shown as choices.
SCALE_MOST = 12
_KINDS = {"integer": "number", "number": "number", "string": "text"}


@dataclass(frozen=True, slots=True)
class PageField:
    """A label field. `kind` is `one` or `several` of the values, `number`, `text`, or `json` for anything else."""

    column: LabelColumn
    kind: str
    values: tuple[JSON, ...] = ()

    @property
    def name(self) -> str:
        """The name of the column."""
        return self.column.name

    @property
    def is_chosen(self) -> bool:
        """Whether it is answered by a choice. The page asks for such fields; the others are optional."""
        return self.kind in ("one", "several")

    def as_dict(self) -> dict[str, Any]:
        """Return what the page needs to know."""
        schema = self.column.schema
        meanings, rest = _meanings(schema, self.values)
        return {
            "name": printable(self.name),
            "kind": self.kind,
            "required": self.column.is_required,
            "meaning": printable(rest),
            "choices": [
                {"text": self.describe(one), "meaning": printable(meanings.get(cell(one), ""))} for one in self.values
            ],
            "low": schema.get("minimum"),
            "high": schema.get("maximum"),
            "whole": schema.get("type") == "integer",
        }

    def to_page(self, value: JSON) -> Any:
        """Return a value in the page's form: the places of choices, or a text. None for a value that is no choice."""
        if self.kind == "one":
            return self._place(value)
        if self.kind == "several":
            places = [self._place(one) for one in value] if isinstance(value, list) else [None]
            return None if None in places else sorted(place for place in places if place is not None)
        return "" if value is None else printable(cell(value))

    def from_page(self, sent: Any) -> JSON:
        """Return the value that the page sends; choices are sent as places. Raises ValueError."""
        if self.kind == "one":
            return self._at(sent)
        if self.kind == "several":
            if not isinstance(sent, list):
                raise ValueError(f"{self.name}: expected a list of places")
            chosen = {json_identity(self._at(one)) for one in sent}
            values: JSON = [one for one in self.values if json_identity(one) in chosen]
            if not self.column.accepts(values):
                raise ValueError(f"{self.name}: this number of values is not allowed")
            return values
        if not isinstance(sent, str):
            raise ValueError(f"{self.name}: expected a text")  # noqa: TRY004 - what a page sends is a value
        return parse_cell(sent, self.column)

    def is_right(self, label: JSON, answer: JSON) -> bool:
        """Whether a label equals a person's answer: lists in any order, texts apart from case and white space."""
        if self.kind == "text" and isinstance(label, str) and isinstance(answer, str):
            return normalize_text(label) == normalize_text(answer)
        return is_equal(label, answer)

    def describe(self, value: JSON) -> str:
        """Return a value as text."""
        if isinstance(value, list):
            return ", ".join(printable(cell(one)) for one in value) or "none of them"
        return "nothing" if value is None else printable(cell(value))

    def value_texts(self, value: JSON) -> list[str]:
        """Return the texts of a value: one, or those of a list."""
        return [self.describe(one) for one in value] if isinstance(value, list) else [self.describe(value)]

    def _place(self, value: JSON) -> int | None:
        marks = [json_identity(one) for one in self.values]
        mark = json_identity(value) if not isinstance(value, list | dict) else None
        return marks.index(mark) if mark in marks else None

    def _at(self, place: Any) -> JSON:
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(self.values):
            raise ValueError(f"{self.name}: there is no such choice")
        return self.values[place]


def main_fields(fields: Sequence[PageField]) -> Sequence[PageField]:
    """Return the fields that an answer is about: those with choices or, if there are none, all."""
    return [field for field in fields if field.is_chosen] or fields


def fields_of(columns: Sequence[LabelColumn]) -> list[PageField]:
    """Return the label fields, those with choices first."""
    fields = [_field(column) for column in columns]
    return sorted(fields, key=lambda field: not field.is_chosen)


def _field(column: LabelColumn) -> PageField:
    schema, values = column.schema, column.values
    if values:
        return PageField(column, "several" if column.is_list else "one", values)
    kind = schema.get("type")
    if kind == "boolean":
        return PageField(column, "one", (True, False))
    low, high = schema.get("minimum"), schema.get("maximum")
    if kind == "integer" and isinstance(low, int) and isinstance(high, int) and 0 < high - low < SCALE_MOST:
        return PageField(column, "one", tuple(range(low, high + 1)))
    return PageField(column, _KINDS.get(kind, "json") if isinstance(kind, str) else "json")


def _meanings(schema: Mapping[str, Any], values: Sequence[JSON]) -> tuple[dict[str, str], str]:
    """Return the meanings of the values, from the lines of the description that name them, and the other lines."""
    described = schema.get("description")
    names = sorted(map(cell, values), key=len, reverse=True)
    line = re.compile(rf"- ({'|'.join(map(re.escape, names))})(?:: (.*))?") if names else None
    meanings, rest = dict[str, str](), list[str]()
    for text in described.splitlines() if isinstance(described, str) else ():
        match = line.fullmatch(text) if line is not None else None
        if match is None:
            rest.append(text)
        else:
            meanings[match[1]] = match[2] or ""
    return meanings, "\n".join(rest).strip()
