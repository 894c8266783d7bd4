"""Few-shot examples: what the model is shown, which mistakes are told, and what stays the same for every record."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_calls import repair
from task_conversation import is_conversation

from pipeline import codec
from pipeline.errors import InvalidAnswerError, TaskError, TruncatedError
from pipeline.records import Answer, Record, ToolCall
from pipeline.task import Task, TaskOptions, ToolOptions, build_task

GOOD = {"text": "Great soup!", "label": {"label": "positive"}}
BAD = {"text": "국물이 식었어요", "label": {"label": "negative"}}
MEH = {"text": "It is a bucket.", "label": {"label": "neutral"}}
EXAMPLES = [GOOD, BAD, MEH]


def examples_task(**changes: Any) -> Task:
    given: dict[str, Any] = {
        "model": "m",
        "prompt": "Label: {{ text }}",
        "labels": {"label": ["positive", "negative", "neutral"]},
        "system": "You help.",
        "examples": EXAMPLES,
    }
    return build_task(TaskOptions(**given | changes))


def record_of(text: str, **more: Any) -> Record:
    return Record("f", 0, "k", {"text": text, **more}, 1, 0)


def texts_of(task: Task, text: str) -> list[str]:
    return [message["content"] for message in task.render(record_of(text)).messages if message["role"] == "user"]


# what is shown


def test_an_example_is_asked_answered_and_closed() -> None:
    messages = examples_task(examples=[GOOD]).render(record_of("fine")).messages
    assert messages == (
        {"role": "system", "content": "You help."},
        {"role": "user", "content": "Label: Great soup!"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_example_1",
                    "type": "function",
                    "function": {"name": "set_label", "arguments": '{"label":"positive"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_example_1", "content": "ok"},
        {"role": "user", "content": "Label: fine"},
    )


@pytest.mark.parametrize("k", [None, 1, 2, 9])
@pytest.mark.parametrize("system", [None, "You help."])
def test_what_is_sent_is_a_conversation(k: int | None, system: str | None) -> None:
    messages = examples_task(examples_k=k, system=system).render(record_of("soup")).messages
    assert is_conversation(messages)
    ids = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert len(ids) == len(set(ids)) == min(k or 3, 3)
    assert messages[-1] == {"role": "user", "content": "Label: soup"}


def test_fixed_examples_are_all_shown_in_their_order() -> None:
    shown = ["Label: Great soup!", "Label: 국물이 식었어요", "Label: It is a bucket.", "Label: x"]
    assert texts_of(examples_task(), "x") == shown
    # Even to the record that is one of them: they are the same for all records.
    assert texts_of(examples_task(), "Great soup!") == [*shown[:-1], "Label: Great soup!"]


def test_the_arguments_come_in_the_schemas_order() -> None:
    labels = {"mood": ["good"], "sure": [True, False], "말": ["좋음"]}
    example = {"text": "t", "label": {"말": "좋음", "sure": True, "mood": "good"}}
    messages = examples_task(labels=labels, examples=[example]).render(record_of("x")).messages
    assert messages[2]["tool_calls"][0]["function"]["arguments"] == '{"mood":"good","sure":true,"말":"좋음"}'


def test_what_the_config_can_hold_becomes_plain_json() -> None:
    day = datetime.date(2026, 5, 4)
    function = ToolOptions("note", {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]})
    task = examples_task(
        labels=None, function=function, prompt="{{ day }}", examples=[{"day": day, "label": {"day": day}}]
    )
    assert task.fingerprint["examples"] == [{"day": "2026-05-04", "label": {"day": "2026-05-04"}}]
    messages = task.render(Record("f", 0, "k", {"day": "x"}, 1, 0)).messages
    assert messages[1]["content"] == "2026-05-04"
    assert messages[2]["tool_calls"][0]["function"] == {"name": "note", "arguments": '{"day":"2026-05-04"}'}


def test_nobody_changes_an_example_afterwards() -> None:
    example = {"text": "t", "label": {"label": "neutral"}}
    task = examples_task(examples=[example])
    before = codec.dumps([task.fingerprint, task.render(record_of("x")).messages])
    example["label"]["label"] = "positive"  # type: ignore[index]
    example["text"] = "changed"
    assert codec.dumps([task.fingerprint, task.render(record_of("x")).messages]) == before


# what is the same for every record

ANY_TEXT = st.text(max_size=200).map(lambda text: f"{text}x")  # an empty one is not asked
FIXED = examples_task(parameters={"temperature": 0})
CHOSEN = examples_task(examples_k=2)
BARE = examples_task(examples=())


def sent(task: Task, text: str) -> bytes:
    """All of a request in the order in which a model reads it."""
    request = task.render(record_of(text))
    return codec.dumps([request.parameters, request.tool_choice, request.tools, request.messages])


def before_record(task: Task, text: str) -> bytes:
    body, end = sent(task, text), codec.dumps(f"Label: {text}") + b"}]]"
    assert body.endswith(end)
    return body.removesuffix(end)


@given(ANY_TEXT)
def test_every_byte_before_the_record_is_the_same(text: str) -> None:
    for task in (FIXED, BARE):
        assert before_record(task, text) == before_record(task, "fine")
    assert b"Great soup!" in before_record(FIXED, text)


@given(ANY_TEXT)
def test_with_nearest_examples_tools_and_system_text_stay_the_same(text: str) -> None:
    same = sent(BARE, "x").index(codec.dumps("You help.")) + len(codec.dumps("You help."))
    assert sent(CHOSEN, text)[:same] == sent(BARE, text)[:same]


def test_the_order_is_system_examples_record() -> None:
    for task in (FIXED, CHOSEN):
        messages = codec.dumps(task.render(record_of("zebra soup")).messages)
        places = [messages.index(part) for part in (b"You help.", b"Great soup!", b"zebra")]
        assert places == sorted(places)


def test_two_builds_send_the_same_bytes() -> None:
    assert sent(examples_task(), "x") == sent(examples_task(), "x")
    assert sent(examples_task(examples_k=2), "x") == sent(CHOSEN, "x")


def test_examples_are_shared_not_made_again() -> None:
    one, two = (FIXED.render(record_of(text)).messages for text in "ab")
    assert all(first is second for first, second in zip(one[:-1], two[:-1], strict=True))


def test_a_requests_digest_and_size_hold_its_examples() -> None:
    bare = BARE.render(record_of("cold soup"))
    fixed = examples_task().render(record_of("cold soup"))
    chosen = CHOSEN.render(record_of("cold soup"))
    turned = examples_task(examples=EXAMPLES[::-1]).render(record_of("cold soup"))
    one = examples_task(examples_k=1).render(record_of("cold soup"))
    assert len({request.digest for request in (bare, fixed, chosen, turned, one)}) == 5
    assert bare.size_tokens < one.size_tokens < chosen.size_tokens < fixed.size_tokens
    assert chosen.digest == CHOSEN.render(record_of("cold soup")).digest
    # About 20 tokens an example besides its texts.
    assert 3 * 20 <= fixed.size_tokens - bare.size_tokens <= 3 * 60


# the nearest


def test_the_nearest_are_shown_the_nearest_last() -> None:
    assert texts_of(CHOSEN, "What a great soup")[-2:] == ["Label: Great soup!", "Label: What a great soup"]
    assert len(texts_of(CHOSEN, "What a great soup")) == 3
    assert texts_of(examples_task(examples_k=1), "국물이 다 식어서 왔어요")[0] == "Label: 국물이 식었어요"


def test_the_record_itself_is_never_among_the_nearest() -> None:
    assert "Label: Great soup!" not in texts_of(CHOSEN, "great  soup!")
    assert texts_of(examples_task(examples_k=9), "Great soup!")[:-1] == [
        "Label: It is a bucket.",
        "Label: 국물이 식었어요",
    ]


def test_an_example_keeps_its_number_wherever_it_is_shown() -> None:
    messages = examples_task(examples_k=1).render(record_of("some bucket")).messages
    assert messages[-2]["tool_call_id"] == "call_example_3"


# mistakes


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        ([GOOD, {"text": "x", "label": {"label": "Good"}}], "1 of the task's 2 .*\n  example 2: label: 'Good' is not"),
        ([{"text": "x", "label": {}}], "example 1: .*'label' is required"),
        ([{"text": "x", "label": {"label": "neutral", "why": "?"}}], "example 1: .*why"),
        ([{"text": "x"}], "example 1: its 'label' is missing: expected the right arguments as a table with label"),
        ([{"text": "x", "label": "neutral"}], "example 1: its 'label' is 'neutral': expected .* table with label"),
        ([{"text": "x", "label": None}], "example 1: its 'label' is None"),
        ([GOOD, {"texx": "x", "label": {"label": "neutral"}}], "example 2: the prompt uses 'text', which .*'texx'"),
        ([GOOD, "x"], "example 2: it is 'x': expected a table"),
        ([GOOD, {**GOOD, "label": {"label": "neutral"}}], "example 2: it asks the same as example 1, but has another"),
        (GOOD, "task.examples is .*: expected a list"),
        ("x", "task.examples is 'x': expected a list"),
        ([{}] * 7, "7 of the task's 7 examples .*(\n  example .*){5}\n  and 2 more$"),
    ],
)  # fmt: skip
def test_a_wrong_example_is_named(examples: Any, words: str) -> None:
    for k in (None, 1):
        with pytest.raises(TaskError, match=f"(?s){words}"):
            examples_task(examples=examples, examples_k=k)


@pytest.mark.parametrize("k", [0, -1, True, 2.0, "2"])
def test_a_wrong_number_of_examples_is_told(k: Any) -> None:
    with pytest.raises(TaskError, match=r"task.examples_k is .*: expected a whole number from 1 up"):
        examples_task(examples_k=k)


def test_a_number_without_examples_is_told() -> None:
    with pytest.raises(TaskError, match=r"task.examples_k is 2, but there is no example"):
        examples_task(examples=[], examples_k=2)


def test_a_field_that_is_called_label_is_told() -> None:
    with pytest.raises(TaskError, match=r"task.prompt uses the field 'label', which in an example is the right answer"):
        examples_task(prompt="{{ text }} {{ label }}")
    assert examples_task(prompt="{{ text }} {{ label }}", examples=()).fields == {"text", "label"}


# the tool's own forms


def test_a_models_validators_check_the_examples(module: Callable[..., Any]) -> None:
    base = module(
        """
        import pydantic

        class Review(pydantic.BaseModel):
            stars: int
            @pydantic.field_validator("stars")
            @classmethod
            def few(cls, stars):
                if stars > 5:
                    raise ValueError("at most five stars")
                return stars
            @pydantic.computed_field
            @property
            def good(self) -> bool:
                return self.stars > 3
        """
    )
    form = {"labels": None, "python": "mytools:Review", "base": base}
    task = examples_task(**form, examples=[{"text": "x", "label": {"stars": 4}}])
    # What the model answers is shown, not what the label becomes of it.
    assert task.render(record_of("y")).messages[2]["tool_calls"][0]["function"]["arguments"] == '{"stars":4}'
    with pytest.raises(TaskError, match=r"example 1: stars: .*at most five stars"):
        examples_task(**form, examples=[{"text": "x", "label": {"stars": 6}}])


def test_each_example_fits_its_own_records_schema(module: Callable[..., Any]) -> None:
    base = module(
        """
        class Choose:
            columns = ("choice",)
            def schema(self, record):
                return {
                    "type": "object",
                    "properties": {"choice": {"type": "string", "enum": record.fields["options"]}},
                    "required": ["choice"],
                }
        """
    )
    form = {"labels": None, "python": "mytools:Choose", "base": base}
    cat, car = ({"text": t, "options": [t, "none"], "label": {"choice": t}} for t in ("cat", "car"))
    task = examples_task(**form, examples=[cat, car])
    request = task.render(record_of("dog", options=["dog", "wolf"]))
    assert request.tools[0]["function"]["parameters"]["properties"]["choice"]["enum"] == ["dog", "wolf"]
    assert [message.get("content") for message in request.messages[1::3]] == ["Label: cat", "Label: car", "Label: dog"]
    with pytest.raises(TaskError, match="example 2: choice: 'cat' is not one of"):
        examples_task(**form, examples=[cat, {**car, "label": {"choice": "cat"}}])
    with pytest.raises(TaskError, match=r"example 1: .*schema\(record\) raised KeyError: 'options'"):
        examples_task(**form, examples=[{"text": "x", "label": {"choice": "x"}}])


# the fingerprint


def test_the_fingerprint_shows_the_examples() -> None:
    assert examples_task(examples_k=2).fingerprint["examples"] == EXAMPLES
    assert examples_task(examples_k=2).fingerprint["examples_k"] == 2
    bare = examples_task(examples=()).fingerprint
    assert (bare["examples"], bare["examples_k"]) == (None, None)
    assert examples_task().fingerprint != examples_task(examples=EXAMPLES[::-1]).fingerprint


# asking again


@pytest.mark.parametrize("k", [None, 1, 2, 9])
@pytest.mark.parametrize("system", [None, "You help."])
@pytest.mark.parametrize("text", ["cold soup", "Great soup!"])
def test_a_repair_keeps_the_examples_and_replaces_only_the_last_repair(
    k: int | None, system: str | None, text: str
) -> None:
    task = examples_task(examples_k=k, system=system)
    first = task.render(record_of(text))
    # A server may give its calls the very ids that the examples have.
    answer = Answer(calls=(ToolCall("call_example_1", "set_label", "{}"),))
    again = repair(task, first, answer, InvalidAnswerError("wrong"))
    third = repair(task, again, Answer(text="x"), InvalidAnswerError("none"))
    for request in (again, third, repair(task, third, answer, TruncatedError())):
        assert request.messages[: len(first.messages)] == first.messages
        assert len(request.messages) <= len(first.messages) + 2
        assert is_conversation(request.messages)
    assert len({first.digest, again.digest, third.digest}) == 3
