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
from pipeline.providers import ClientOptions, HttpProvider
from pipeline.records import UNUSABLE_CALL, Answer, Response, ServerLimits, ToolCall, Usage

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
        told = {"headers": {"x-team": "labels", "OpenAI-Organization": "org-1", "OpenAI-Project": "proj-1"}}
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
    assert not [name for name in got.headers if name.lower().startswith("x-stainless-")]
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
            provider = HttpProvider(options, annotate=lambda asked: {"record": asked.record.key})
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


AN_OBJECT = ("arguments that are an object, not a JSON text",)


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ({"name": "f", "arguments": {"a": [1]}}, ToolCall("c", "f", '{"a":[1]}', AN_OBJECT)),
        ({"name": "f", "arguments": {"a": 2**70}}, ToolCall("c", "f", f'{{"a":{2**70}}}', AN_OBJECT)),
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
    "usage",
    [None, [], {}, {"prompt_tokens": "7"}, {"prompt_tokens": -1, "prompt_tokens_details": 3}, {"prompt_tokens": 2**63},
     {"prompt_tokens": 7, "completion_tokens": 2**70}, {"prompt_tokens": 7, "completion_tokens": -3},
     {"prompt_tokens": 1.5, "completion_tokens": 1}, {"prompt_tokens": True, "completion_tokens": 1},
     {"prompt_tokens": 1e300, "completion_tokens": 1}],
)  # fmt: skip
def test_a_usage_that_is_none_counts_nothing(usage: Any) -> None:
    assert answer_to(completion(usage=usage)).usage == Usage()


def test_parts_of_a_usage_are_no_more_than_the_whole() -> None:
    details = {"cached_tokens": 2**63, "cache_write_tokens": 9}
    usage = {"prompt_tokens": 7.0, "completion_tokens": 3, "prompt_tokens_details": details}
    assert answer_to(completion(usage=usage)).usage == Usage(7, 3, 0, 0, 7)


@pytest.mark.parametrize("body", [b"\xef\xbb\xbf%s", b'{"x":"\xff\xfe",' + b"%s"])
def test_bytes_that_are_no_text_beside_the_answer_do_no_harm(body: bytes) -> None:
    whole = codec.dumps(completion())
    assert answer_to(body % (whole if body.endswith(b"\xbf%s") else whole[1:])).answer.text == "positive"


def test_half_a_character_in_an_answer_is_read_as_its_sign() -> None:
    """A model that quotes a text which was cut in the middle of an emoji: that was an outage for everyone."""
    body = codec.dumps(completion(message={"role": "assistant", "content": "cut HALF"}))
    response = asyncio.run(asked(answers(body.replace(b"HALF", b"\\ud83d"))))
    assert response.answer.text == "cut \ufffd"


def test_bytes_that_are_no_text_within_the_answer_are_no_answer() -> None:
    body = codec.dumps(completion()).replace(b"positive", b"posi\xfftive")
    with pytest.raises(UnavailableError, match="not text"):
        answer_to(body)


# The second code is Groq's for JSON that does not fit a schema (amurex-backend#38): it was taken for a bad request.
@pytest.mark.parametrize("code", ["tool_use_failed", "json_validate_failed"])
def test_a_call_that_the_server_could_not_use_is_an_answer_without_one(code: str) -> None:
    error = {"message": "Please adjust your prompt.", "code": code, "failed_generation": "<function=f"}
    response = asyncio.run(asked(answers({"error": error}, 400, x_request_id="r")))
    assert response.answer == Answer(text="<function=f", finish_reason=UNUSABLE_CALL)
    assert (response.usage, response.request_id) == (Usage(), "r")


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, "litellm.BadRequestError: OpenAIException - Failed to call a function. Please adjust your prompt."),
        (500, 'error parsing tool call: raw=\'{"label":"a"\', err=unexpected end of JSON input'),  # ollama#12064
        (500, 'Failed to parse input at pos 12: <tool_call>{"name": f'),  # llama.cpp#24644
    ],
)
def test_a_server_that_has_only_words_for_it_tells_the_same(status: int, told: str) -> None:
    """With neither the code nor what the model wrote: the record was rejected for it, or asked as before."""
    error = {"message": told, "type": "invalid_request_error", "param": None, "code": str(status)}
    response = asyncio.run(asked(answers({"error": error}, status)))
    assert (response.answer.finish_reason, response.answer.calls) == (UNUSABLE_CALL, ())


def test_a_call_in_the_form_before_tools_is_read() -> None:
    message = {"content": None, "function_call": {"name": "f", "arguments": "{}"}}
    assert answer_to(completion(message=message)).answer.calls == (
        ToolCall("", "f", "{}", ("function_call, as before there were tools",)),
    )


def test_a_packed_answer_is_unpacked() -> None:
    body = gzip.compress(codec.dumps(completion()))
    assert answer_to(body, Content_Encoding="gzip").answer.text == "positive"


@pytest.mark.parametrize(
    "body",
    [b"<html>Bad gateway</html>", b"{}", b'"hello"', b"null", b"[1]", b'{"choices":', b"", b"\xff\xfe\x00",
     b'{"choices":[]}', b'{"choices":null}', b'{"choices":[{}]}', b'{"choices":["x"]}', b'{"choices":[{"message":1}]}'],
)  # fmt: skip
def test_a_200_that_is_no_completion_is_no_answer(body: bytes) -> None:
    with pytest.raises(UnavailableError, match=r"a 200 that is not|a completion without a choice") as caught:
        asyncio.run(asked(answers(body)))
    assert (caught.value.status, caught.value.billed) == (200, True)


