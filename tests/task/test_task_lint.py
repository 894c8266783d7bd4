from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import TaskError
from pipeline.task import Finding, TaskOptions, ToolOptions, build_task, lint

TEXT = {"type": "string"}


def closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


GOOD = [
    closed(label={"type": "string", "enum": ["a", "b"]}),
    closed(note={"type": ["string", "null"]}),
    closed(note={"anyOf": [TEXT, {"type": "null"}]}),
    closed(items={"type": "array", "items": TEXT, "minItems": 1}),
    closed(inner=closed(deep=TEXT)),
    closed(day={"type": "string", "format": "date"}),
    closed(score={"type": "integer", "minimum": 0, "maximum": 5, "description": "0 to 5"}),
    {**closed(kind={"$ref": "#/$defs/kind"}), "$defs": {"kind": {"type": "string", "enum": ["x"]}}},
    # Properties may be called like keywords.
    closed(default=TEXT, oneOf=TEXT, **{"not": TEXT, "$ref": TEXT}),
]


@pytest.mark.parametrize("schema", GOOD)
def test_a_schema_that_fits_has_no_finding(schema: dict[str, Any]) -> None:
    assert lint(schema) == []


def nested(levels: int) -> dict[str, Any]:
    schema = closed(leaf=TEXT)
    for _ in range(levels - 1):
        schema = closed(inner=schema)
    return schema


BAD = [
    ({"type": "array", "items": TEXT}, "#", "root's type"),
    ({**closed(a=TEXT), "anyOf": [TEXT]}, "#", "anyOf at the root"),
    ({"type": "object", "properties": {"a": TEXT}, "required": ["a"]}, "#", "additionalProperties is 'not set'"),
    ({**closed(a=TEXT), "additionalProperties": True}, "#", "additionalProperties is True"),
    (closed(a={"type": "object"}), "#/properties/a", "additionalProperties is 'not set'"),
    ({**closed(a=TEXT, b=TEXT), "required": ["a"]}, "#", "not required: b"),
    ({**closed(a=TEXT), "required": ["a", "z"]}, "#", "not in properties: z"),
    (closed(a={"type": "string", "default": "x"}), "#/properties/a", "'default'"),
    (closed(a={"oneOf": [TEXT]}), "#/properties/a", "'oneOf'"),
    (closed(a={"allOf": [TEXT]}), "#/properties/a", "'allOf'"),
    (closed(a={"type": "string", "not": TEXT}), "#/properties/a", "'not'"),
    (closed(a={"type": "string", "if": TEXT, "then": TEXT}), "#/properties/a", "'if'"),
    (closed(a={"type": "array", "prefixItems": [TEXT], "items": TEXT}), "#/properties/a", "'prefixItems'"),
    (closed(a={"type": "array", "items": TEXT, "uniqueItems": True}), "#/properties/a", "'uniqueItems'"),
    (closed(a={"type": "array"}), "#/properties/a", "without items"),
    (closed(a={"description": "anything"}), "#/properties/a", "no type"),
    (closed(a=True), "#/properties/a", "no type"),
    (closed(a={"type": "array", "items": {"type": "string", "format": "uri"}}), "#/properties/a/items", "'uri'"),
    (closed(a={"$ref": "#/$defs/x", "description": "d"}), "#/properties/a", "$ref beside description"),
    (closed(a={"$ref": "https://example.com/s.json"}), "#/properties/a", "$ref to"),
    ({**closed(a={"$ref": "#/$defs/x/y"}), "$defs": {"x/y": {"default": 1, **TEXT}}}, "#/$defs/x~1y", "'default'"),
    (closed(a={"type": "integer", "enum": list(range(1001))}), "#", "1001 enum values"),
    (closed(a={"type": "string", "enum": [f"{n:0100}" for n in range(251)]}), "#/properties/a", "251 texts"),
    (closed(a={"type": "string", "enum": []}), "#/properties/a", "empty enum"),
    (nested(11), "#", "11 levels"),
    (closed(**{f"p{n}": TEXT for n in range(5001)}), "#", "5001 properties"),
    (closed(**{f"{n:01000}": TEXT for n in range(121)}), "#", "characters"),
]


@pytest.mark.parametrize(("schema", "path", "words"), BAD, ids=[words for _schema, _path, words in BAD])
def test_what_strict_mode_refuses_is_found_with_its_place(schema: dict[str, Any], path: str, words: str) -> None:
    found = [finding for finding in lint(schema) if finding.path == path and words in finding.message]
    assert len(found) == 1
    assert found[0].fix


def test_the_limits_themselves_are_allowed() -> None:
    assert lint(nested(10)) == []
    assert lint(closed(a={"type": "integer", "enum": list(range(1000))})) == []


def test_definitions_count_their_levels_on_their_own() -> None:
    schema = {**nested(9), "$defs": {"x": nested(9)}}
    assert lint(schema) == []
    assert [finding.message for finding in lint({**nested(9), "$defs": {"x": nested(11)}})] == ["11 levels of objects"]


def test_every_finding_is_told_not_only_the_first() -> None:
    schema = {"type": "object", "properties": {"a": {"default": 1}, "b": {"oneOf": [TEXT]}}}
    assert {finding.path for finding in lint(schema)} == {"#", "#/properties/a", "#/properties/b"}


def test_a_finding_prints_place_fault_and_mend() -> None:
    assert str(Finding("#/properties/a", "bad", "fix it")) == "#/properties/a: bad; fix it"


def test_of_many_findings_the_first_ones_are_told_and_the_others_counted() -> None:
    schema = closed(**{f"p{number}": {"type": "string", "default": "x"} for number in range(60)})
    with pytest.raises(TaskError) as caught:
        build_task(TaskOptions(model="m", prompt="{{ text }}", function=ToolOptions("f", schema)))
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert lines[-1] == "  and 57 more"
