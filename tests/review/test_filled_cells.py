"""A cell means what a person meant, however a spreadsheet has written it; what is not certain is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.review.cell_values import is_checked, is_equal, matches_cell, parse_cell
from pipeline.store import cell, safe_cell
from pipeline.task import LabelColumn, label_columns

TEXT = {"type": "string"}
TOPIC = {"type": "string", "enum": ["=cmd", "'=cmd", "true", "1", "a, b", "Ünï"]}
LEVEL = {"type": "integer", "enum": [1, 2, 3]}
FLAG = {"type": "boolean"}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
MAYBE = {"type": ["integer", "null"], "enum": [1, None]}
TOPICS = {"type": "array", "items": {"type": "string", "enum": ["billing", "login"]}}


def column(schema: dict[str, Any]) -> LabelColumn:
    return LabelColumn("x", schema)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (TOPIC, "'=cmd", "'=cmd"),
        (TOPIC, "=cmd", "=cmd"),
        (TOPIC, "true", "true"),
        (TOPIC, "1", "1"),
        (TOPIC, " a, b ", "a, b"),
        (TEXT, "'=cmd", "=cmd"),
        (TEXT, "'tis", "'tis"),
        (TEXT, "two\r\nlines", "two\nlines"),
        (LEVEL, "2", 2),
        (LEVEL, "2.0", 2),
        (LEVEL, "2,0", 2),
        (LEVEL, 2, 2),
        ({"type": "integer"}, str(2**53 + 1), 2**53 + 1),
        (FLAG, "TRUE", True),
        (FLAG, "false", False),
        (SHARE, "0,5", 0.5),
        (SHARE, "1", 1),
        (SHARE, ".25", 0.25),
        (MAYBE, "null", None),
        (TOPICS, '["login"]', ["login"]),
        (TOPICS, "login; billing", ["login", "billing"]),
        (TOPICS, "login|billing", ["login", "billing"]),
        (TOPICS, "billing", ["billing"]),
    ],
)
def test_a_cell_is_read_as_a_value_of_its_column(schema: dict[str, Any], text: Any, value: Any) -> None:
    found = parse_cell(text, column(schema))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("schema", "text"),
    [(TOPIC, "True"), (LEVEL, "4"), (LEVEL, "2.5"), (FLAG, "1"), (FLAG, "yes"), (SHARE, "1.5"), (TOPICS, "login, x")],
)
def test_what_is_no_value_of_the_column_is_refused(schema: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match="is not a value of x"):
        parse_cell(text, column(schema))


@pytest.mark.parametrize(
    ("text", "value", "same"),
    [
        ("1.0", 1, True), ("1,00", 1, True), ("TRUE", True, True), ("1", True, False), ("", "", True),
        ("a\r\nb", "a\nb", True), ("'=x", "=x", True), ("1.0", "1", False), ("b", "a", False),
    ],
)  # fmt: skip
def test_what_a_spreadsheet_writes_otherwise_is_the_same(text: str, value: Any, same: bool) -> None:
    assert matches_cell(text, value) is same


@given(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text())
def test_what_the_files_write_is_the_same(value: Any) -> None:
    assert matches_cell(cell(value), value)
    assert matches_cell(safe_cell(value), value)


def test_labels_of_a_list_are_the_same_in_any_order() -> None:
    assert is_equal(["a", "b"], ["b", "a"])
    assert not is_equal(["a"], ["a", "a"])
    assert not is_equal(1, True)


@pytest.mark.parametrize(("text", "ticked"), [("x", True), ("TRUE", True), ("no", False), ("0", False), (" ", False)])
def test_a_mark_is_a_mark(text: str, ticked: bool) -> None:
    assert is_checked(text) is ticked


def test_the_columns_of_several_tools_and_of_a_reply() -> None:
    tools = [
        {"function": {"name": "one", "parameters": {"properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"],
                                                    "$defs": {"A": LEVEL}}}},
        {"function": {"name": "two", "parameters": {"properties": {"a": {"type": "nonsense"}}}}},
    ]  # fmt: skip
    one, two, reply = label_columns(tools, ["one_a", "two_a", "words"])
    assert (one.is_required, one.accepts(2), one.accepts(9)) == (True, True, False)
    assert two.accepts("anything")  # a schema that cannot be compiled refuses nothing
    assert reply.accepts("any text")
    assert not reply.accepts(5)
