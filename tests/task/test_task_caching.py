"""The prompt cache: what a request tells a server about its constant part, and what it changes (nothing else)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from task_calls import repair

from pipeline import codec
from pipeline.errors import InvalidAnswerError, TaskError
from pipeline.records import Answer, Record, Request, ToolCall
from pipeline.task import Task, TaskOptions, build_task, cache_key, supports_breakpoint

MARK = {"mode": "explicit"}
EXAMPLES = [{"text": "좋아요", "label": {"label": "a"}}, {"text": "worse", "label": {"label": "b"}}]


def task_of(**changes: Any) -> Task:
    given: dict[str, Any] = {
        "model": "m",
        "prompt": "{{ text }}",
        "labels": {"label": ["a", "b"]},
        "system": "You help.",
    }
    return build_task(TaskOptions(**given | changes))


def request_of(task: Task, text: str = "fine") -> Request:
    return task.render(Record("f", 0, "k", {"text": text}, 1, 0))


# the key


def test_a_key_is_short_and_depends_on_every_part() -> None:
    assert re.fullmatch(r"labelpipe-[0-9a-f]{16}", cache_key(task_of().fingerprint))
    changes: list[dict[str, Any]] = [
        {},
        {"prompt": "{{ text }}!"},
        {"system": "s"},
        {"labels": {"label": ["b", "a"]}},
        {"model": "n"},
        {"parameters": {"temperature": 0}},
        {"examples": EXAMPLES},
        {"examples": EXAMPLES[::-1]},
        {"examples": EXAMPLES, "examples_k": 1},
    ]
    assert len({cache_key(task_of(**change).fingerprint) for change in changes}) == len(changes)


def test_every_process_makes_the_same_key() -> None:
    code = (
        "from pipeline.task import *\n"
        "options = TaskOptions(model='m', prompt='{{ text }}', labels={'label': ['a', 'b']}, system='You help.')\n"
        "print(cache_key(build_task(options).fingerprint))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert told.strip() == cache_key(task_of().fingerprint)


def test_a_key_is_sent_and_changes_nothing_else() -> None:
    plain, keyed = task_of(), task_of(prompt_cache_key="my key")
    assert request_of(keyed).parameters == {**request_of(plain).parameters, "prompt_cache_key": "my key"}
    assert request_of(keyed).digest == request_of(plain).digest
    assert keyed.fingerprint == plain.fingerprint
    assert "prompt_cache_key" not in request_of(plain).parameters


def test_a_key_can_be_the_tasks_own() -> None:
    task = task_of(prompt_cache_key="auto", examples=EXAMPLES)
    assert request_of(task).parameters["prompt_cache_key"] == cache_key(task.fingerprint)


def test_the_users_own_parameter_stays() -> None:
    own = {"prompt_cache_key": "mine", "prompt_cache_options": {"mode": "implicit"}}
    task = task_of(parameters=own, prompt_cache_key="auto", cache_breakpoint=True)
    assert request_of(task).parameters == {"parallel_tool_calls": False, **own}
    with pytest.raises(TaskError, match=r"model.prompt_cache_key and model.parameters.prompt_cache_key are both set"):
        task_of(parameters=own, prompt_cache_key="other")


@pytest.mark.parametrize("key", ["", "  ", "x" * 65])
def test_a_key_that_a_server_would_refuse(key: str) -> None:
    with pytest.raises(TaskError, match=r"model.prompt_cache_key is .*: expected 1 to 64 characters"):
        task_of(prompt_cache_key=key)
    assert request_of(task_of(prompt_cache_key="x" * 64)).parameters["prompt_cache_key"] == "x" * 64


# the mark


def marked(text: str) -> list[Any]:
    return [{"type": "text", "text": text, "prompt_cache_breakpoint": MARK}]


@pytest.mark.parametrize(
    ("changes", "content"),
    [
        ({}, {0: marked("You help.")}),
        # The last user message of the examples: the mark's place in a tool message is not told alike everywhere.
        ({"examples": EXAMPLES}, {4: marked("worse")}),
        ({"examples": EXAMPLES, "system": None}, {3: marked("worse")}),
        ({"examples": EXAMPLES, "examples_k": 1}, {0: marked("You help.")}),
        ({"system": None}, {}),
    ],
)
def test_the_mark_stands_at_the_end_of_what_is_constant(changes: Any, content: Any) -> None:
    plain, request = request_of(task_of(**changes)), request_of(task_of(**changes, cache_breakpoint=True))
    found = {place: one["content"] for place, one in enumerate(request.messages) if isinstance(one["content"], list)}
    assert found == content
    assert [one for place, one in enumerate(request.messages) if place not in content] == [
        one for place, one in enumerate(plain.messages) if place not in content
    ]
    # Without a mark this says: keep nothing, charge no writing.
    assert request.parameters == {**plain.parameters, "prompt_cache_options": MARK}


def test_the_mark_changes_neither_fingerprint_nor_digest_nor_size() -> None:
    plain, marked_ = task_of(examples=EXAMPLES), task_of(examples=EXAMPLES, cache_breakpoint=True)
    assert plain.fingerprint == marked_.fingerprint
    assert request_of(plain).digest == request_of(marked_).digest
    assert request_of(plain).size_tokens == request_of(marked_).size_tokens


def test_a_repair_keeps_key_and_mark() -> None:
    task = task_of(examples=EXAMPLES, cache_breakpoint=True, prompt_cache_key="auto")
    first = request_of(task)
    again = repair(task, first, Answer(calls=(ToolCall("i", "set_label", "{}"),)), InvalidAnswerError("wrong"))
    assert codec.dumps(again.messages[: len(first.messages)]) == codec.dumps(first.messages)
    assert again.parameters is first.parameters


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("gpt-6-luna", True),
        ("gpt-6.1-sol", True),
        ("gpt-5.6-luna", True),
        ("gpt-5.6-luna-2026-07-09", True),
        ("gpt-5.10", True),
        ("ft:gpt-5.6-luna:org::id", True),
        ("gpt-5.5", False),
        ("gpt-5", False),
        ("gpt-5-mini-2025-08-07", False),
        ("gpt-4o-mini", False),
        ("gpt-4.1", False),
        ("gpt-35-turbo", False),
        ("gpt-oss-120b", False),
        ("o3", False),
        ("llama-3.1:8b", False),
        ("my-gpt-6", False),
        ("", False),
    ],
)
def test_which_models_take_the_mark(model: str, takes: bool) -> None:
    assert supports_breakpoint(model) is takes


# how much of it there is


def test_the_constant_part_is_what_all_requests_begin_with() -> None:
    """The system text, the function, the fixed examples: not the nearest ones, and not the record."""
    short = task_of().constant_tokens
    assert task_of(system="You help. " * 400).constant_tokens == pytest.approx(short + 1_000, abs=5)
    assert task_of(prompt="Please read this. " * 400 + "{{ text }}").constant_tokens == short
    shown = task_of(examples=EXAMPLES * 50).constant_tokens
    assert shown > short + 1_000
    assert task_of(examples=EXAMPLES * 50, examples_k=2).constant_tokens == short


def test_nothing_is_constant_behind_a_schema_of_the_record(module: Callable[..., Any]) -> None:
    base = module(
        """
        class Rate:
            columns = ("label",)
            def schema(self, record):
                return {"type": "object", "properties": {"label": {"enum": ["a", record.fields["text"]]}}}
        """
    )
    task = task_of(labels=None, python="mytools:Rate", base=base, system="You help. " * 400)
    assert task.constant_tokens == 0


# what is decided where nothing is said

LONG = "You help. " * 410


@pytest.mark.parametrize(
    ("changes", "marks"),
    [
        ({"system": LONG}, True),
        ({"system": LONG, "model": "gpt-5.5"}, False),
        ({"system": LONG, "model": "llama-3.1:8b"}, False),
        ({"system": "You help. " * 380}, False),
        ({"system": None, "examples": EXAMPLES * 40}, True),
        # The nearest examples differ from record to record: only what is before them is constant.
        ({"examples": EXAMPLES * 40, "examples_k": 2}, False),
        # The functions alone are long enough, and no message is there to carry the mark.
        ({"system": None, "labels": {"label": [f"{number:09}" for number in range(900)]}}, False),
    ],
)
def test_the_mark_is_set_where_it_pays(changes: dict[str, Any], marks: bool) -> None:
    left_open = task_of(**{"model": "gpt-6-luna", **changes}, cache_breakpoint=None)
    by_hand = task_of(**{"model": "gpt-6-luna", **changes}, cache_breakpoint=marks)
    assert left_open.marks_prefix is marks
    one, other = request_of(left_open), request_of(by_hand)
    assert (one.messages, one.parameters) == (other.messages, other.parameters)
    assert ("prompt_cache_options" in one.parameters) is marks


def test_what_is_decided_changes_no_digest_of_any_request() -> None:
    """A run that began without the mark goes on with it, and asks for nothing again."""
    said = [task_of(model="gpt-6-luna", system=LONG, cache_breakpoint=mark) for mark in (False, True, None)]
    assert [one.marks_prefix for one in said] == [False, True, True]
    assert len({request_of(one).digest for one in said}) == 1
    assert said[0].fingerprint == said[1].fingerprint == said[2].fingerprint
