"""The endpoint over real sockets: routes, headers, refusals, limits, stopping."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from rehearsal_client import Clock, arguments, ask, with_endpoint

from pipeline.rehearsal import Rehearsal


async def send(endpoint: Rehearsal, method: str, path: str, **more: Any) -> tuple[int, Any, Any]:
    """Status, headers and JSON of a raw request."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, endpoint.root_url + path, **more) as response,
    ):
        return response.status, response.headers, await response.json()


def test_a_forced_call_is_a_true_completion() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        raw = await client.chat.completions.with_raw_response.create(**ask())
        assert raw.headers["x-labelpipe-rehearsal"] == "simulated"
        completion = raw.parse()
        assert completion.object == "chat.completion"
        assert completion.model == "gpt-6-luna"
        assert completion.system_fingerprint == "rehearsal"
        assert completion.id.startswith("chatcmpl-")
        call = completion.choices[0].message.tool_calls[0]
        assert (call.type, call.function.name) == ("function", "label")
        assert json.loads(arguments(completion)) == {"label": "positive"}
        assert completion.choices[0].finish_reason == "stop"
        assert completion.usage.total_tokens == endpoint.books["r1"].tokens
        assert endpoint.base_url == f"http://127.0.0.1:{endpoint.port}/v1"

    with_endpoint(test)


def test_request_ids_are_on_every_answer_and_never_twice() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        seen = [(await client.chat.completions.create(**ask()))._request_id for _ in range(3)]
        for method, path in [("GET", "/v1/nothing"), ("GET", "/books"), ("PUT", "/v1/models"), ("GET", "/v1/models")]:
            seen.append((await send(endpoint, method, path))[1]["x-request-id"])
        assert len(set(seen)) == 7

    with_endpoint(test)


def test_models_are_listed_and_an_unknown_one_is_not_found() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        assert [model.id async for model in client.models.list()] == ["one", "two"]
        assert (await client.models.retrieve("two")).id == "two"
        for call in (client.models.retrieve("three"), client.chat.completions.create(**ask(model="three"))):
            with pytest.raises(openai.NotFoundError) as caught:
                await call
            assert caught.value.code == "model_not_found"

    with_endpoint(test, models=("one", "two"))


def test_without_a_list_every_model_is_served() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        assert (await client.chat.completions.create(**ask(model="my/own:model"))).model == "my/own:model"
        assert (await client.models.retrieve("my-own")).id == "my-own"

    with_endpoint(test, models=())


def test_unknown_paths_and_methods_are_told_in_json() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        status, _, told = await send(endpoint, "GET", "/v1/chat/completion")
        assert (status, told["error"]["code"]) == (404, "unknown_url")
        status, _, told = await send(endpoint, "GET", "/v1/chat/completions")
        assert (status, told["error"]["type"]) == (405, "invalid_request_error")

    with_endpoint(test)


def test_another_key_is_refused_everywhere_under_the_prefix_and_not_repeated() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        await client.chat.completions.create(**ask())
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.with_options(api_key="sk-wrong").chat.completions.create(**ask())
        assert caught.value.code == "invalid_api_key"
        assert "sk-wrong" not in str(caught.value)
        assert (await send(endpoint, "GET", "/v1/models"))[0] == 401
        assert (await send(endpoint, "GET", "/health"))[0] == 200
        assert endpoint.books.totals().by_status == {200: 1, 401: 1}

    with_endpoint(test, api_key="sk-right")


def test_bodies_that_cannot_be_read_are_refused_and_counted() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        path = "/v1/chat/completions"
        status, _, told = await send(endpoint, "POST", path, data=b'{"model": ')
        assert (status, told["error"]["type"]) == (400, "invalid_request_error")
        assert "parse" in told["error"]["message"]
        assert (await send(endpoint, "POST", path, data=io.BytesIO(bytes(64 * 1024 * 1024 + 1))))[0] == 413
        status, _, told = await send(endpoint, "POST", path, json={"model": "gpt-6-luna", "messages": []})
        assert (status, told["error"]["param"]) == (400, "messages")
        assert endpoint.books.totals().failed == {"invalid": 3}
        assert endpoint.books.totals().in_flight == 0

    with_endpoint(test)


def test_a_prompt_beyond_the_context_is_refused_by_name() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**ask("long " * 1000))
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
        assert endpoint.books["r1"].failed == {"invalid": 1}
        await client.chat.completions.create(**ask("short"))

    with_endpoint(test, context_tokens=500)


# -- limits -----------------------------------------------------------------------------------------------------------


