"""The request that was sent is made again from the manifest's fingerprint alone."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import codec
from pipeline.records import Record
from pipeline.task import TaskOptions, ToolOptions, ValidatorOptions, build_task, rebuild_request

RECORD = Record("in.csv", 0, "a", {"text": "hello {{ text }}", "n": 3}, 2, 7)
SCHEMA = {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}
EXAMPLES = [{"text": f"example {n}", "label": {"topic": "x" * n}} for n in range(1, 5)]
PLAIN: dict[str, Any] = {"model": "m", "prompt": "About {{ text }}"}
FUNCTION = ToolOptions("set_topic", SCHEMA, "Set the topic.")
TOOLS = [
    ToolOptions("one", None, "The first.", labels={"topic": ["a", "b"]}),
    ToolOptions("two", SCHEMA),
]


@pytest.mark.parametrize(
    "options",
    [
        {"labels": {"topic": ["a", "b"], "n": [1, 2]}},
        {"labels": {"topic": ["a", "b"]}, "system": "Be kind.", "parameters": {"temperature": 0.5, "seed": 1}},
        {"labels": {"topic": ["a", "b"]}, "parameters": {"parallel_tool_calls": "omit"}},
        {"labels": {"topic": ["a", "b"]}, "names_function": False, "tool_choice": "required"},
        {"labels": {"topic": ["a", "b"]}, "names_function": False},
        {"function": FUNCTION, "strict": False, "examples": EXAMPLES},
        {"function": FUNCTION, "examples": EXAMPLES, "examples_k": 2},
        {"function": FUNCTION, "name": "another", "description": "Other."},
        {"tools": TOOLS, "call": "any"},
        {"tools": TOOLS, "max_turns": 3, "reply": "words"},
        {"labels": {"topic": ["a", "b"]}, "validators": [ValidatorOptions("topic == 'a'")]},
    ],
)
def test_the_request_that_was_sent_is_made_again(options: dict[str, Any]) -> None:
    task = build_task(TaskOptions(**PLAIN, **options))
    sent = task.render(RECORD)
    # As the manifest keeps it: through JSON.
    fingerprint = codec.loads_exact(codec.dumps(task.fingerprint).decode())
    again = rebuild_request(fingerprint, RECORD, sent.digest)
    assert again.is_identical
    assert again.request is not None
    assert (again.request.messages, again.request.tools) == (sent.messages, sent.tools)
    assert (again.request.tool_choice, again.request.parameters) == (sent.tool_choice, sent.parameters)


def test_another_task_is_told() -> None:
    task = build_task(TaskOptions(**PLAIN, function=FUNCTION))
    sent = task.render(RECORD)
    again = rebuild_request({**task.fingerprint, "prompt": "Now {{ text }}"}, RECORD, sent.digest)
    assert not again.is_identical
    assert "has changed" in again.reason
    assert again.request is not None
    assert again.request.messages[-1]["content"] == "Now hello {{ text }}"


def test_what_the_manifest_does_not_keep_is_told() -> None:
    task = build_task(TaskOptions(**PLAIN, function=FUNCTION))
    described = {**task.fingerprint, "tools": [{"python": "tools:set_topic"}]}
    assert "depends on the record" in rebuild_request(described, RECORD, b"").reason
    missing = rebuild_request({**task.fingerprint, "prompt": "{{ nothing }}"}, RECORD, b"")
    assert (missing.request, "nothing" in missing.reason) == (None, True)
