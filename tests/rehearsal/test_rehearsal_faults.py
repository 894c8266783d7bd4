"""Every kind of fault, drawn and as a client meets it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from rehearsal_client import arguments, ask, tool, until, with_endpoint

from pipeline.errors import ConfigError
from pipeline.rehearsal import FAULT_KINDS, Rehearsal, RehearsalOptions
from pipeline.rehearsal.call_handler import FaultInjector

# -- drawing ----------------------------------------------------------------------------------------------------------


def injector(**options: Any) -> FaultInjector:
    return FaultInjector(RehearsalOptions(**options))


def test_draws_follow_from_seed_record_and_attempt_whatever_the_order() -> None:
    chances = {"500": 0.2, "429": 0.1, "reset": 0.1}
    calls = [(f"r{i}", attempt) for i in range(300) for attempt in (1, 2)]
    one = injector(faults=chances, seed=7, latency_jitter=0.2)
    other = injector(faults=dict(reversed(chances.items())), seed=7, latency_jitter=0.2)
    first = {call: one.draw(*call, "") for call in calls}
    assert {call: other.draw(*call, "") for call in reversed(calls)} == first
    assert {call: injector(faults=chances, seed=8, latency_jitter=0.2).draw(*call, "") for call in calls} != first
    kinds = Counter(draw.kind for draw in first.values())
    assert 90 < kinds["500"] < 150
    assert 40 < kinds["429"] < 80
    assert 0.79 < min(draw.pace for draw in first.values()) < 0.85 < 1.15 < max(draw.pace for draw in first.values())


def test_slow_calls_take_their_factor() -> None:
    faults = injector(slow_share=0.25, slow_factor=8.0)
    paces = Counter(faults.draw(f"r{i}", 1, "").pace for i in range(1000))
    assert set(paces) == {1.0, 8.0}
    assert 200 < paces[8.0] < 300
    assert injector(faults={"slow": 1.0}, slow_factor=3.0).draw("r", 1, "").pace == 3.0


def test_poison_hits_every_attempt_of_a_matching_prompt_and_no_other() -> None:
    faults = injector(poison={"bomb": "500", "slug": "slow"})
    assert [faults.draw("r", attempt, "a bomb here").kind for attempt in range(1, 9)] == ["500"] * 8
    assert faults.draw("r", 1, "a slug").pace == 10.0
    assert faults.draw("r", 1, "harmless").kind is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"faults": {"5oo": 0.1}}, "rehearsal.faults is '5oo'; expected one of 429, 400"),
        ({"poison": {"x": "boom"}}, "rehearsal.poison is 'boom'"),
        ({"faults": {"500": 0.7, "429": 0.7}}, "add up to 1 at most"),
        ({"faults": {"500": -0.1}}, "add up to 1 at most"),
        ({"accuracy": 1.5}, "rehearsal.accuracy is 1.5; expected a number from 0 to 1"),
        ({"requests_per_minute": 0}, "rehearsal.requests_per_minute is 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RehearsalOptions(**options)
    assert told in str(caught.value)


# -- as a client meets them -------------------------------------------------------------------------------------------


def meet(kind: str, *, timeout_s: float = 5.0, **body: Any) -> tuple[Any, dict[str, Any]]:
    """What the SDK gives or raises for a call with this fault, and the record's entry in the books."""

    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> tuple[Any, dict[str, Any]]:
        try:
            met: Any = await client.chat.completions.create(**ask(**body))
        except (openai.OpenAIError, ValueError) as error:
            met = error
        return met, endpoint.books["r1"].as_json()

    found: tuple[Any, dict[str, Any]] = with_endpoint(test, faults={kind: 1.0}, timeout_s=timeout_s)
    return found


MET = {
    "429": (openai.RateLimitError, "rate_limit_exceeded"),
    "400": (openai.BadRequestError, "invalid_prompt"),
    "too_long": (openai.BadRequestError, "context_length_exceeded"),
    "too_large": (openai.RateLimitError, "rate_limit_exceeded"),
    "tool_use_failed": (openai.BadRequestError, "tool_use_failed"),
    "thinking": (openai.BadRequestError, None),
    "error_text": (openai.BadRequestError, None),
    "innererror": (openai.BadRequestError, "400"),
    "402": (openai.APIStatusError, "insufficient_credits"),
    "403": (openai.PermissionDeniedError, "content_policy_violation"),
    "498": (openai.APIStatusError, "capacity_exceeded"),
    "401": (openai.AuthenticationError, "invalid_api_key"),
    "500": (openai.InternalServerError, None),
    "502": (openai.InternalServerError, None),
    "503": (openai.InternalServerError, None),
    "504": (openai.InternalServerError, None),
    "529": (openai.InternalServerError, None),
    "502_html": (openai.InternalServerError, None),
}


@pytest.mark.parametrize("kind", MET)
def test_errors_are_errors_of_the_sdk(kind: str) -> None:
    error, entry = meet(kind)
    expected, code = MET[kind]
    assert type(error) is expected
    assert error.code == code
    assert error.request_id.startswith("req_")
    assert entry == {**entry, "calls": 1, "answered": 0, "refused": 0, "failed": {kind: 1}, "tokens": 0, "label": None}
    if kind.isdecimal():
        assert error.status_code == int(kind)


