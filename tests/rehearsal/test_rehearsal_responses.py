"""The endpoint's Responses API, by a client that is not ours."""

from __future__ import annotations

from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from rehearsal.rehearsal_client import arguments, ask, forced, tool, with_endpoint
from rehearsal.test_rehearsal_judged import body_of

from pipeline.rehearsal import Rehearsal


def test_both_apis_give_the_same_label_and_the_same_usage() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        for text in ("I love it", "so dull", "what is it?"):
            chat = await client.chat.completions.create(**ask(text))
            response = await client.responses.create(**body_of("responses", text))
            reasoning, call = response.output
            assert (reasoning.type, call.type) == ("reasoning", "function_call")
            assert call.arguments == arguments(chat)
            assert chat.usage is not None
            assert response.usage is not None
            assert response.usage.input_tokens == chat.usage.prompt_tokens
            assert response.usage.output_tokens == chat.usage.completion_tokens
            assert (response.service_tier, response.store) == ("default", False)

    with_endpoint(test)


def test_an_answer_that_finds_no_room_is_incomplete() -> None:
    async def test(_: Rehearsal, client: AsyncOpenAI) -> None:
        words = {"type": "object", "properties": {"why": {"type": "string", "minLength": 400}}, "required": ["why"]}
        found = await client.responses.create(
            **body_of("responses", tools=[{"type": "function", "name": "label", "parameters": words, "strict": False}]),
            max_output_tokens=16,
        )
        assert found.incomplete_details is not None
        assert (found.status, found.incomplete_details.reason) == ("incomplete", "max_output_tokens")

    with_endpoint(test)


@pytest.mark.parametrize("kind", ["refusal", "content_filter", "no_tool"])
def test_a_fault_has_the_form_of_this_api(kind: str) -> None:
    async def test(_: Rehearsal, client: AsyncOpenAI) -> None:
        found = await client.responses.create(**body_of("responses"))
        parts = [part.type for item in found.output if item.type == "message" for part in item.content]
        wanted = {"refusal": ["refusal"], "content_filter": [], "no_tool": ["output_text"]}
        assert parts == wanted[kind]
        assert found.status == ("incomplete" if kind == "content_filter" else "completed")

    with_endpoint(test, faults={kind: 1.0})


def test_a_conversation_goes_on_with_all_that_the_model_said() -> None:
    async def test(_: Rehearsal, client: AsyncOpenAI) -> None:
        given: list[Any] = [*body_of("responses")["input"]]
        for turn in range(5):
            choice = {"tool_choice": "auto"} if turn else {}
            found = await client.responses.create(**{**body_of("responses"), "input": given, **choice})
            calls = [item for item in found.output if item.type == "function_call"]
            if not calls:
                break
            results = [{"type": "function_call_output", "call_id": call.call_id, "output": "ok"} for call in calls]
            given += [*(item.to_dict() for item in found.output), *results]
        assert turn
        assert "simulated" in found.output_text

    with_endpoint(test)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"encrypted_content": None}, NotFoundError, "Items are not persisted"),
        ({"encrypted_content": "zork"}, BadRequestError, "could not be verified"),
        ({}, BadRequestError, "without its required following item"),
    ],
)
def test_reasoning_that_no_server_would_take_is_refused(change: dict[str, Any], error: Any, told: str) -> None:
    async def test(_: Rehearsal, client: AsyncOpenAI) -> None:
        first = await client.responses.create(**body_of("responses"))
        thought = {**first.output[0].to_dict(), **change}
        given = [*body_of("responses")["input"], thought]
        with pytest.raises(error, match=told):
            await client.responses.create(**{**body_of("responses"), "input": given})

    with_endpoint(test)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [tool()]}, "tools[0].name"),
        ({"tool_choice": forced()}, "tool_choice"),
        ({"messages": []}, "messages"),
        ({"max_output_tokens": 15}, "max_output_tokens"),
        ({"input": [{"role": "zork", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ],
)
def test_what_the_api_would_not_take_is_refused_by_its_names(more: dict[str, Any], param: str) -> None:
    async def test(_: Rehearsal, client: AsyncOpenAI) -> None:
        with pytest.raises(BadRequestError) as caught:
            await client.responses.create(**{**body_of("responses"), "extra_body": more})
        assert caught.value.param == param

    with_endpoint(test)
