"""Several tools in one task: which calls make an answer, what the model is told where they do not, the columns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from task_calls import repair
from task_conversation import is_conversation

from pipeline import codec
from pipeline.errors import CallbackError, InvalidAnswerError, TaskError, UnfinishedError
from pipeline.records import Answer, CallbackContext, Record, ToolCall, ValidCall
from pipeline.task import Task, TaskOptions, ToolOptions, build_task

RECORD = Record("f", 0, "k", {"text": "My kettle leaks"}, 1, 0)
REFUND = ToolOptions(name="refund", labels={"amount": ["all", "half"]})
REPAIR = ToolOptions(name="repair", labels={"part": ["lid", "body"], "amount": [1, 2]})
CLOSE = ToolOptions(name="close", labels={"why": ["spam", "done"]})
HALF, LID, DONE = ("refund", '{"amount":"half"}'), ("repair", '{"part":"lid","amount":1}'), ("close", '{"why":"done"}')
ALL = ("refund", '{"amount":"all"}')


def desk(*tools: ToolOptions, **more: Any) -> Task:
    return build_task(TaskOptions(model="m", prompt="{{ text }}", tools=list(tools or (REFUND, REPAIR, CLOSE)), **more))


def answer(*calls: tuple[str, str], text: str | None = None) -> Answer:
    return Answer(tuple(ToolCall(f"i{place}", *call) for place, call in enumerate(calls)), text)


def row(task: Task, said: Answer) -> dict[str, Any]:
    return dict(task.build_rows(task.parse_calls(said, RECORD), said.text, RECORD).label)


def responded(task: Task, *calls: tuple[str, str]) -> list[ValidCall]:
    """The calls of an answer with what their callbacks gave back."""
    said = task.parse_calls(answer(*calls), RECORD)
    return [asyncio.run(task.run_callback(one, RECORD, CallbackContext("key", 0, one.tool))) for one in said]


# -- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "choice", "parallel"),
    [
        ({}, "required", False),
        ({"call": "some"}, "required", True),
        ({"call": "all"}, "required", True),
        ({"call": "any"}, "auto", True),
        ({"rows": "calls"}, "required", True),
        ({"tool_choice": "auto"}, "auto", False),
        ({"call": "some", "tool_choice": "required"}, "required", True),
    ],
)
def test_what_is_sent(changes: dict[str, Any], choice: str, parallel: bool) -> None:
    request = desk(**changes).render(RECORD)
    assert [tool["function"]["name"] for tool in request.tools] == ["refund", "repair", "close"]
    assert (request.tool_choice, request.parameters["parallel_tool_calls"]) == (choice, parallel)


def test_parallel_calls_can_be_left_out_and_one_tool_of_the_table_is_a_plain_task() -> None:
    silent = desk(call="some", parameters={"parallel_tool_calls": "omit"}).render(RECORD)
    assert "parallel_tool_calls" not in silent.parameters
    only = desk(REFUND)
    assert only.render(RECORD).tool_choice == {"type": "function", "function": {"name": "refund"}}
    assert only.columns == ("amount",), "a single tool needs no prefix"


# -- which calls make an answer --------------------------------------------------------------------------------------

GOOD = {
    "one": [[HALF], [HALF, HALF], [LID], [HALF, ("zork", "{}")]],
    "some": [[HALF], [HALF, LID], [HALF, HALF, LID], [("zork", "{}"), LID]],
    "any": [[HALF], [HALF, LID, DONE]],
    "all": [[HALF, LID, DONE], [DONE, LID, HALF, HALF]],
}
BAD = {
    "one": [
        ([], "no call of 'refund' or 'repair' or 'close'", "no_tool_call"),
        ([HALF, LID], "2 calls, of refund, repair; expected one call", "invalid_label"),
        ([HALF, ALL], "2 calls of refund that differ: .*'half'.*'all'", "invalid_label"),
        ([("zork", "{}")], "a call of 'zork': expected a call of 'refund' or", "no_tool_call"),
        ([HALF, ("repair", "{")], "the arguments of repair are not valid JSON", "invalid_json"),
    ],
    "some": [
        ([], "no call of", "no_tool_call"),
        ([HALF, ALL], "calls of refund that differ", "invalid_label"),
        ([HALF, ("repair", '{"part":"lid"}')], "'amount' is required", "invalid_label"),
    ],
    "any": [
        ([("zork", "{}")], "a call of 'zork'", "no_tool_call"),
        ([], "the answer was empty: neither a call of 'refund' or 'repair' or 'close' nor words", "no_tool_call"),
    ],
    "all": [
        ([HALF], "no call of 'repair', 'close'$", "no_tool_call"),
        ([HALF, LID, DONE, ALL], "calls of refund that differ", "invalid_label"),
    ],
}


@pytest.mark.parametrize(("call", "calls"), [(call, calls) for call, every in GOOD.items() for calls in every])
def test_calls_that_make_an_answer(call: str, calls: Sequence[tuple[str, str]]) -> None:
    task = desk(call=call)
    known = [name for name, _ in calls if name != "zork"]
    assert {one.tool for one in task.parse_calls(answer(*calls), RECORD)} == set(known)
    assert len(task.parse_calls(answer(*calls), RECORD)) == len(set(known)), "what is said twice is one call"


@pytest.mark.parametrize(
    ("call", "calls", "words", "code"), [(call, *case) for call, every in BAD.items() for case in every]
)
def test_calls_that_make_none_are_asked_again_with_the_fault(call: str, calls: Any, words: str, code: str) -> None:
    task = desk(call=call)
    said = answer(*calls)
    with pytest.raises(InvalidAnswerError, match=words) as caught:
        task.parse_calls(said, RECORD)
    assert caught.value.code == code
    again = repair(task, task.render(RECORD), said, caught.value)
    assert is_conversation(again.messages)
    assert str(caught.value) in str(again.messages[-1]["content"])
    assert (again.tool_choice, again.tools) == (task.render(RECORD).tool_choice, task.render(RECORD).tools)


def test_who_forgot_a_call_is_not_told_to_make_only_the_one_that_was_there() -> None:
    task = desk(call="all")
    said = answer(HALF)
    with pytest.raises(InvalidAnswerError) as caught:
        task.parse_calls(said, RECORD)
    told = str(repair(task, task.render(RECORD), said, caught.value).messages[-1]["content"])
    assert "'repair', 'close'" in told
    assert "every call again" in told


# -- columns ---------------------------------------------------------------------------------------------------------


def test_columns_have_their_tools_name() -> None:
    task = desk()
    assert task.columns == ("tool", "refund_amount", "repair_part", "repair_amount", "close_why")
    assert row(task, answer(LID)) == {"tool": "repair", "repair_part": "lid", "repair_amount": 1}
    assert row(task, answer(HALF)) == {"tool": "refund", "refund_amount": "half"}


def test_several_calls_are_a_list_and_all_need_no_name() -> None:
    assert row(desk(call="some"), answer(HALF, DONE))["tool"] == ["refund", "close"]
    assert row(desk(call="any"), answer(text="Nothing to do.")) == {}
    every = desk(call="all")
    assert "tool" not in every.columns
    assert row(every, answer(DONE, HALF, LID)) == {
        "close_why": "done",
        "refund_amount": "half",
        "repair_part": "lid",
        "repair_amount": 1,
    }


def test_words_beside_or_instead_of_a_call_can_be_a_column() -> None:
    task = desk(call="any", reply="words")
    assert task.columns[-1] == "words"
    assert row(task, answer(text="Nothing to do.")) == {"words": "Nothing to do."}
    assert row(task, answer(HALF, text="So be it."))["words"] == "So be it."
    assert row(task, answer(HALF))["words"] == "", "a call without words is an answer"


@pytest.mark.parametrize(
    ("tools", "changes", "words"),
    [
        ([REFUND, REFUND], {}, "has 'refund' twice"),
        ([], {}, "task.tools is empty"),
        (
            [ToolOptions("a", labels={"b_c": [1]}), ToolOptions("a_b", labels={"c": [1]})],
            {},
            "'a_b_c' would occur twice",
        ),
        ([ToolOptions("a", labels={"reply": [1]})], {"reply": "reply", "max_turns": 2}, "'reply' would occur twice"),
        ([ToolOptions("a", labels={"row_key": [1]})], {"rows": "calls"}, "'row_key' would occur twice"),
        ([ToolOptions(labels={"a": [1]})], {}, "number 1: has no name"),
        ([ToolOptions(python="json:nosuch")], {}, "^task.tools, number 1: python is 'json:nosuch', but .* no 'nosuch'"),
        ([ToolOptions(python="json:codecs")], {}, "^task.tools, number 1: python is 'json:codecs', which is <module"),
        (
            [ToolOptions("a", labels={"a": [1]}, callback="json:nosuch")],
            {},
            "^task.tools, number 1: callback is 'json:nosuch', but",
        ),
        ([ToolOptions("a", labels={"a": [1]})], {"callback": "json:nosuch"}, "^task.callback is 'json:nosuch', but"),
        ([ToolOptions("a")], {}, "number 1: none of labels, parameters, python is given"),
        ([ToolOptions("a", labels={"a": [1]}, python="x:y")], {}, "labels and python of"),
        ([REFUND], {"name": "other"}, "task.name and task.description are those of one tool"),
        ([REFUND], {"labels": {"a": [1]}}, "task.labels and task.tools of .* expected exactly one"),
        ([REFUND, CLOSE], {"call": "each"}, "task.call is 'each': expected one, some, any, all"),
        ([REFUND], {"max_turns": 0}, "max_turns is 0"),
        ([REFUND], {"reply": "words"}, "task.reply is the model's final text"),
        ([ToolOptions("not a name", labels={"a": [1]})], {}, "the function's name is 'not a name'"),
    ],
)
def test_what_cannot_work_is_told_at_the_start(tools: list[ToolOptions], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskError, match=words):
        build_task(TaskOptions(model="m", prompt="{{ text }}", tools=tools, **changes))


# -- callbacks -------------------------------------------------------------------------------------------------------

CALLBACKS = """
    def note(label, record, call):
        return {"who": call.tool}

    note.extra_columns = ("who",)

    def words(label, record):
        return {}

    words.extra_columns = ("words", "amount")

    def row_key(label, record):
        return {"row_key": "mine", "free": 1}
