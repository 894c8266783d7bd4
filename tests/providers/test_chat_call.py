"""A call over a real socket: what arrives at the server, and how its answer is read."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest
from aiohttp import web
from provider_servers import KEY, answers, asked, completion, provider_at, request, served

from pipeline import codec
from pipeline.errors import CallError, ConfigError, CredentialsError, UnavailableError
from pipeline.providers import ChatProvider, ClientOptions
from pipeline.records import Answer, Response, ServerLimits, ToolCall, Usage

TOOL = {"type": "function", "function": {"name": "set_label", "parameters": {"type": "object"}}}


def answer_to(body: Any, **headers: str) -> Response:
    response = asyncio.run(asked(answers(body, **headers)))
    assert isinstance(response, Response)
    return response


# -- what is sent ----------------------------------------------------------------------------------------------------


def test_what_arrives_is_what_the_sdk_would_send() -> None:
    """Address, key, organisation and headers are the SDK's; the body is the request's, and one call is one call."""
    seen: list[tuple[web.Request, bytes]] = []

    async def handler(got: web.Request) -> web.Response:
        seen.append((got, await got.read()))
        return web.json_response(completion())

    async def main() -> None:
        told = {"organization": "org-1", "project": "proj-1", "headers": {"x-team": "labels"}}
        async with served(handler) as base_url, provider_at(base_url, **told) as provider:
            await provider(request("안녕 😀", tools=(TOOL,), parameters={"temperature": 0}))

    asyncio.run(main())
    ((got, body),) = seen
    assert (got.method, got.path) == ("POST", "/v1/chat/completions")
    assert got.headers["Authorization"] == f"Bearer {KEY}"
    assert got.headers["OpenAI-Organization"] == "org-1"
    assert got.headers["OpenAI-Project"] == "proj-1"
    assert got.headers["x-team"] == "labels"
    assert got.headers["Content-Type"] == "application/json"
    assert got.headers["User-Agent"].startswith("AsyncOpenAI/Python")
    assert codec.loads(body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "안녕 😀"}],
        "tools": [TOOL],
        "tool_choice": "auto",
        "temperature": 0,
    }


def test_without_tools_none_are_named_and_notes_go_into_the_metadata() -> None:
    bodies = []

    async def handler(got: web.Request) -> web.Response:
        bodies.append(await got.json())
        return web.json_response(completion())

    async def main() -> None:
        async with served(handler) as base_url:
            options = ClientOptions(base_url=base_url, api_key=KEY)
            provider = ChatProvider(options, annotate=lambda asked: {"record": asked.record.key})
            await provider(request(parameters={"metadata": {"team": "a"}}))
            await provider.close()
            await provider.close()

    asyncio.run(main())
    assert bodies[0]["metadata"] == {"team": "a", "record": "k0"}
    assert "tools" not in bodies[0]
    assert "tool_choice" not in bodies[0]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_nothing_is_tried_again_here(status: int) -> None:
    """The SDK would ask twice more behind the limits' back."""
    calls = 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.json_response({"error": {"message": "no"}}, status=status)

    with pytest.raises(CallError):
        asyncio.run(asked(handler))
    assert calls == 1


def test_two_hundred_calls_open_two_hundred_connections_and_the_next_two_hundred_none() -> None:
    opened: set[tuple[str, int]] = set()

    async def main() -> list[int]:
        everybody = asyncio.Barrier(200)

        async def handler(got: web.Request) -> web.Response:
            assert got.transport is not None
            opened.add(got.transport.get_extra_info("peername"))
            await everybody.wait()
            return web.json_response(completion())

        counts = []
        async with served(handler) as base_url, provider_at(base_url, max_connections=200) as provider:
            for _ in range(2):
                await asyncio.gather(*(provider(request()) for _ in range(200)))
                counts.append(len(opened))
        return counts

    assert asyncio.run(main()) == [200, 200]


# -- how the answer is read ------------------------------------------------------------------------------------------


def test_a_whole_answer() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "set_label", "arguments": '{"label":"positive"}'}}
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 16},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    body = completion(message={"content": None, "tool_calls": [call]}, finish_reason="tool_calls", usage=usage)
    response = answer_to(
        body,
        x_request_id="req-1",
        x_ratelimit_limit_requests="500",
        x_ratelimit_remaining_requests="499",
        x_ratelimit_reset_requests="120ms",
        x_ratelimit_limit_tokens="200000",
        x_ratelimit_remaining_tokens="0",
        x_ratelimit_reset_tokens="6m0s",
    )
    assert response.answer == Answer((ToolCall("c1", "set_label", '{"label":"positive"}'),), None, None, "tool_calls")
    assert response.usage == Usage(100, 20, 64, 5, 16)
    assert (response.model, response.request_id) == ("m-2026", "req-1")
    assert response.limits == ServerLimits(500, 499, 0.12, 200_000, 0, 360.0)
    assert 0 < response.latency_s < 5


