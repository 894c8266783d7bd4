"""Asking again: what the second request looks like."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from task_calls import read_label, repair
from task_conversation import is_conversation

from pipeline import codec
from pipeline.errors import AnswerError, InvalidAnswerError, TruncatedError
from pipeline.records import Answer, Record, Request, ToolCall
from pipeline.task import Task


def repaired(task: Task, request: Request, answer: Answer) -> Request:
    with pytest.raises(AnswerError) as caught:
        read_label(task, answer, request.record)
    again = repair(task, request, answer, caught.value)
    assert is_conversation(again.messages)
    return again


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    return make_task(system="You help.")


@pytest.fixture
def request_(task: Task, record: Record) -> Request:
    return task.render(record)


def test_an_invalid_label_is_shown_with_its_fault(task: Task, request_: Request, make_answer) -> None:
    again = repaired(task, request_, make_answer('{"label":"positiv"}'))
    assert again.messages[:2] == request_.messages
    assert again.messages[2:] == (
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "id0",
                    "type": "function",
                    "function": {"name": "set_label", "arguments": '{"label":"positiv"}'},
                }
            ],
        },
        {
            "role": "tool",
            "tool_call_id": "id0",
            "content": "label: 'positiv' is not one of ['positive', 'negative', 'neutral']. "
            "Call set_label again, once, with arguments that fit its schema.",
        },
    )
    assert again.tools is request_.tools
    assert again.parameters is request_.parameters
    assert again.record is request_.record
    assert again.digest != request_.digest
    assert again.size_tokens > request_.size_tokens


@pytest.mark.parametrize("arguments", ['{"label": "posi', "", "[1]", '"x"', "\ud800", '{"label":"' + "x" * 9000 + '"}'])
def test_arguments_that_a_server_would_refuse_are_not_echoed(
    task: Task, request_: Request, make_answer, arguments: str
) -> None:
    again = repaired(task, request_, make_answer(arguments))
    assert again.messages[2]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert again.messages[3]["content"].endswith(f"What you sent was: {arguments[:2000]}")
    assert codec.dumps(again.messages)


def test_each_of_several_calls_is_answered(task: Task, request_: Request, make_answer) -> None:
    again = repaired(task, request_, make_answer('{"label":"positive"}', '{"label":"neutral"}'))
    assert [message["role"] for message in again.messages[2:]] == ["assistant", "tool", "tool"]
    assert "2 calls" in again.messages[3]["content"]


def test_a_hundred_calls_are_not_all_shown(task: Task, request_: Request, make_answer) -> None:
    again = repaired(task, request_, make_answer(*["{}"] * 100))
    assert len(again.messages) == 2 + 1 + 8


def test_a_call_without_an_id_gets_one(task: Task, request_: Request) -> None:
    again = repaired(task, request_, Answer(calls=(ToolCall("", "set_label", "{}"), ToolCall("", "set_label", "{}"))))
    assert [message["tool_call_id"] for message in again.messages[3:]] == ["call_2_0", "call_2_1"]


@pytest.mark.parametrize(
    ("ids", "sent"),
    [
        (["x", "x", "x"], ["x", "call_2_1", "call_2_2"]),
        (["i" * 40, "i" * 41, "i" * 41], ["i" * 40, "call_2_1", "call_2_2"]),
        (["call_2_1", "call_2_1", ""], ["call_2_1", "call_2_1_", "call_2_2"]),
    ],
)
def test_ids_that_a_strict_server_refuses_are_sent_back_as_others(
    task: Task, request_: Request, ids: list[str], sent: list[str]
) -> None:
    calls = tuple(ToolCall(name, "set_label", "{}") for name in ids)
    again = repaired(task, request_, Answer(calls=calls))
    assert [message["tool_call_id"] for message in again.messages[3:]] == sent


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(text="It is positive."), "It is positive."),
        (Answer(), "(I did not call set_label.)"),
        (Answer(calls=(ToolCall("i", "no such name!", "{}"),)), "(I did not call set_label.)"),
    ],
)
def test_no_call_is_told_in_words(task: Task, request_: Request, answer: Answer, said: str) -> None:
    again = repaired(task, request_, answer)
    assert again.messages[2] == {"role": "assistant", "content": said}
    assert again.messages[3]["role"] == "user"
    assert again.messages[3]["content"].endswith("Call the function set_label, once.")


@pytest.mark.parametrize("system", [None, "You help."])
def test_a_second_repair_replaces_the_first(make_task, record: Record, make_answer, system: str | None) -> None:
    task = make_task(system=system)
    first = task.render(record)
    base = len(first.messages)
    request = first
    for answer in (make_answer("{"), Answer(text="x"), make_answer('{"label":1}'), make_answer("{}", "[]")):
        request = repaired(task, request, answer)
        assert request.messages[:base] == first.messages
        assert len(request.messages) <= base + 3
    assert request.size_tokens < first.size_tokens + 500


@pytest.mark.parametrize("key", ["max_completion_tokens", "max_tokens"])
def test_a_cut_answer_gets_twice_the_room(make_task, record: Record, make_answer, key: str) -> None:
    task = make_task(parameters={key: 50, "temperature": 0})
    first = task.render(record)
    second = repaired(task, first, make_answer('{"lab', finish_reason="length"))
    third = repaired(task, second, make_answer('{"lab', finish_reason="length"))
    assert [request.parameters[key] for request in (first, second, third)] == [50, 100, 200]
    assert second.parameters["temperature"] == 0
    assert second.messages == first.messages
    assert second.size_tokens == first.size_tokens + 50
    assert len({first.digest, second.digest, third.digest}) == 3


def test_the_room_is_kept_when_another_fault_follows(make_task, record: Record, make_answer) -> None:
    task = make_task(parameters={"max_completion_tokens": 50})
    cut = repaired(task, task.render(record), make_answer("{", finish_reason="length"))
    again = repaired(task, cut, make_answer("{}"))
    assert again.parameters["max_completion_tokens"] == 100
    assert len(again.messages) == 3


def test_a_cut_answer_without_a_limit_is_asked_to_be_brief(task: Task, request_: Request, make_answer) -> None:
    again = repaired(task, request_, make_answer("{", finish_reason="length"))
    assert again.messages[:2] == request_.messages
    assert again.messages[2]["role"] == "user"
    assert "Be brief" in again.messages[2]["content"]
    assert again.parameters == request_.parameters
    assert repaired(task, again, make_answer("{", finish_reason="length")).messages == again.messages


def test_any_other_fault_is_told_as_well(task: Task, request_: Request, make_answer) -> None:
    again = repair(task, request_, make_answer("{}"), AnswerError("odd"))
    assert again.messages[3]["content"].startswith("odd. Call set_label again")
    assert repair(task, request_, Answer(), TruncatedError()).messages != request_.messages
    assert repair(task, request_, Answer(), InvalidAnswerError()).messages[3]["role"] == "user"
