"""Answers that end for odd reasons, and all kinds of failures in one run: each record ends as it should.

Over real sockets, with a real task.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from oddserver import Call, error, good, night, page

from pipeline.engine import Ending
from pipeline.records import Outcome, Status
from pipeline.task import TaskOptions, build_task

RunOn = Callable[[Any], Any]
Says = Callable[[], web.StreamResponse]
LABEL = '{"label": "good"}'


def labelling(run_on: RunOn, answer: Callable[[Call], Any], count: int = 60) -> Any:
    """A run of a real task, whose label is good or bad."""
    task = build_task(TaskOptions(model="m", prompt="{{ text }}", labels={"label": ["good", "bad"]}))
    return night(run_on, answer, count, task=task)


def body(**more: Any) -> web.Response:
    """A completion with this in it."""
    return web.json_response({"id": "x", "object": "chat.completion", "model": "m", **more})


def ended(reason: str, **more: Any) -> web.Response:
    """A completion whose choice ended for this reason."""
    return body(choices=[{"index": 0, "finish_reason": reason, **more}])


def silent(reason: str) -> web.Response:
    """The same with a message that says nothing."""
    return ended(reason, message={"role": "assistant", "content": None})


#: How Gemini, Bedrock and gateways before them say that the model's call is none.
UNUSABLE: dict[str, Says] = {
    "Gemini": lambda: silent("function_call_filter: MALFORMED_FUNCTION_CALL"),
    "Gemini, plain": lambda: silent("MALFORMED_FUNCTION_CALL"),
    "without a message": lambda: ended("malformed_function_call"),
    "with a call": lambda: good(LABEL, finish_reason="UNEXPECTED_TOOL_CALL"),
    "Bedrock": lambda: silent("malformed_tool_use"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_call_that_the_server_could_not_read_is_asked_again(moved_clock: RunOn, kind: str) -> None:
    found = labelling(
        moved_clock, lambda call: UNUSABLE[kind]() if call.number == 5 and not call.again else good(LABEL)
    )
    assert (found.ending, found.without, found.total) == (Ending.COMPLETE, set(), 61)
    repaired = next(one for one in found.outcomes if one.record.ordinal == 5)
    assert (repaired.attempts, repaired.repairs) == (2, 1)


#: How a filter takes an answer, or the prompt before there is one.
FILTERED: dict[str, Says] = {
    "OpenAI": lambda: silent("content_filter"),
    "Azure, no message": lambda: ended("content_filter", content_filter_results={"hate": {"filtered": True}}),
    "null for a message": lambda: ended("content_filter", message=None),
    **{
        reason: (lambda reason=reason: silent(reason))  # type: ignore[misc]
        for reason in ("SAFETY", "RECITATION", "content_filter: PROHIBITED_CONTENT", "guardrail_intervened", "refusal")
    },
    "no choice, Gemini": lambda: body(choices=[], promptFeedback={"blockReason": "OTHER"}),
    "no choice, Azure": lambda: body(
        choices=[], prompt_filter_results=[{"content_filter_results": {"jailbreak": {"filtered": True}}}]
    ),
    "no choice, a reason": lambda: body(choices=[], finish_reason="content_filter"),
}


@pytest.mark.parametrize("kind", FILTERED)
def test_an_answer_that_a_filter_took_is_refused_at_once(moved_clock: RunOn, kind: str) -> None:
    found = labelling(moved_clock, lambda call: FILTERED[kind]() if call.number == 5 else good(LABEL))
    assert (found.ending, found.without, found.codes, found.calls[5]) == (Ending.COMPLETE, {5}, {"refused": 1}, 1)


@pytest.mark.parametrize("choices", [[], None, [{}], [{"index": 0, "finish_reason": "stop"}], [{"delta": {}}]])
@pytest.mark.parametrize("until_s", [60, 86_400])
def test_answers_without_a_choice_are_waited_for_ten_minutes(moved_clock: RunOn, choices: Any, until_s: float) -> None:
    """They were an outage, for six hours."""
    found = labelling(
        moved_clock, lambda call: body(choices=choices) if 0.2 < call.at_s < until_s else good(LABEL), 200
    )
    assert found.without == set()
    if until_s == 60:
        assert (found.ending, found.stopped, len(found.labelled)) == (Ending.COMPLETE, None, 200)
        return
    assert found.ending is Ending.STOPPED
    assert "a completion without a choice" in str(found.stopped)
    assert 0 < len(found.labelled) < 200
    assert 600 <= found.took_s < 700
    assert found.total < 600


def test_an_answer_without_a_choice_to_one_record_costs_that_record(moved_clock: RunOn) -> None:
    found = labelling(moved_clock, lambda call: body(choices=[]) if call.number == 5 else good(LABEL))
    assert (found.ending, found.without, found.codes) == (Ending.COMPLETE, {5}, {"unavailable": 1})


#: What befalls any call, and what is said of single records each time, with how these end.
ANY: tuple[Says, ...] = (
    lambda: error(429, "Rate limit reached for requests", "requests"),
    lambda: page(200, "Just a moment..."),
    lambda: error(200, "The upstream is away", code=502),
    lambda: error(503, "The model is overloaded"),
    lambda: body(choices=[]),
    lambda: silent("function_call_filter: MALFORMED_FUNCTION_CALL"),
)
OF_ONE: dict[int, tuple[Says, str]] = {
    7: (lambda: error(503, "This model's maximum context length is 4 tokens"), "bad_request"),
    17: (lambda: error(400, "Bad request", "invalid_request_error"), "bad_request"),
    27: (lambda: error(403, "Your input was flagged", "permission_error"), "bad_request"),
    37: (lambda: ended("content_filter"), "refused"),
    47: (lambda: good('{"label": "ugly"}'), "invalid_label"),
}


@pytest.mark.parametrize("seed", range(3))
def test_all_kinds_of_failures_in_one_run_lose_no_record(moved_clock: RunOn, seed: int) -> None:
    chance = random.Random(seed)

    def answer(call: Call) -> web.StreamResponse:
        if call.number in OF_ONE:
            return OF_ONE[call.number][0]()
        return chance.choice(ANY)() if not call.again and chance.random() < 0.3 else good(LABEL)

    found = labelling(moved_clock, answer, 200)
    assert (found.ending, found.stopped, len(found.outcomes)) == (Ending.COMPLETE, None, 200)
    assert {one.record.ordinal: _code(one) for one in found.outcomes if one.status is not Status.LABELLED} == {
        number: code for number, (_says, code) in OF_ONE.items()
    }


def _code(outcome: Outcome) -> str:
    assert outcome.problem is not None
    return outcome.problem.code