def test_the_injected_429_says_how_long() -> None:
    error, _ = meet("429")
    assert error.response.headers["retry-after-ms"] == "120"
    assert error.response.headers["retry-after"] == "1"


def test_what_is_no_completion_gets_through_the_sdk_as_it_is() -> None:
    assert "<html>" in meet("html")[0]
    assert meet("empty")[0].choices is None
    assert meet("402_in_200")[0].choices is None
    assert meet("string")[0] == "the model is thinking"
    assert meet("finish_error")[0].choices[0].finish_reason == "error"
    assert meet("choice_error")[0].choices[0].error["code"] == 502
    assert isinstance(meet("broken")[0], json.JSONDecodeError)
    assert meet("empty")[1]["failed"] == {"empty": 1}
    assert meet("empty")[1]["tokens"] == 0


@pytest.mark.parametrize("kind", ["reset", "cut"])
def test_a_broken_connection(kind: str) -> None:
    error, entry = meet(kind)
    assert type(error) is openai.APIConnectionError
    assert entry["failed"] == {kind: 1}
    assert (entry["tokens"] > 0, entry["lost"]) == (kind == "cut", int(kind == "cut"))


def test_a_hanging_call_ends_with_the_client_s_patience() -> None:
    error, entry = meet("hang", timeout_s=0.5)
    assert isinstance(error, openai.APITimeoutError)
    assert entry["failed"] == {"hang": 1}


def test_stopping_lets_go_of_hanging_calls_at_once() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        call = asyncio.create_task(client.chat.completions.create(**ask()))
        await until(lambda: endpoint.books.totals().failed == {"hang": 1})
        await endpoint.stop()
        with pytest.raises(openai.APIConnectionError) as found:
            await call
        assert not isinstance(found.value, openai.APITimeoutError)

    with_endpoint(test, faults={"hang": 1.0}, timeout_s=60.0)


def test_slow_is_late_but_right() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> float:
        start = time.monotonic()
        completion = await client.chat.completions.create(**ask())
        assert json.loads(arguments(completion)) == {"label": "positive"}
        assert endpoint.books["r1"].answered == 1
        return time.monotonic() - start

    assert with_endpoint(test, faults={"slow": 1.0}, latency_ms=10.0, slow_factor=20.0) >= 0.2


def twisted(kind: str, **body: Any) -> Any:
    completion, entry = meet(kind, **body)
    assert entry["failed"] == {kind: 1}
    assert entry["answered"] == 0
    assert entry["tokens"] == completion.usage.total_tokens
    return completion.choices[0]


def test_answers_that_hold_no_valid_call() -> None:
    broken = twisted("bad_json").message.tool_calls[0].function.arguments
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken)
    assert json.loads(twisted("bad_label").message.tool_calls[0].function.arguments) == {"label": "none of these"}
    text = twisted("no_tool")
    assert text.message.tool_calls is None
    assert text.message.content
    assert twisted("wrong_tool").message.tool_calls[0].function.name == "label_other"
    assert twisted("prefixed").message.tool_calls[0].function.name == "functions.label"


def test_answers_that_were_declined_or_cut() -> None:
    assert "can't help" in twisted("refusal").message.refusal
    filtered = twisted("content_filter")
    assert (filtered.finish_reason, filtered.message.content) == ("content_filter", None)
    cut = twisted("length")
    assert cut.finish_reason == "length"
    assert '{"label":"positive"}'.startswith(cut.message.tool_calls[0].function.arguments)


def test_two_calls_that_do_not_agree() -> None:
    first, second = twisted("two_calls").message.tool_calls
    assert first.id != second.id
    assert first.function.arguments != second.function.arguments


def test_text_answers_can_be_twisted_too() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": tool()["function"]["parameters"]}}
    no_tools: dict[str, Any] = {"tools": None, "tool_choice": None, "response_format": wanted}
    assert json.loads(twisted("bad_label", **no_tools).message.content) == {"label": "none of these"}
    assert twisted("length", **no_tools).finish_reason == "length"
    for kind in ("wrong_tool", "prefixed", "two_calls"):
        assert json.loads(twisted(kind, **no_tools).message.content) == {"label": "positive"}


def test_every_kind_is_met_in_this_file() -> None:
    others = {
        "html",
        "402_in_200",
        "choice_error",
        "finish_error",
        "empty",
        "string",
        "broken",
        "reset",
        "cut",
        "hang",
        "slow",
    }
    twists = {
        "bad_json",
        "bad_label",
        "no_tool",
        "wrong_tool",
        "prefixed",
        "refusal",
        "content_filter",
        "length",
        "two_calls",
    }
    assert {*MET, *others, *twists} == set(FAULT_KINDS)


def test_a_whole_run_has_the_same_faults_again() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> dict[str, Any]:
        for i in (3, 1, 2, 1, 3, 4, 5, 6):
            try:
                await client.chat.completions.create(**ask(record=f"r{i}"))
            except openai.APIError:
                continue
        return {entry.name: (dict(entry.failed), entry.answered) for entry in endpoint.books}

    options: dict[str, Any] = {"faults": {"500": 0.3, "bad_label": 0.3, "empty": 0.2}, "seed": 5}
    assert with_endpoint(test, **options) == with_endpoint(test, **options)
