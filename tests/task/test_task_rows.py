"""A record as several rows: each call, or each item of a list."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import InvalidAnswerError, TaskError
from pipeline.records import Answer, LabelResult, Record, ToolCall, ValidCall
from pipeline.task import Task, TaskOptions, ToolOptions, build_task

RECORD = Record("f", 0, "note 7", {"text": "Ms Osei in Kumasi"}, 1, 0)
ENTITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "kind": {"type": "string", "enum": ["person", "place"]}},
    "required": ["name", "kind"],
}


def listing(items: dict[str, Any], **more: Any) -> Task:
    """A task whose label is a language and a list of `found`."""
    found = {"type": "array", "items": items}
    schema = {
        "type": "object",
        "properties": {"lang": {"type": "string"}, "found": found, "sure": {"type": "boolean"}},
        "required": ["lang", "found", "sure"],
        **more.pop("schema", {}),
    }
    function = ToolOptions("find", schema)
    return build_task(TaskOptions(model="m", prompt="{{ text }}", function=function, **{"rows": "found", **more}))


def rows(
    task: Task, *calls: tuple[str, str], text: str | None = None, extra: dict[str, Any] | None = None
) -> LabelResult:
    answer = Answer(tuple(ToolCall(f"i{place}", *call) for place, call in enumerate(calls)), text)
    said = [ValidCall(one.tool, one.label, one.call, extra or {}) for one in task.parse_calls(answer, RECORD)]
    return task.build_rows(said, text, RECORD)


def test_a_list_of_objects_is_a_row_each_and_the_rest_is_common() -> None:
    task = listing(ENTITY)
    assert task.columns == ("row_key", "lang", "sure", "name", "kind")
    found = '[{"name":"Osei","kind":"person"},{"kind":"place","name":"Kumasi"}]'
    label = rows(task, ("find", '{"lang":"en","found":' + found + ',"sure":true}'))
    assert label.label == {"lang": "en", "sure": True}
    assert label.rows == (
        {"row_key": "note 7#0", "name": "Osei", "kind": "person"},
        {"row_key": "note 7#1", "kind": "place", "name": "Kumasi"},
    )


def test_a_list_of_values_is_a_row_each_under_its_own_name() -> None:
    task = listing({"type": "string"})
    assert task.columns == ("row_key", "lang", "sure", "found")
    label = rows(task, ("find", '{"lang":"en","found":["a","b","a"],"sure":true}'), extra={"length": 3})
    assert label.label == {"lang": "en", "sure": True, "length": 3}, "what a callback adds is common to all"
    assert label.rows is not None
    assert [(row["row_key"], row["found"]) for row in label.rows] == [
        ("note 7#0", "a"),
        ("note 7#1", "b"),
        ("note 7#2", "a"),
    ]


@pytest.mark.parametrize("found", ["[]", "null"])
def test_an_empty_list_is_no_row(found: str) -> None:
    schema = {
        "properties": {"lang": {"type": "string"}, "found": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/many"}]}},
        "required": ["lang", "found"],
        "$defs": {"many": {"type": "array", "items": {"$ref": "#/$defs/one"}}, "one": ENTITY},
    }
    task = listing({}, schema=schema)
    assert task.columns == ("row_key", "lang", "name", "kind"), "behind a reference and a union with null"
    assert rows(task, ("find", f'{{"lang":"en","found":{found}}}')) == LabelResult({"lang": "en"}, ())


def test_each_call_is_a_row() -> None:
    tools = [
        ToolOptions("person", labels={"role": ["buyer", "seller"]}),
        ToolOptions("place", labels={"kind": ["city"]}),
    ]
    task = build_task(TaskOptions(model="m", prompt="{{ text }}", tools=tools, rows="calls"))
    assert task.columns == ("row_key", "tool", "person_role", "place_kind")
    label = rows(task, ("person", '{"role":"buyer"}'), ("place", '{"kind":"city"}'), ("person", '{"role":"seller"}'))
    assert label == LabelResult(
        {},
        (
            {"row_key": "note 7#0", "tool": "person", "person_role": "buyer"},
            {"row_key": "note 7#1", "tool": "place", "place_kind": "city"},
            {"row_key": "note 7#2", "tool": "person", "person_role": "seller"},
        ),
    )
    with pytest.raises(InvalidAnswerError, match="no call of"):
        rows(task)


def test_each_call_of_one_tool_is_a_row_also_when_two_say_the_same() -> None:
    task = build_task(TaskOptions(model="m", prompt="{{ text }}", labels={"name": ["a", "b"]}, rows="calls"))
    assert task.columns == ("row_key", "name")
    label = rows(task, *[("set_label", f'{{"name":"{name}"}}') for name in "aba"], extra={"n": 1})
    assert label.rows is not None
    assert [row["name"] for row in label.rows] == ["a", "b", "a"]
    assert {row["n"] for row in label.rows} == {1}


def test_where_none_is_fine_no_call_is_no_row_and_the_words_are_kept() -> None:
    options = TaskOptions(
        model="m", prompt="{{ text }}", labels={"name": ["a"]}, rows="calls", call="any", reply="words"
    )
    task = build_task(options)
    assert task.columns == ("row_key", "name", "words")
    assert rows(task, text="There is nothing.") == LabelResult({"words": "There is nothing."}, ())
    label = rows(task, ("set_label", '{"name":"a"}'), text="One.")
    assert label == LabelResult({"words": "One."}, ({"row_key": "note 7#0", "name": "a"},))


PER_RECORD = """
    class Topic:
        columns = ("found",)

        def schema(self, record):
            return {"type": "object", "properties": {"found": {"type": "array", "items": {"type": "string"}}},
                    "required": ["found"]}
