"""A judge that is not ours: the OpenAI SDK's own models validate every reply of the rehearsal endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
import httpx2
import pytest
from openai import AsyncOpenAI
from openai.types import ErrorObject, Model
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel, ValidationError
from rehearsal.rehearsal_client import ask, tool, with_endpoint

from pipeline import codec
from pipeline.rehearsal import FAULT_KINDS, Rehearsal

PATHS: Mapping[str, tuple[str, type[Any]]] = {
    "chat": ("/chat/completions", ChatCompletion),
    "responses": ("/responses", Response),
}


class Refused(BaseModel):
    """The body of a refusal."""

    error: ErrorObject


#: Faults of the connection never arrive, and these are no answers of the API at all: the models refuse them too.
NEVER_ARRIVE = {"reset", "cut", "hang"}
NOT_THE_API = {
    *("html", "502_html", "empty", "broken", "string"),
    *("402_in_200", "choice_error", "finish_error", "error_text", "innererror"),
}


def flat(function_tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", **function_tool["function"]}


def body_of(api: str, text: str = "I love it", **more: Any) -> dict[str, Any]:
    chat = ask(text)
    if api == "chat":
        return {**chat, **more}
    responses = {"model": chat["model"], "input": chat["messages"], "metadata": chat["metadata"], "store": False}
    return {**responses, "tools": [flat(tool())], "tool_choice": {"type": "function", "name": "label"}, **more}


async def told(endpoint: Rehearsal, path: str, body: Any, method: str = "POST") -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and content, as they are on the wire."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, endpoint.base_url + path, data=None if body is None else codec.dumps(body)) as reply,
    ):
        return reply.status, reply.headers, await reply.read()


def judge_error(status: int, headers: Mapping[str, str], content: bytes, client: AsyncOpenAI) -> ErrorObject:
    """The error as the SDK reads it; its headers too."""
    error = ErrorObject.model_validate(codec.loads(content)["error"])
    reply = httpx2.Response(status, headers=dict(headers), request=httpx2.Request("POST", "http://x"))
    raised = client._make_status_error(error.message, body=error.to_dict(), response=reply)
    assert (raised.status_code, raised.code, raised.type) == (status, error.code, error.type)
    assert raised.request_id == headers["x-request-id"]
    wait_s = client._parse_retry_after_header(reply.headers)
    assert (wait_s is not None) == ("Retry-After" in headers)
    return error


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("kind", ["", *(kind for kind in FAULT_KINDS if kind not in NEVER_ARRIVE)])
def test_every_reply_is_what_the_sdk_knows(api: str, kind: str) -> None:
    path, model = PATHS[api]

    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        status, headers, content = await told(endpoint, path, body_of(api))
        assert headers["x-request-id"].startswith("req_")
        if kind in NOT_THE_API:
            with pytest.raises((ValidationError, KeyError, codec.JSONDecodeError)):
                (model if status == 200 else Refused).model_validate(codec.loads(content))
        elif status == 200:
            model.model_validate(codec.loads(content))
        else:
            judge_error(status, headers, content, client)

    faults = {kind: 1.0} if kind else {}
    with_endpoint(test, faults=faults, requests_per_minute=600, tokens_per_minute=100_000, slow_factor=1.0)


WRONG: Mapping[str, Any] = {
    "no model": {"model": None},
    "an unknown model": {"model": "gpt-0"},
    "no temperature": {"temperature": 9},
    "an unknown parameter": {"zork": 1},
    "a tool without a name": {"tools": [{"type": "function"}]},
    "a choice that is no tool": {"tool_choice": {"type": "function", "name": "x", "function": {"name": "x"}}},
    "a schema that is not strict": "loose",
    "too little room": {"max_output_tokens": 1},
}


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("what", WRONG)
def test_every_refusal_is_what_the_sdk_knows(api: str, what: str) -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        loose = tool({"type": "object", "properties": {"label": {"type": "string"}}})
        more = {"tools": [loose if api == "chat" else flat(loose)]} if WRONG[what] == "loose" else WRONG[what]
        status, headers, content = await told(endpoint, PATHS[api][0], body_of(api, **more))
        assert status in (400, 404)
        error = judge_error(status, headers, content, client)
        assert error.type == "invalid_request_error"

    with_endpoint(test)


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize(
    "door", [{"quota_after": 0}, {"requests_per_minute": 1, "burst_s": 1}, {"outages": [(0.0, 60.0)]}, {"api_key": "k"}]
)
def test_what_is_kept_out_is_told_as_the_sdk_knows_it(api: str, door: Any) -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        for _ in range(2):
            status, headers, content = await told(endpoint, PATHS[api][0], body_of(api))
        judge_error(status, headers, content, client)
        assert status in (401, 429, 503)

    with_endpoint(test, **door)


def test_models_and_unknown_addresses_are_what_the_sdk_knows() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        _, _, content = await told(endpoint, "/models", None, "GET")
        assert [Model.model_validate(one).id for one in codec.loads(content)["data"]]
        for path, method, status in (("/zork", "POST", 404), ("/responses", "GET", 405), ("/models/gpt-0", "GET", 404)):
            found, headers, content = await told(endpoint, path, {} if method == "POST" else None, method)
            assert found == status
            judge_error(found, headers, content, client)

    with_endpoint(test)