"""


def test_a_tools_own_callback_comes_before_the_tasks_and_its_columns_have_its_name(module) -> None:
    base = module(CALLBACKS)
    own = ToolOptions("refund", labels={"amount": ["all"]}, callback="mytools:note")
    task = desk(own, CLOSE, base=base, callback="mytools:row_key")
    assert task.extra_columns == ("refund_who",)
    done = responded(task, ALL)
    assert task.build_rows(done, None, RECORD).label == {
        "tool": "refund",
        "refund_amount": "all",
        "refund_who": "refund",
    }
    done = responded(task, DONE)
    assert task.build_rows(done, None, RECORD).label["close_free"] == 1


@pytest.mark.parametrize("changes", [{}, {"reply": "words", "max_turns": 2}])
def test_an_extra_column_that_is_there_already_is_told_at_the_start(module, changes: dict[str, Any]) -> None:
    base = module(CALLBACKS)
    own = ToolOptions("refund", labels={"amount": ["all"]}, callback="mytools:words")
    with pytest.raises(TaskError, match=r"'amount'.* would occur twice"):
        desk(own, base=base, **changes)


def test_an_extra_column_that_nobody_declared_cannot_take_one_of_the_tasks(module) -> None:
    task = desk(REFUND, base=module(CALLBACKS), callback="mytools:row_key", rows="calls")
    done = responded(task, ALL)
    with pytest.raises(CallbackError, match="returned 'row_key', which is a column of the task"):
        task.build_rows(done, None, RECORD)


# -- schemas that depend on the record, examples, fingerprints -------------------------------------------------------

TOPIC = """
    class Topic:
        name = "set_topic"
        columns = ("topic",)

        def schema(self, record):
            topics = {"en": ["price", "taste"], "de": ["Preis"]}[record.fields["lang"]]
            return {
                "type": "object",
                "properties": {"topic": {"type": "string", "enum": topics}},
                "required": ["topic"],
            }