def test_a_200_with_an_upstreams_error_tells_it() -> None:
    with pytest.raises(UnavailableError, match="upstream is away"):
        asyncio.run(asked(answers({"error": {"message": "upstream is away", "code": 502}})))


# -- where it goes -------------------------------------------------------------------------------------------------


def test_a_query_in_the_address_stands_behind_the_path() -> None:
    seen: list[str] = []

    async def handler(got: web.Request) -> web.Response:
        seen.append(got.path_qs)
        return web.json_response(completion() if got.method == "POST" else {"id": "m", "object": "model"})

    async def main() -> None:
        async with served(handler) as base_url, provider_at(f"{base_url}?api-version=2024-10-21") as provider:
            await provider(request())
            await provider.model("m")

    asyncio.run(main())
    assert seen == ["/v1/chat/completions?api-version=2024-10-21", "/v1/models/m?api-version=2024-10-21"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("road", ["call", "model"])
def test_nothing_is_sent_on_to_another_host(status: int, road: str) -> None:
    """The record, the key, api-key and organization are for the host that the config names."""
    reached: list[str] = []

    async def other(got: web.Request) -> web.Response:
        reached.append(got.path)
        return web.json_response(completion())

    async def main() -> None:
        async with served(other) as elsewhere:
            handler = answers(b"", status, Location=f"{elsewhere.replace('127.0.0.1', 'localhost')}/chat/completions")
            told = {"headers": {"api-key": "secret-value", "OpenAI-Organization": "org-1"}}
            async with served(handler) as base_url, provider_at(base_url, **told) as provider:
                await (provider(request()) if road == "call" else provider.model("m"))

    with pytest.raises(
        CredentialsError, match=r"redirects calls to http://localhost:\d+/v1/chat/completions"
    ) as caught:
        asyncio.run(main())
    assert caught.value.status == status
    assert reached == []


def test_a_redirect_that_keeps_host_and_call_is_followed() -> None:
    async def handler(got: web.Request) -> web.Response:
        if got.path == "/v1/chat/completions":
            return web.Response(status=307, headers={"Location": "/v2/chat/completions"})
        assert got.method == "POST"
        assert got.headers["Authorization"]
        return web.json_response(completion(message={"content": (await got.json())["model"]}))

    response = asyncio.run(asked(handler))
    assert response.answer.text == "m"


@pytest.mark.parametrize("location", ["http://[", "", "/v1/chat/completions"])
def test_a_redirect_that_leads_nowhere_ends(location: str) -> None:
    with pytest.raises(CredentialsError, match="307"):
        asyncio.run(asked(answers(b"", 307, Location=location)))


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:password@proxy.example:1080")

    async def main() -> None:
        async with provider_at("http://llm.example/v1") as provider:
            await provider(request())

    with pytest.raises(ConfigError, match=r"socks5://proxy\.example:1080 .*NO_PROXY=llm\.example") as caught:
        asyncio.run(main())
    assert "password" not in str(caught.value)


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
        provider = HttpProvider(ClientOptions(**{"base_url": "http://127.0.0.1/v1", "api_key": KEY, **options}))
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


def test_an_error_in_the_place_of_a_model_is_told() -> None:
    with pytest.raises(CredentialsError, match="bad key"):
        _model(answers({"error": {"message": "bad key", "code": 401}}))


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b'{"id":', b"[1]", b"{}", b'{"object":"list","data":[]}'])
def test_a_page_is_no_model(body: bytes) -> None:
    """An address without its /v1 often gives a page, and status 200: that is no "is available to this key"."""
    with pytest.raises(UnavailableError, match="is no model but"):
        _model(answers(body))


def test_a_headers_value_that_looks_like_a_secret_is_cut_from_answers_whatever_its_name_is() -> None:
    """A word that may well be a label stays: to cut it would change the label."""
    headers = {"X-Gateway": "gw-4711-hush-hush", "X-Provider": "sentiment", "X-Title": "https://me.example/app1"}
    options = ClientOptions(api_key="sk-1234567890", headers=headers)
    assert set(options.answer_secrets) == {"sk-1234567890", "gw-4711-hush-hush"}


def test_headers_that_a_server_says_back_are_cut_unless_they_were_asked_about() -> None:
    """The name of a tenant came back in labels. What stands in the record, or is a plain word, may be a label."""
    headers = {
        "X-Tenant": "acme-inner-team",
        "X-Title": "https://me.example/app",
        "X-Env": "production",
        "X-Lang": "en",
    }
    said = '{"label":"acme-inner-team: production, en, https:\\/\\/me.example\\/app"}'
    call = {"id": "c1", "type": "function", "function": {"name": "set_label", "arguments": said}}

    async def label(text: str) -> str:
        async with (
            served(answers(completion(message={"content": "acme-inner-team", "tool_calls": [call]}))) as base_url,
            provider_at(base_url, headers=headers) as provider,
        ):
            answer = (await provider(request(text))).answer
        assert answer.text == ("acme-inner-team" if "acme-inner-team" in text else "***")
        label: str = codec.loads(answer.calls[0].arguments)["label"]
        return label

    assert asyncio.run(label("hello")) == "***: production, en, ***"
    assert asyncio.run(label("is acme-inner-team there?")) == "acme-inner-team: production, en, ***"
    assert asyncio.run(label("see https://me.example/app")) == "***: production, en, https://me.example/app"


def test_signs_that_steer_a_terminal_are_spelled_out_in_what_a_server_says() -> None:
    """They went into failed.csv, run.log and notices as they came."""
    with pytest.raises(CallError) as caught:
        asyncio.run(asked(answers({"error": {"message": "no \x1b[2J\x9b1m\u202etxet"}}, 400)))
    assert "no \\x1b[2J\\x9b1m\\u202etxet" in str(caught.value)
