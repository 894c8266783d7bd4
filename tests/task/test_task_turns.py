"""Conversations, as the task makes their messages; callbacks that are told of their call."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from task_conversation import is_conversation

from pipeline import codec
from pipeline.errors import CallbackError, InvalidAnswerError, TaskError, TruncatedError, UnfinishedError
from pipeline.records import Answer, CallbackContext, Record, ToolCall, ValidCall
from pipeline.task import Task, TaskOptions, build_task, tools
from pipeline.task.repair import MAX_RESULT_CHARS, format_result

RECORD = Record("f", 0, "k", {"text": "fine"}, 1, 0)
GOOD = '{"label":"good"}'
TOOLS = """
    import asyncio
    import threading

    def gives(label, record, call):
        return {"stock": 3, "who": record.key, "turn": call.turn, "name": call.idempotency_key}

    gives.extra_columns = ("stock",)

    def words(label, record):
        return "Twelve left."

    def nothing(label, record):
        return None

    def raises(label, record):
        raise LookupError("no such thing")

    def strange(label, record):
        found = []
        found.append(found)
        return found

    def gives_nan(label, record):
        return float("nan")

    def spoils(label, record):
        label["label"] = "bad"
        return label

    def named(label, record, call=None):
        return {"given": call is not None}

    def third(label, record, retries=3):
        return {"retries": retries}

    def every(*arguments):
        return {"count": len(arguments)}

    def alone(label):
        return None

    def hangs(label, record):
        threading.Event().wait(60)

    async def hangs_async(label, record):
        await asyncio.sleep(60)

    class Async:
        async def __call__(self, label, record, call):
            return {"tool": call.tool}

    an_async = Async()

    def set_label(label: str, record, call):
        return {"key": call.idempotency_key}

    def ring(number: str, call: str):
        return {"rang": call}
"""


def talk(base: Path = Path(), **more: Any) -> Task:
    given: dict[str, Any] = {
        "labels": {"label": ["good", "bad"]},
        "max_turns": 3,
        "reply": "words",
        "base": base,
    } | more
    return build_task(TaskOptions(model="m", prompt="{{ text }}", system="You label.", **given))


def answer(*arguments: str, text: str | None = None, name: str = "set_label", first: int = 0) -> Answer:
    calls = tuple(ToolCall(f"id{place}", name, one) for place, one in enumerate(arguments, start=first))
    return Answer(calls, text)


def respond(task: Task, said: ValidCall, turn: int = 0) -> ValidCall:
    return asyncio.run(task.run_callback(said, RECORD, CallbackContext("the key", turn, said.tool)))


def after(task: Task, callback: bool = True) -> tuple[Any, list[ValidCall]]:
    """The second turn's request, and what was said."""
    first = answer(GOOD)
    said = [respond(task, one) for one in task.parse_calls(first, RECORD)]
    return task.next_turn(task.render(RECORD), first, said), said


# -- what goes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("callback", "told", "extra"),
    [
        ("gives", {"stock": 3, "who": "k", "turn": 0, "name": "the key"}, {"stock": 3}),
        ("words", "Twelve left.", {}),
        ("nothing", "ok", {}),
        ("raises", {"error": "LookupError: no such thing"}, {}),
        ("strange", None, {}),
        ("spoils", {"label": "bad"}, {}),
        ("gives_nan", {"error": "the callback returned a value that JSON cannot hold: nan"}, {}),
        ("an_async", {"tool": "set_label"}, {}),
    ],
)
def test_what_a_callback_gives_is_what_the_model_is_told(
    module: Callable[..., Path], callback: str, told: Any, extra: dict[str, Any]
) -> None:
    task = talk(module(TOOLS), callback=f"mytools:{callback}")
    request, (said,) = after(task)
    assert is_conversation(request.messages)
    assert request.tool_choice == "auto"
    assert request.digest != task.render(RECORD).digest
    assert request.size_tokens > task.render(RECORD).size_tokens
    echo, result = request.messages[-2:]
    assert (echo["tool_calls"][0]["id"], result["tool_call_id"]) == ("id0", "id0")
    assert (said.extra, said.label) == (extra, {"label": "good"})
    if callback == "strange":
        assert "a value that JSON cannot hold" in result["content"]
    else:
        assert result["content"] == (told if isinstance(told, str) else codec.dumps(told).decode())


def test_a_tool_without_a_callback_is_told_ok_and_long_results_are_cut() -> None:
    request, _ = after(talk())
    assert request.messages[-1]["content"] == "ok"
    assert len(format_result("x" * 2 * MAX_RESULT_CHARS)) < MAX_RESULT_CHARS + 20