"""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": "lang"}, "task.rows is 'lang': expected \"calls\", or a label field that is a list; fields are"),
        ({"rows": "zork"}, "task.rows is 'zork': expected"),
        ({"tools": [ToolOptions("a", labels={"x": [1]}), ToolOptions("b", labels={"x": [1]})], "rows": "x"}, "several"),
    ],
)
def test_rows_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    more = {"function": None} if "tools" in changes else {}
    given: dict[str, Any] = {"model": "m", "prompt": "{{ text }}", **changes}
    if not more:
        properties = {"lang": {"type": "string"}, "found": {"type": "array", "items": {"type": "string"}}}
        schema = {"type": "object", "properties": properties, "required": ["lang", "found"]}
        given["function"] = ToolOptions("find", schema)
    with pytest.raises(TaskError, match=words):
        build_task(TaskOptions(**given))


def test_rows_need_a_schema_that_is_the_same_for_all(module) -> None:
    with pytest.raises(TaskError, match="needs a schema that is the same for all records"):
        build_task(TaskOptions(model="m", prompt="p", python="mytools:Topic", base=module(PER_RECORD), rows="found"))


def test_an_items_field_with_the_name_of_a_common_one_is_told_at_the_start() -> None:
    with pytest.raises(TaskError, match="'lang' would occur twice"):
        listing({"type": "object", "properties": {"lang": {"type": "string"}}, "required": ["lang"]})


def test_an_item_cannot_take_the_place_of_another_column() -> None:
    """Without strict mode it may hold anything; a row named itself, and said it was in another language."""
    task = listing(ENTITY, strict=False)
    item = '{"name":"a","kind":"place","row_key":"mine","lang":"zz","sure":false,"found":[],"more":1}'
    label = rows(task, ("find", f'{{"lang":"en","found":[{item}],"sure":true}}'))
    assert label == LabelResult({"lang": "en", "sure": True}, ({"row_key": "note 7#0", "name": "a", "kind": "place"},))


def test_nor_can_an_argument_beside_the_list_fill_what_an_item_lacks() -> None:
    task = listing({**ENTITY, "required": ["kind"]}, strict=False)
    found = '[{"kind":"place"}]'
    label = rows(task, ("find", f'{{"lang":"en","found":{found},"sure":true,"name":"b","row_key":"mine"}}'))
    assert "name" not in {**label.label, **(label.rows or ({},))[0]}
    assert {**label.label, **(label.rows or ({},))[0]}["row_key"] == "note 7#0"


def test_nor_can_the_arguments_of_a_call_that_is_a_row() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    options = {"rows": "calls", "call": "any", "reply": "words", "strict": False}
    task = build_task(TaskOptions(model="m", prompt="p", function=ToolOptions("find", schema), **options))
    label = rows(task, ("find", '{"name":"a","row_key":"mine","words":"mine"}'), text="Two.")
    assert label == LabelResult({"words": "Two."}, ({"row_key": "note 7#0", "name": "a"},))


MODEL = """
    from typing import Literal

    from pydantic import BaseModel


    class Entity(BaseModel):
        name: str
        kind: Literal["person", "place"]


    class Found(BaseModel):
        entities: list[Entity]
        lang: str
"""


def test_rows_of_a_pydantic_model(module) -> None:
    options = TaskOptions(model="m", prompt="p", python="mytools:Found", base=module(MODEL), rows="entities")
    task = build_task(options)
    assert task.columns == ("row_key", "lang", "name", "kind")
    label = rows(task, ("set_label", '{"entities":[{"name":"Osei","kind":"person"}],"lang":"en"}'))
    assert label.rows == ({"row_key": "note 7#0", "name": "Osei", "kind": "person"},)