def test_limits_show_in_the_headers_and_refuse_with_the_exact_wait() -> None:
    clock = Clock()

    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        raw = await client.chat.completions.with_raw_response.create(**ask())
        assert raw.headers["x-ratelimit-limit-requests"] == "2"
        assert raw.headers["x-ratelimit-remaining-requests"] == "1"
        assert raw.headers["x-ratelimit-reset-requests"] == "30s"
        assert raw.headers["x-ratelimit-limit-tokens"] == "1000"
        usage = raw.parse().usage
        assert raw.headers["x-ratelimit-remaining-tokens"] == str(1000 - usage.prompt_tokens - 16)
        await client.chat.completions.create(**ask())
        clock.now += 12.75
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**ask())
        headers = caught.value.response.headers
        assert (headers["retry-after-ms"], headers["retry-after"]) == ("17250", "18")
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "requests")
        clock.now += 17.25
        await client.chat.completions.create(**ask())
        assert (endpoint.books["r1"].answered, endpoint.books["r1"].refused) == (3, 1)

    with_endpoint(test, clock=clock, requests_per_minute=2, tokens_per_minute=1000)


def test_the_door_counts_the_maximum_that_was_asked_for() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**ask(max_completion_tokens=1000))
        assert caught.value.type == "tokens"
        assert "too large" in caught.value.message
        assert "retry-after" not in caught.value.response.headers
        await client.chat.completions.create(**ask(max_completion_tokens=900))

    with_endpoint(test, clock=Clock(), tokens_per_minute=1000)


def test_headers_and_hints_can_be_left_out() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        raw = await client.chat.completions.with_raw_response.create(**ask())
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**ask())
        for headers in (raw.headers, caught.value.response.headers):
            assert not [name for name in headers if name.startswith(("x-ratelimit", "retry-after"))]

    with_endpoint(test, clock=Clock(), requests_per_minute=1, headers=False, retry_after=False)


def test_faults_count_against_the_limits_and_refusals_are_no_attempts() -> None:
    clock = Clock()

    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        for error in (openai.InternalServerError, openai.RateLimitError):
            with pytest.raises(error):
                await client.chat.completions.create(**ask())
        entry = endpoint.books["r1"]
        assert (entry.calls, entry.served, entry.refused) == (2, 1, 1)

    with_endpoint(test, clock=clock, requests_per_minute=1, faults={"500": 1.0})


def test_the_quota_gives_exactly_so_many_answers_however_many_ask_at_once() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        calls = [client.chat.completions.create(**ask(record=f"r{i}")) for i in range(30)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in found if isinstance(one, openai.RateLimitError)]
        assert len(refused) == 20
        assert {(one.code, one.type) for one in refused} == {("insufficient_quota", "insufficient_quota")}
        assert not [one for one in refused if "retry-after" in one.response.headers]
        totals = endpoint.books.totals()
        assert (totals.answered, totals.refused, totals.failed) == (10, 0, {"quota": 20})

    with_endpoint(test, quota_after=10, latency_ms=20.0)


def test_a_fault_that_costs_nothing_does_not_use_up_the_quota() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        for _ in range(3):
            with pytest.raises(openai.InternalServerError):
                await client.chat.completions.create(**ask("a bomb"))
        await client.chat.completions.create(**ask("no harm"))
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(**ask("no harm"))

    with_endpoint(test, quota_after=1, poison={"bomb": "503"})


def test_an_outage_is_counted_from_the_first_call() -> None:
    clock = Clock()

    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        clock.now += 100.0  # before the first call no time goes by
        met = []
        for _ in range(5):
            try:
                await client.chat.completions.create(**ask())
                met.append(200)
            except openai.APIStatusError as error:
                met.append(error.status_code)
            clock.now += 10.0
        assert met == [200, 503, 503, 200, 503]
        assert endpoint.books["r1"].failed == {"outage": 3}

    with_endpoint(test, clock=clock, outages=[(10.0, 30.0), (40.0, 41.0)])


def test_a_crowd_is_slower_and_a_larger_one_refused() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        calls = [client.chat.completions.create(**ask(record=f"r{i}")) for i in range(6)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in found if isinstance(one, openai.RateLimitError)]
        assert len(refused) == 2
        assert all(int(one.response.headers["retry-after-ms"]) >= 500 for one in refused)
        totals = endpoint.books.totals()
        assert (totals.answered, totals.refused, totals.peak_in_flight) == (4, 2, 5)

    with_endpoint(test, max_in_flight=2, latency_ms=250.0)