def test_text_beside_the_calls_is_kept_and_broken_arguments_of_others_are_made_safe() -> None:
    task = talk()
    first = Answer((ToolCall("", "set_label", GOOD), ToolCall("", "zork", "{not json")), "Let me see.")
    request = task.next_turn(task.render(RECORD), first, task.parse_calls(first, RECORD))
    assert is_conversation(request.messages)
    echo = request.messages[-3]
    assert (echo["content"], echo["tool_calls"][1]["function"]["arguments"]) == ("Let me see.", "{}")
    assert [one["content"] for one in request.messages[-2:]] == ["ok", "there is no such function"]


def test_names_that_labelpipe_gives_to_calls_are_not_given_twice() -> None:
    task = talk()
    request = task.render(RECORD)
    names: list[str] = []
    for _ in range(3):
        said = Answer((ToolCall("", "set_label", GOOD),))
        request = task.next_turn(request, said, task.parse_calls(said, RECORD))
        names.append(request.messages[-1]["tool_call_id"])
    assert is_conversation(request.messages)
    assert len(set(names)) == 3


@pytest.mark.parametrize("name", ["x", "", "i" * 41])
def test_ids_that_a_server_gives_twice_are_sent_back_once_and_are_the_same_each_time(name: str) -> None:
    """Two calls of an answer, then another turn: a stricter server says 400 to an id that is there twice."""
    task = talk()

    def request() -> Any:
        made = task.render(RECORD)
        for _ in range(3):
            said = Answer((ToolCall(name, "set_label", GOOD), ToolCall(name, "set_label", GOOD)))
            made = task.next_turn(made, said, task.parse_calls(said, RECORD))
        return made

    made = request()
    assert is_conversation(made.messages)
    assert (made.messages, made.digest) == (request().messages, request().digest)


@pytest.mark.parametrize("silence", [None, "", " \n"])
def test_an_empty_answer_is_no_last_word(silence: str | None) -> None:
    """It would be an empty column in a record that counts as labelled."""
    task = talk()
    request, said = after(task)
    empty = Answer(text=silence, finish_reason="stop")
    with pytest.raises(InvalidAnswerError, match="empty, but a final text is required") as caught:
        task.parse_calls(empty, RECORD, said)
    assert caught.value.code == "unfinished"
    again = task.repair(request, empty, caught.value, base=len(request.messages))
    assert is_conversation(again.messages)
    assert again.messages[-1]["content"].endswith("required. Answer in words.")
    assert talk(reply=None).parse_calls(empty, RECORD, said) == (), "nobody asked for words"


@pytest.mark.parametrize("max_turns", [1, 3])
def test_a_model_that_says_nothing_at_all_has_not_answered(max_turns: int) -> None:
    task = talk(call="any", max_turns=max_turns, reply=None)
    request = task.render(RECORD)
    with pytest.raises(InvalidAnswerError, match="neither a call of 'set_label' nor words") as caught:
        task.parse_calls(Answer(text="", finish_reason="stop"), RECORD)
    again = task.repair(request, Answer(), caught.value, base=len(request.messages))
    assert again.messages[-1]["content"].endswith("Call 'set_label', or answer in words.")
    assert task.parse_calls(Answer(text="No."), RECORD) == ()


def test_words_that_were_cut_are_told_as_words() -> None:
    task = talk()
    request, said = after(task)
    with pytest.raises(TruncatedError, match="before its last words were complete") as caught:
        task.parse_calls(Answer(text="All d", finish_reason="length"), RECORD, said)
    brief = task.repair(request, Answer(), caught.value, base=len(request.messages))
    assert brief.messages[-1]["content"].endswith("Be brief: answer in a few words.")
    cut = Answer((ToolCall("x", "set_label", '{"la'),), finish_reason="length")
    for before in ((), said):
        with pytest.raises(TruncatedError, match="before the call of set_label was complete"):
            task.parse_calls(cut, RECORD, before)


def test_a_repair_in_a_later_turn_keeps_what_was_said_before() -> None:
    task = talk()
    request, said = after(task)
    base = len(request.messages)
    for bad in (answer('{"label":"no"}', first=7), answer("{", first=8), answer(text="It is", name="x")):
        wrong = Answer(bad.calls, bad.text)
        with pytest.raises(InvalidAnswerError) as caught:
            task.parse_calls(wrong if wrong.calls else answer("{}", name="zork"), RECORD, said)
        again = task.repair(request, wrong, caught.value, base=base)
        assert is_conversation(again.messages)
        assert again.messages[:base] == request.messages
        assert len(again.messages) == base + 2
        assert again.tool_choice == "auto"
        twice = task.repair(again, wrong, caught.value, base=base)
        assert len(twice.messages) == base + 2, "the last fault takes the place of the one before"
        assert is_conversation(task.next_turn(again, answer(GOOD), said).messages)
    cut = task.repair(request, answer(), TruncatedError("cut"), base=base)
    assert cut.messages[:base] == request.messages


