"""The Responses API over a real socket: what arrives at the server, and how its answers are read."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from aiohttp import web
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses import ResponseError
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai.types.responses.response_input_param import ResponseInputParam
from openai.types.shared import ChatModel, ResponsesModel
from provider_servers import answers, options, request, served
from pydantic import TypeAdapter

from pipeline import codec
from pipeline.errors import (
    CallError,
    CredentialsError,
    NoCompletionError,
    RateLimitedError,
    RecordRefusedError,
    UnavailableError,
)
from pipeline.providers import APIS, HttpProvider, needs_responses
from pipeline.records import ITEMS, Answer, Blob, Request, Response, ToolCall, Usage
from pipeline.task.repair import assign_call_ids, assistant_message

RESPONSES, CHAT = APIS["responses"], APIS["chat"]
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
TOOL = {"type": "function", "function": {"name": "set_label", "description": "d", "parameters": SCHEMA, "strict": True}}
FORCED = {"type": "function", "function": {"name": "set_label"}}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_1",
    "name": "set_label",
    "arguments": '{"label":"good"}',
    "status": "completed",
}
THOUGHT = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 29,
}


def message(*content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [*content], **more}


def text(words: str) -> dict[str, Any]:
    return {"type": "output_text", "text": words, "annotations": []}


def response(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    plain = {"id": "resp_1", "object": "response", "model": "m-2026", "status": "completed", "error": None}
    return {**plain, "output": list(output), "usage": USAGE, **more}


async def called(handler: Any, asked: Request) -> Response:
    async with served(handler) as base_url:
        provider = HttpProvider(options(base_url), RESPONSES)
        try:
            return await provider(asked)
        finally:
            await provider.close()


def answer_to(body: Any, **more: Any) -> Response:
    return asyncio.run(called(answers(body, **more), request()))


def body_of(**facts: Any) -> tuple[str, dict[str, Any]]:
    """The path and the body that arrive for a request."""
    seen: list[tuple[str, dict[str, Any]]] = []

    async def handler(got: web.Request) -> web.Response:
        seen.append((got.path, json.loads(await got.read())))
        return web.json_response(response(CALL))

    asyncio.run(called(handler, request(**facts)))
    (found,) = seen
    # A judge that is not ours: what the SDK knows as this API's parameters and input.
    assert set(found[1]) <= set(ResponseCreateParamsBase.__annotations__)
    TypeAdapter(ResponseInputParam).validate_python(found[1]["input"])
    return found


# -- what is sent ----------------------------------------------------------------------------------------------------


def test_tools_are_flat_and_nothing_is_stored() -> None:
    path, body = body_of(text="안녕 😀", tools=(TOOL,), tool_choice=FORCED, parameters={"temperature": 0})
    assert path == "/v1/responses"
    assert body == {
        "model": "m",
        "input": [{"role": "user", "content": "안녕 😀"}],
        "store": False,
        "tools": [{"type": "function", "name": "set_label", "description": "d", "parameters": SCHEMA, "strict": True}],
        "tool_choice": {"type": "function", "name": "set_label"},
        "temperature": 0,
    }


def test_a_tool_that_is_not_strict_says_so() -> None:
    """Left out, `strict` is true in this API and false in the other one."""
    loose = {"type": "function", "function": {"name": "set_label", "parameters": SCHEMA}}
    _, body = body_of(tools=(loose,), tool_choice="required")
    assert (body["tools"][0]["strict"], body["tool_choice"]) == (False, "required")


def test_parameters_stand_where_this_api_has_them() -> None:
    schema = {"name": "labels", "schema": SCHEMA, "strict": True}
    parameters = {
        "max_completion_tokens": 300,
        "reasoning_effort": "low",
        "reasoning": {"summary": "auto"},
        "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": schema},
        "service_tier": "flex",
        "store": True,
    }
    _, body = body_of(parameters=parameters)
    assert {name: value for name, value in body.items() if name not in ("model", "input")} == {
        "max_output_tokens": 300,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"verbosity": "low", "format": {"type": "json_schema", **schema}},
        "service_tier": "flex",
        "store": True,
    }


def test_every_parameter_of_chat_completions_has_its_place_or_is_refused() -> None:
    """By the SDK's lists, so that a new one is noticed."""
    chat = set(CompletionCreateParamsBase.__annotations__)
    native = set(ResponseCreateParamsBase.__annotations__)
    placed = {name for name, place in RESPONSES.names.items() if place[0] in native}
    written_by_us = {"messages", "functions", "function_call"}
    assert chat - native - written_by_us == (placed | set(RESPONSES.refused)) & chat
    assert placed == set(RESPONSES.names)
    assert not set(RESPONSES.refused) & (chat & native)