"""


def test_a_schema_that_depends_on_the_record_beside_one_that_does_not(module) -> None:
    task = desk(ToolOptions(python="mytools:Topic"), CLOSE, base=module(TOPIC))
    english, german = (Record("f", 0, "k", {"text": "t", "lang": lang}, 1, 0) for lang in ("en", "de"))
    enums = [
        task.render(one).tools[0]["function"]["parameters"]["properties"]["topic"]["enum"] for one in (english, german)
    ]
    assert enums == [["price", "taste"], ["Preis"]]
    assert task.render(english).tools[1] == task.render(german).tools[1]
    assert task.parse_calls(answer(("set_topic", '{"topic":"Preis"}')), german)[0].label == {"topic": "Preis"}
    with pytest.raises(InvalidAnswerError, match="'Preis' is not one of"):
        task.parse_calls(answer(("set_topic", '{"topic":"Preis"}')), english)
    assert task.columns == ("tool", "set_topic_topic", "close_why")


def test_an_example_names_its_tool() -> None:
    shown = {"text": "It burst", "tool": "refund", "label": {"amount": "all"}}
    request = desk(examples=[shown]).render(RECORD)
    assert is_conversation(request.messages)
    (call,) = request.messages[1]["tool_calls"]
    assert (call["function"]["name"], codec.loads(call["function"]["arguments"])) == ("refund", {"amount": "all"})
    for wrong in ({}, {"tool": "zork"}, {"tool": "close"}):
        with pytest.raises(TaskError, match="example 1: "):
            desk(examples=[{"text": "It burst", "label": {"amount": "all"}, **wrong}])


def test_a_task_of_one_tool_has_the_fingerprint_it_always_had(make_task: Callable[..., Task]) -> None:
    assert make_task().fingerprint == {
        "prompt": "Label: {{ text }}",
        "system": None,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "set_label",
                    "description": "Set the label of the record.",
                    "strict": True,
                    "parameters": {
                        "type": "object",
                        "properties": {"label": {"type": "string", "enum": ["positive", "negative", "neutral"]}},
                        "required": ["label"],
                        "additionalProperties": False,
                    },
                },
            }
        ],
        "tool_choice": "forced",
        "model": "m",
        "parameters": {"parallel_tool_calls": False},
        "examples": None,
        "examples_k": None,
    }


@pytest.mark.parametrize(
    "changes",
    [{"call": "some"}, {"rows": "calls"}, {"max_turns": 3}, {"max_turns": 3, "reply": "words"}, {"tools": [REFUND]}],
)
def test_what_changes_the_labels_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    given: dict[str, Any] = {"model": "m", "prompt": "{{ text }}", "tools": [REFUND, CLOSE]}
    assert build_task(TaskOptions(**given)).fingerprint != build_task(TaskOptions(**given | changes)).fingerprint


# -- all, over several turns -----------------------------------------------------------------------------------------


def test_all_may_take_several_turns_but_none_may_be_missing_at_the_end() -> None:
    task = desk(REFUND, CLOSE, call="all", max_turns=3)
    first = task.parse_calls(answer(HALF), RECORD)
    assert [one.tool for one in first] == ["refund"], "the other may come in a later turn"
    with pytest.raises(InvalidAnswerError, match=r"no call of 'close'; the text was 'Done\.'"):
        task.parse_calls(answer(text="Done."), RECORD, first)
    second = task.parse_calls(answer(DONE), RECORD, first)
    assert task.parse_calls(answer(text="Done."), RECORD, [*first, *second]) == ()
    assert task.build_rows([*first, *second], None, RECORD).label == {"refund_amount": "half", "close_why": "done"}
    with pytest.raises(UnfinishedError, match="no call of 'close' when the last turn was over"):
        task.build_rows(first, None, RECORD)


def test_words_alone_do_not_begin_a_conversation_unless_any_is_fine() -> None:
    with pytest.raises(InvalidAnswerError, match="no call of"):
        desk(max_turns=3).parse_calls(answer(text="Hello"), RECORD)
    assert desk(max_turns=3, call="any").parse_calls(answer(text="Hello"), RECORD) == ()


def test_said_and_result_stay_together_where_calls_have_no_names() -> None:
    task = desk(REFUND, CLOSE, rows="calls", max_turns=2)
    said = Answer((ToolCall("", *HALF), ToolCall("", *ALL), ToolCall("", "zork", "{}"), ToolCall("", *DONE)))
    told = [
        ValidCall(one.tool, one.label, one.call, result=number)
        for number, one in enumerate(task.parse_calls(said, RECORD))
    ]
    messages = task.next_turn(task.render(RECORD), said, told).messages
    assert is_conversation(messages)
    assert [one["content"] for one in messages[-4:]] == ["0", "1", "there is no such function", "2"]
    assert len({one["tool_call_id"] for one in messages[-4:]}) == 4


def test_a_call_that_says_the_same_as_another_has_its_result() -> None:
    task = desk(REFUND, CLOSE, max_turns=2)
    said = answer(HALF, HALF)
    (one,) = task.parse_calls(said, RECORD)
    messages = task.next_turn(
        task.render(RECORD), said, [ValidCall(one.tool, one.label, one.call, result="paid")]
    ).messages
    assert [message["content"] for message in messages[-2:]] == ["paid", "paid"]