def test_last_words_are_a_column_and_their_lack_is_an_ending_of_its_own() -> None:
    task = talk()
    assert task.columns == ("label", "words")
    said = task.parse_calls(answer(GOOD), RECORD)
    assert task.parse_calls(Answer(text="All done."), RECORD, said) == ()
    assert task.build_rows(said, "All done.", RECORD).label == {"label": "good", "words": "All done."}
    assert task.build_rows(said, "", RECORD).label["words"] == ""
    with pytest.raises(UnfinishedError, match="max_turns"):
        task.build_rows(said, None, RECORD)
    assert talk(reply=None).build_rows(said, None, RECORD).label == {"label": "good"}
    with pytest.raises(TruncatedError):
        task.parse_calls(Answer(text="All d", finish_reason="length"), RECORD, said)


def test_the_last_call_of_a_tool_is_the_one_in_the_row() -> None:
    task = talk()
    said = [*task.parse_calls(answer('{"label":"bad"}'), RECORD), *task.parse_calls(answer(GOOD), RECORD)]
    assert task.build_rows(said, "x", RECORD).label["label"] == "good"
    each = talk(rows="calls").build_rows(said, "x", RECORD)
    assert each.rows is not None
    assert [row["label"] for row in each.rows] == ["bad", "good"]


# -- what a callback is called with ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("callback", "extra"),
    [
        ("named", {"given": True}),
        ("third", {"retries": 3}),
        ("every", {"count": 2}),
        ("gives", None),
        ("an_async", {"tool": "set_label"}),
    ],
)
def test_two_arguments_or_three(module: Callable[..., Path], callback: str, extra: dict[str, Any] | None) -> None:
    base = module(
        TOOLS.replace('{"stock": 3, "who": record.key, "turn": call.turn, "name": call.idempotency_key}', "{}")
    )
    task = talk(base, callback=f"mytools:{callback}", max_turns=1, reply=None)
    (said,) = task.parse_calls(answer(GOOD), RECORD)
    assert respond(task, said).extra == (extra or {})


def test_a_function_as_a_tool_can_have_its_call_and_a_field_of_that_name_stays_one(module: Callable[..., Path]) -> None:
    base = module(TOOLS)
    task = build_task(TaskOptions(model="m", prompt="p", python="mytools:set_label", base=base))
    assert task.columns == ("label",)
    (said,) = task.parse_calls(answer(GOOD), RECORD)
    assert respond(task, said).extra == {"key": "the key"}
    ring = build_task(TaskOptions(model="m", prompt="p", python="mytools:ring", base=base))
    assert ring.columns == ("number", "call")
    (said,) = ring.parse_calls(answer('{"number":"7","call":"twice"}', name="ring"), RECORD)
    assert respond(ring, said).extra == {"rang": "twice"}


def test_a_callback_that_cannot_be_called_is_told_at_the_start(module: Callable[..., Path]) -> None:
    with pytest.raises(TaskError, match=r"cannot be called with \(label, record\)"):
        talk(module(TOOLS), callback="mytools:alone")
    with pytest.raises(TaskError, match="which cannot be called"):
        talk(module(TOOLS + "\n    number = 7\n"), callback="mytools:number")
    with pytest.raises(TaskError, match="already has one"):
        talk(module(TOOLS), labels=None, python="mytools:set_label", callback="mytools:words")


def test_alone_it_raises_what_in_a_conversation_is_told(module: Callable[..., Path]) -> None:
    task = talk(module(TOOLS), callback="mytools:raises", max_turns=1, reply=None)
    (said,) = task.parse_calls(answer(GOOD), RECORD)
    with pytest.raises(CallbackError, match="LookupError: no such thing"):
        respond(task, said)


@pytest.mark.parametrize("callback", ["hangs", "hangs_async"])
def test_one_that_hangs_is_given_up_and_a_model_that_waits_is_told(module: Callable[..., Path], callback: str) -> None:
    more = {"base": module(TOOLS), "callback": f"mytools:{callback}", "callback_timeout_s": 0.05}
    alone = talk(max_turns=1, reply=None, **more)
    (said,) = alone.parse_calls(answer(GOOD), RECORD)
    with pytest.raises(CallbackError, match=r"did not return within 0\.05 s"):
        respond(alone, said)
    assert respond(talk(**more), said).result == {"error": "the callback did not return within 0.05 s"}


@pytest.mark.parametrize(
    ("annotation", "ours"),
    [
        (CallbackContext, True),
        ("CallbackContext", True),
        ("pipeline.CallbackContext", True),
        ("Call", False),
        (str, False),
        ("str", False),
    ],
)
def test_the_context_is_known_by_its_class_and_its_name(annotation: Any, ours: bool) -> None:
    parameter = inspect.Parameter("call", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)
    assert tools._is_ours(parameter) is ours