def test_pictures_and_files_are_parts_of_the_input() -> None:
    parts = [
        {"type": "text", "text": "look", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "image_url", "image_url": {"url": Blob(b"abc", name="p", prefix="data:image/png;base64,")}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": Blob(b"pdf", name="f", prefix="data:x;base64,")}},
    ]
    _, body = body_of(messages=({"role": "user", "content": parts},), media_tokens=9)
    assert body["input"][0]["content"] == [
        {"type": "input_text", "text": "look", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "input_image", "image_url": "data:image/png;base64,YWJj", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:x;base64,cGRm"},
    ]


# -- a conversation --------------------------------------------------------------------------------------------------


def next_messages(answer: Answer, *, name: str | None = None) -> tuple[Any, ...]:
    """The conversation after an answer whose calls were carried out; `name` is what a call is put right to."""
    calls = [replace(call, name=name or call.name) for call in answer.calls]
    named = assign_call_ids((), calls)
    told = [{"role": "tool", "tool_call_id": one, "content": "ok"} for one, _ in named]
    return ({"role": "user", "content": "hello"}, assistant_message(named, answer.text, answer.items), *told)


def test_reasoning_goes_back_with_its_call_as_it_came() -> None:
    said = message(text("I look it up."), phase="commentary")
    answer = answer_to(response(THOUGHT, said, CALL)).answer
    _, body = body_of(messages=next_messages(answer))
    result = {"type": "function_call_output", "call_id": "call_1", "output": "ok"}
    assert body["input"] == [{"role": "user", "content": "hello"}, THOUGHT, said, CALL, result]


def test_a_name_that_was_put_right_is_right_in_what_goes_back() -> None:
    answer = answer_to(response(THOUGHT, {**CALL, "name": "functions.set_label"})).answer
    _, body = body_of(messages=next_messages(answer, name="set_label"))
    assert body["input"][1:3] == [THOUGHT, CALL]


@pytest.mark.parametrize("empty", [{}, {"encrypted_content": None}, {"encrypted_content": ""}])
def test_reasoning_that_is_only_a_name_does_not_go_back(empty: dict[str, Any]) -> None:
    """The server was told to store nothing, and would find nothing by that name."""
    answer = answer_to(response({"id": "rs_1", "type": "reasoning", "summary": [], **empty}, CALL)).answer
    assert answer.items == ()
    _, body = body_of(messages=next_messages(answer))
    assert [item.get("type") for item in body["input"]] == [None, "function_call", "function_call_output"]


def test_reasoning_in_which_an_answer_was_cut_does_not_go_back() -> None:
    """The next turn was refused: "provided without its required following item"."""
    answer = answer_to(response(THOUGHT, CALL, {**THOUGHT, "id": "rs_2"})).answer
    _, body = body_of(messages=next_messages(answer))
    assert body["input"][1:3] == [THOUGHT, CALL]
    assert [item.get("type") for item in body["input"][3:]] == ["function_call_output"]


@pytest.mark.parametrize("call_id", ["", "x" * 80])
def test_where_a_call_got_another_id_the_plain_form_goes_back(call_id: str) -> None:
    answer = answer_to(response(THOUGHT, {**CALL, "call_id": call_id})).answer
    _, body = body_of(messages=next_messages(answer))
    _, called_, told = body["input"]
    assert called_ == {
        "type": "function_call",
        "call_id": "call_0_0",
        "name": "set_label",
        "arguments": CALL["arguments"],
    }
    assert told["call_id"] == "call_0_0"


def test_chat_completions_is_not_sent_what_is_not_its_own() -> None:
    answer = answer_to(response(THOUGHT, CALL)).answer
    messages = next_messages(answer)
    assert ITEMS in messages[1]
    sent = CHAT.body(request(messages=messages))["messages"]
    assert sent[1] == {name: value for name, value in messages[1].items() if name != ITEMS}


# -- how it is read --------------------------------------------------------------------------------------------------


def test_a_call_with_all_that_is_said_of_it() -> None:
    got = answer_to(response(THOUGHT, CALL), x_request_id="req_1")
    call = ToolCall("call_1", "set_label", '{"label":"good"}')
    assert got.answer == Answer((call,), finish_reason="tool_calls", items=(THOUGHT, CALL))
    assert got.usage == Usage(prompt=20, completion=9, cached=8, reasoning=5, cache_write=4)
    assert (got.model, got.request_id) == ("m-2026", "req_1")


def test_words_and_refusals() -> None:
    assert answer_to(response(message(text("a"), text("b")))).answer == Answer(text="ab", finish_reason="stop")
    refused = answer_to(response(message({"type": "refusal", "refusal": "no"}))).answer
    assert (refused.refusal, refused.text) == ("no", None)


@pytest.mark.parametrize(
    ("reason", "ends"),
    [
        ("max_output_tokens", "length"),
        ("content_filter", "content_filter"),
        ("steered", "steered"),
        (None, "incomplete"),
    ],
)
def test_an_incomplete_answer_says_why(reason: str | None, ends: str) -> None:
    half = {**CALL, "arguments": '{"lab', "status": "incomplete"}
    got = answer_to(response(half, status="incomplete", incomplete_details={"reason": reason}))
    assert (got.answer.finish_reason, got.answer.calls[0].arguments) == (ends, '{"lab')


def test_arguments_that_are_an_object_keep_their_digits() -> None:
    got = answer_to(response({**CALL, "arguments": {"n": 2**70}}))
    assert got.answer.calls[0].arguments == f'{{"n":{2**70}}}'


#: what each code of a failed response is
FAILED = {
    **dict.fromkeys(get_args(ResponseError.model_fields["code"].annotation), RecordRefusedError),
    "server_error": UnavailableError,
    "vector_store_timeout": UnavailableError,
    "rate_limit_exceeded": RateLimitedError,
    "data_residency_mismatch": CredentialsError,
}


@pytest.mark.parametrize("code", sorted(FAILED))
def test_a_success_that_has_failed_is_judged_by_its_code(code: str) -> None:
    failed = response(status="failed", error={"code": code, "message": "It did not work."})
    with pytest.raises(CallError) as caught:
        answer_to(failed)
    assert type(caught.value) is FAILED[code]
    assert "It did not work." in str(caught.value)


@pytest.mark.parametrize("status", ["failed", "cancelled", "queued", "in_progress"])
def test_a_response_that_has_not_ended_is_no_answer(status: str) -> None:
    with pytest.raises(UnavailableError, match=f"status is '{status}'"):
        answer_to(response(CALL, status=status))


@pytest.mark.parametrize("body", [{}, [], "text", {"output": "x"}, {"object": "response", "output": None}, b"<html>"])
def test_what_is_no_response_is_no_answer(body: Any) -> None:
    with pytest.raises(NoCompletionError):
        answer_to(body if isinstance(body, bytes) else codec.dumps(body))


ODD = [None, 3, "x", [], {}, {"type": 3}, {"type": "message"}, {"type": "message", "content": [None, {"text": 3}]}]


def test_odd_items_are_passed_over() -> None:
    got = answer_to(response(*ODD, CALL, usage={"input_tokens": 2**70, "output_tokens": 1}, model=None))  # type: ignore[arg-type]
    assert [call.name for call in got.answer.calls] == ["set_label"]
    assert (got.answer.text, got.usage, got.model) == (None, Usage(), "m")


def test_an_error_is_judged_as_in_the_other_api() -> None:
    told = {"error": {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}}
    with pytest.raises(CredentialsError, match=r"no such model \(POST .*/v1/responses\)"):
        answer_to(told, status=404)


def test_the_models_that_only_this_api_has_are_those_of_the_sdk() -> None:
    every = get_args(ResponsesModel)
    only_here = [name for one in every for name in get_args(one) if name not in get_args(ChatModel)]
    assert len(only_here) > 10
    assert [name for name in only_here if not needs_responses(name, {"reasoning_effort": "none"})] == []
    assert [name for name in get_args(ChatModel) if needs_responses(name, {"reasoning_effort": "none"})] == []


@pytest.mark.parametrize(
    ("model", "parameters", "told"),
    [
        ("gpt-6-luna", {}, "only with"),
        ("gpt-6-luna", {"reasoning_effort": "low"}, "only with"),
        ("gpt-5.6", {"reasoning_effort": "none"}, ""),
        ("gpt-5.5", {}, ""),
        ("qwen3", {"reasoning": None}, ""),
        ("gpt-4o", {"truncation": "auto"}, "the parameter truncation"),
    ],
)
def test_what_needs_this_api(model: str, parameters: dict[str, Any], told: str) -> None:
    found = needs_responses(model, parameters)
    assert told in found
    assert bool(found) == bool(told)