def test_no_limits_without_their_headers() -> None:
    assert answer_to(completion()).limits is None


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ({"name": "f", "arguments": {"a": [1]}}, ToolCall("c", "f", '{"a":[1]}')),
        ({"name": "f", "arguments": {"a": 2**70}}, ToolCall("c", "f", f'{{"a":{2**70}}}')),
        ({"name": "f", "arguments": None}, ToolCall("c", "f", "null")),
        ({"name": "f"}, ToolCall("c", "f", "null")),
        ({"name": None, "arguments": "{}"}, ToolCall("c", "", "{}")),
        (None, ToolCall("c", "", "null")),
        ("f", ToolCall("c", "", "null")),
    ],
)
def test_odd_calls_are_kept_as_well_as_can_be(function: Any, call: ToolCall) -> None:
    """Some servers send the arguments as an object; all of it is for the task to judge."""
    message = {"content": None, "tool_calls": [{"id": "c", "function": function}, "no call"]}
    assert answer_to(completion(message=message)).answer.calls == (call,)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("yes", "yes"),
        (None, None),
        ([{"type": "text", "text": "ye"}, {"type": "text", "text": "s"}, {"type": "image"}, None], "yes"),
        (7, None),
    ],
)
def test_text_may_come_in_parts(content: Any, text: str | None) -> None:
    assert answer_to(completion(message={"content": content})).answer.text == text


def test_a_refusal_is_kept() -> None:
    response = answer_to(completion(message={"content": None, "refusal": "I cannot."}, finish_reason=3))
    assert (response.answer.refusal, response.answer.finish_reason) == ("I cannot.", None)


@pytest.mark.parametrize(
    "usage", [None, [], {}, {"prompt_tokens": "7"}, {"prompt_tokens": -1, "prompt_tokens_details": 3}]
)
def test_a_usage_that_is_none_counts_nothing(usage: Any) -> None:
    assert answer_to(completion(usage=usage)).usage == Usage()


def test_a_packed_answer_is_unpacked() -> None:
    body = gzip.compress(codec.dumps(completion()))
    assert answer_to(body, Content_Encoding="gzip").answer.text == "positive"


@pytest.mark.parametrize(
    "body",
    [b"<html>Bad gateway</html>", b"{}", b'"hello"', b"null", b"[1]", b'{"choices":', b"", b"\xff\xfe\x00",
     b'{"choices":[]}', b'{"choices":null}', b'{"choices":[{}]}', b'{"choices":["x"]}', b'{"choices":[{"message":1}]}'],
)  # fmt: skip
def test_a_200_that_is_no_completion_is_no_answer(body: bytes) -> None:
    with pytest.raises(UnavailableError, match="a 200 that is not") as caught:
        asyncio.run(asked(answers(body)))
    assert (caught.value.status, caught.value.billed) == (200, True)


def test_a_200_with_an_upstreams_error_tells_it() -> None:
    with pytest.raises(UnavailableError, match="upstream is away"):
        asyncio.run(asked(answers({"error": {"message": "upstream is away", "code": 502}})))


# -- what cannot be called -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"api_key": "sk-secret\n"}, "line break"),
        ({"api_key": ""}, "key"),
        ({"base_url": "http://127.0.0.1:99999/v1"}, "Port out of range"),
        ({"base_url": "http://[::1/v1"}, "base_url"),
        ({"headers": {"x-team": "a\r\nb"}}, "x-team"),
    ],
)
def test_what_can_never_be_called_is_a_mistake_in_the_config(options: dict[str, Any], said: str) -> None:
    """A key with the end of its line still on it came out of a worker as a ValueError."""

    async def main() -> None:
        provider = ChatProvider(ClientOptions(**{"base_url": "http://127.0.0.1/v1", "api_key": KEY, **options}))
        await provider(request())

    with pytest.raises(ConfigError, match=said) as caught:
        asyncio.run(main())
    assert "sk-secret" not in str(caught.value)


def test_the_key_is_in_no_repr() -> None:
    assert KEY not in repr(ClientOptions(api_key=KEY, headers={"api-key": KEY}))


# -- the model -------------------------------------------------------------------------------------------------------


def _model(handler: Any) -> Any:
    async def main() -> Any:
        async with served(handler) as base_url, provider_at(base_url) as provider:
            return await provider.model("m")

    return asyncio.run(main())


def test_the_server_says_what_it_knows_of_a_model() -> None:
    info = _model(answers({"id": "m", "object": "model", "shutdown_date": "2027-01-14"}))
    assert (info.id, info.shutdown_date) == ("m", "2027-01-14")
    assert _model(answers({"id": "m", "object": "model"})).shutdown_date is None


def test_an_unknown_model_is_told() -> None:
    with pytest.raises(CredentialsError, match="model_not_found"):
        _model(answers({"error": {"message": "no such model", "code": "model_not_found"}}, status=404))


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b'{"id":', b"[1]"])
def test_a_page_is_no_model(body: bytes) -> None:
    """An address without its /v1 often gives a page, and status 200: that is no "answers for this key"."""
    with pytest.raises(UnavailableError, match="is no model but"):
        _model(answers(body))
