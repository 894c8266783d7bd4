"""Requests are read as a strict server reads them."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from rehearsal_client import ENUM, ask, forced, tool

from pipeline.rehearsal import RehearsalOptions
from pipeline.rehearsal.replies import ErrorReply
from pipeline.rehearsal.request_checks import PARAMETERS
from pipeline.rehearsal.request_parser import Call, RequestParser
from pipeline.rehearsal.tools import schema_fault


def read(body: Any) -> Call | ErrorReply:
    return RequestParser(RehearsalOptions()).read(json.dumps(body).encode())[1]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def calling(*names: str) -> dict[str, Any]:
    function = {"name": "label", "arguments": "{}"}
    calls = [{"id": name, "type": "function", "function": function} for name in names]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(name: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": "not one of the labels"}


def test_the_known_parameters_are_those_of_the_sdk() -> None:
    assert get_type_hints(CompletionCreateParamsNonStreaming).keys() == PARAMETERS


@pytest.mark.parametrize(
    ("change", "param", "told"),
    [
        ({"model": None}, "model", "must provide a model"),
        ({"messages": "hello"}, "messages", "expected an array"),
        ({"messages": [user("x"), "y"]}, "messages[1].role", "Invalid value None"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", "'boss'"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "expected a string"),
        ({"messages": [user("x"), result("c1")]}, "messages[1].role", "must be a response to"),
        ({"messages": [user("x"), calling("c1"), user("y")]}, "messages[2]", "Without a response: c1"),
        ({"messages": [user("x"), calling("c1", "c2"), result("c2")]}, "messages", "Without a response: c1"),
        ({"temprature": 1}, "temprature", "Unrecognized request argument supplied: temprature"),
        ({"temperature": 3}, "temperature", "not a number from 0 to 2"),
        ({"temperature": "hot"}, "temperature", "'hot'"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "1 or more"),
        ({"stream": True}, "stream", "does not stream"),
        ({"metadata": "r1"}, "metadata", "expected an object"),
        ({"tools": []}, "tools", "at least one"),
        ({"tools": [{"type": "magic"}]}, "tools[0].type", "must be 'function'"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "Missing required"),
        ({"tools": [tool(), tool(name="my label")]}, "tools[1].function.name", "'my label'"),
        ({"tools": [tool({"type": "array"})]}, "tools[0].function.parameters", "got 'array'"),
        ({"tools": None}, "tool_choice", "only allowed when 'tools'"),
        ({"tools": None, "tool_choice": None, "parallel_tool_calls": True}, "parallel_tool_calls", "only allowed"),
        ({"tool_choice": forced("other")}, "tool_choice", "'other' not found"),
        ({"tools": [tool(), tool()]}, "tools[1]", "'label' is given twice"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls", "expected a boolean, got 'yes'"),
        ({"tool_choice": "sometimes"}, "tool_choice", "'sometimes'"),
        ({"response_format": {"type": "yaml"}}, "response_format", "expected text"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(change: dict[str, Any], param: str, told: str) -> None:
    error = read(ask(**change))
    assert isinstance(error, ErrorReply)
    assert (error.status, error.type, error.param) == (400, "invalid_request_error", param)
    assert told in error.message


@pytest.mark.parametrize(
    "messages",
    [
        [user("x")],
        [{"role": "developer", "content": "d"}, user("x"), {"role": "assistant", "content": "y"}, user("z")],
        [user("x"), calling("c1", "c2"), result("c2"), result("c1")],
        [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {}}]}],
    ],
)
def test_conversations_that_are_fine(messages: list[dict[str, Any]]) -> None:
    assert isinstance(read(ask(messages=messages)), Call)


def test_the_last_user_message_is_the_text_and_names_the_record() -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]}
    body = ask(messages=[user("a"), parts, calling("c1"), result("c1")], metadata=None)
    call = read(body)
    assert isinstance(call, Call)
    assert (call.text, call.user_text) == ("b\nc", "a\nb\nc")
    assert call.record.endswith(" b c")
    named = read({**body, "metadata": {"record": "r7"}})
    assert isinstance(named, Call)
    assert named.record == "r7"


def test_a_named_function_is_all_that_is_offered() -> None:
    tools = [tool(), tool(name="other")]
    named, required, free = (
        read(ask(tools=tools, tool_choice=choice)) for choice in (forced("other"), "required", "auto")
    )
    assert isinstance(named, Call)
    assert ([one.name for one in named.offer.tools], named.offer.named) == (["other"], True)
    assert isinstance(required, Call)
    assert ([one.name for one in required.offer.tools], required.offer.named) == (["label", "other"], False)
    assert isinstance(free, Call)
    assert (free.offer.free, required.offer.free) == (True, False)


def strict(**changes: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": ENUM}},
        "required": ["label"],
        "additionalProperties": False,
        **changes,
    }
    return {word: value for word, value in schema.items() if value is not None}


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (strict(additionalProperties=None), "In context=(), 'additionalProperties' is required"),
        (strict(required=None), "Missing 'label'"),
        (strict(properties={"label": {}, "why": {}}), "Missing 'why'"),
        (strict(properties={"label": {"type": "string", "default": "x"}}), "'default' is not permitted"),
        (strict(properties={"label": {"allOf": []}}), "In context=('properties', 'label'), 'allOf'"),
        (strict(properties={"label": {"type": "array", "items": {"type": "object"}}}), "'label', 'items')"),
        (strict(properties={"label": {"anyOf": [{"type": ["object", "null"]}]}}), "'anyOf', '0')"),
        (strict(**{"$defs": {"x": {"properties": {}}}}), "('$defs', 'x')"),
    ],
)
def test_strict_mode_is_checked_where_it_is_asked_for(schema: dict[str, Any], told: str) -> None:
    error = read(ask(tools=[tool(schema)]))
    assert isinstance(error, ErrorReply)
    assert error.code == "invalid_function_parameters"
    assert told in error.message
    assert isinstance(read(ask(tools=[tool(schema, strict=False)])), Call)
    assert schema_fault(strict(), strict=True) is None


def test_a_schema_that_is_none_is_refused() -> None:
    for nonsense in ({"properties": [1]}, {"properties": {"a": {"enum": []}}}, {"allOf": [{"$ref": "#"}]}):
        error = read(ask(tools=[tool(nonsense, strict=False)]))
        assert isinstance(error, ErrorReply)
        assert error.code == "invalid_function_parameters"
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": nonsense}}
        error = read(ask(response_format=wanted))
        assert isinstance(error, ErrorReply)
        assert error.param == "response_format"


def test_a_schema_without_a_finite_value_comes_to_an_end() -> None:
    node = {"type": "object", "properties": {}, "required": [f"c{i}" for i in range(4)]}
    node["properties"] = {name: {"$ref": "#"} for name in node["required"]}
    assert isinstance(read(ask(tools=[tool(node, strict=False)])), Call)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["model", "messages", "tools", "tool_choice", "metadata", "response_format", "max_tokens", "temperature"]


@settings(deadline=None)
@given(field=st.sampled_from(FIELDS), value=JSON)
def test_no_nonsense_in_a_field_is_more_than_an_error(field: str, value: Any) -> None:
    assert isinstance(read({**ask(), field: value}), Call | ErrorReply)


@settings(deadline=None)
@given(value=JSON)
def test_no_nonsense_in_a_message_or_tool_is_more_than_an_error(value: Any) -> None:
    for word in ("role", "content", "tool_calls", "tool_call_id"):
        assert isinstance(read(ask(messages=[{**user("x"), word: value}])), Call | ErrorReply)
    for word in ("type", "function"):
        assert isinstance(read(ask(tools=[{**tool(), word: value}])), Call | ErrorReply)
    for body in (ask(metadata={"record": value, "gold": value}), value, [value]):
        assert isinstance(read(body), Call | ErrorReply)
