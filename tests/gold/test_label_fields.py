"""What a schema says of a label field, and what a person's value means in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.gold import (
    MeasuredField,
    as_class,
    as_number,
    as_set,
    fields_of_tools,
    has_value,
    infer_kind,
    only_field,
)

ENUM = {"type": "string", "enum": ["a", "b"]}


def field_of(node: dict[str, Any], **root: Any) -> MeasuredField:
    schema = {"type": "object", "properties": {"x": node}, **root}
    return fields_of_tools([{"type": "function", "function": {"name": "f", "parameters": schema}}])["x"]


@pytest.mark.parametrize(
    ("node", "kind", "values"),
    [
        (ENUM, "class", ("a", "b")),
        ({"type": ["string", "null"], "enum": ["a", None]}, "class", ("a",)),
        ({"anyOf": [ENUM, {"type": "null"}]}, "class", ("a", "b")),
        ({"$ref": "#/$defs/X"}, "class", ("a", "b")),
        ({"anyOf": [{"$ref": "#/$defs/X"}, {"type": "null"}]}, "class", ("a", "b")),
        ({"oneOf": [{"const": "a", "description": "one"}, {"const": "b"}]}, "class", ("a", "b")),
        ({"const": 1}, "class", ("1",)),
        ({"type": "boolean"}, "class", ("true", "false")),
        ({"type": "integer", "minimum": 1, "maximum": 3}, "class", ("1", "2", "3")),
        ({"type": "integer", "minimum": 1, "maximum": 300}, "number", ()),
        ({"type": "number"}, "number", ()),
        ({"type": ["number", "null"]}, "number", ()),
        ({"type": "array", "items": {"$ref": "#/$defs/X"}}, "set", ("a", "b")),
        ({"type": "array", "items": {"type": "string"}}, "set", ()),
        ({"type": "string"}, "unknown", ()),
        ({"anyOf": [{"type": "string"}, {"type": "number"}]}, "unknown", ()),
        ({"$ref": "#/$defs/Loop"}, "unknown", ()),
        ({"$ref": "#/nowhere"}, "unknown", ()),
        ({}, "unknown", ()),
    ],
)
def test_the_kind_of_a_field_is_that_of_its_schema(node: dict[str, Any], kind: str, values: tuple[str, ...]) -> None:
    found = field_of(node, **{"$defs": {"X": ENUM, "Loop": {"$ref": "#/$defs/Loop"}}})
    assert (found.kind, found.values) == (kind, values)


def test_the_columns_of_several_tools_and_of_rows() -> None:
    def tool(name: str, **properties: Any) -> dict[str, Any]:
        schema = {"type": "object", "properties": properties}
        return {"type": "function", "function": {"name": name, "parameters": schema}}

    found = fields_of_tools([tool("one", x=ENUM), tool("two", x={"type": "number"})])
    assert {name: field.kind for name, field in found.items()} == {"tool": "class", "one_x": "class", "two_x": "number"}
    assert found["tool"].values == ("one", "two")
    item = {"type": "object", "properties": {"kind": ENUM}}
    listed = fields_of_tools([tool("one", things={"type": "array", "items": item}, x=ENUM)], rows="things")
    assert list(listed) == ["kind", "x"]
    assert fields_of_tools([tool("one", x=ENUM)], ordered=["x"])["x"].order == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (["yes", "no", "yes", "no", None], "class"),
        (["one thing", "another", "a third"], "text"),
        (["x" * 80, "x" * 80], "text"),
        ([1, 2.5, None], "number"),
        ([True, False], "class"),
        ([["a"], None], "set"),
        ([], "class"),
    ],
)
def test_where_the_schema_says_too_little_the_values_do(seen: list[Any], kind: str) -> None:
    assert infer_kind(MeasuredField("x", "unknown"), seen).kind == kind


@given(st.sets(st.text("ab|;, é", min_size=1), min_size=1), st.data())
def test_a_list_comes_back_from_each_of_its_forms(values: set[str], data: st.DataObject) -> None:
    field = MeasuredField("x", "set", tuple(sorted(values)))
    some = data.draw(st.lists(st.sampled_from(field.values), unique=True))
    assert as_set(field, some) == frozenset(some)
    assert as_set(field, codec.dumps(some).decode()) == frozenset(some)
    assert as_set(field, repr(some)) == frozenset(some)


def test_a_cell_with_several_labels_is_parted_only_at_labels() -> None:
    field = MeasuredField("x", "set", ("a", "b", "c, d"))
    assert as_set(field, "a| b") == {"a", "b"}
    assert as_set(field, "a; b;") == {"a", "b"}
    assert as_set(field, "c, d") == {"c, d"}, "a label of its own"
    assert as_set(field, "a, e") == {"a, e"}, "what is no label is told as it stands"
    assert as_set(MeasuredField("x", "set"), "a, e") == {"a", "e"}
    assert as_set(field, "[broken") == {"[broken"}


def test_another_writing_of_the_same_value_is_read_and_nothing_else() -> None:
    stars, yes, topic = field_of({"enum": [1, 2.5]}), field_of({"type": "boolean"}), field_of(ENUM)
    of_stars = [as_class(stars, value) for value in ("1", "1.0", " 1 ", 1, 1.0, "2.50", "one")]
    assert of_stars == [*(["1"] * 5), "2.5", "one"]
    of_yes = [as_class(yes, value) for value in ("TRUE", "false ", True, "yes", "1")]
    assert of_yes == ["true", "false", "true", "yes", "1"]
    of_topics = [as_class(topic, value) for value in ("a", "A", "a ", None, {"k": 1})]
    assert of_topics == ["a", "A", "a ", "null", '{"k":1}']
    assert [as_number(value) for value in ("1e3", "1,000", "nan", "inf", True, None, 7)] == [1000, *([None] * 5), 7]
    assert [as_number(value) for value in ("-1,5", " 0,25", "1,25", "1,2,3", "1_0")] == [-1.5, 0.25, 1.25, None, 10]


def test_a_whole_number_keeps_its_digits() -> None:
    big = 2**53 + 1
    assert [as_number(value) for value in (big, str(big), f" +{big}", codec.Digits(f"{big * 2**12}"))] == [
        *([big] * 3), big * 2**12
    ]  # fmt: skip
    assert as_number("9" * 400) is None


def test_the_only_field_with_labels_is_the_one_that_gold_is_about() -> None:
    topic, other = MeasuredField("topic", "class", ("a", "b")), MeasuredField("other", "class", ("c",))
    why, sure = MeasuredField("why", "text"), MeasuredField("confidence", "number")
    cases = ((topic, why, sure), (why,), (topic, other), (why, sure))
    assert [only_field({one.name: one for one in fields}) for fields in cases] == ["topic", "why", None, None]
    assert [has_value(value) for value in (None, "", " \t", "x", 0, False, [])] == [*([False] * 3), *([True] * 4)]
