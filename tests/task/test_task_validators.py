"""Validators: what a label must fit beside its schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from task_calls import repair

from pipeline import codec
from pipeline.errors import CallbackError, InvalidAnswerError, LabelpipeError, RenderError, TaskError
from pipeline.records import Answer, Record, ToolCall
from pipeline.task import Task, TaskOptions, ToolOptions, ValidatorOptions, build_task

RECORD = Record("f", 0, "k", {"text": "My kettle leaks", "lang": "en", "none": None}, 1, 0)
QUOTE = ToolOptions(
    "cite",
    {
        "type": "object",
        "properties": {
            "quote": {"type": ["string", "null"]},
            "stars": {"type": "integer"},
            "max": {"type": "integer"},
            "result": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["quote", "stars", "max", "result"],
    },
)


def task_of(*validators: ValidatorOptions, base: Path = Path(), **more: Any) -> Task:
    given: dict[str, Any] = {"function": QUOTE} | more
    return build_task(TaskOptions(model="m", prompt="{{ text }}", validators=validators, base=base, **given))


def said(quote: str | None = "kettle", **more: Any) -> Answer:
    label = {"quote": quote, "stars": 3, "max": 5, "result": ["a", "b"], **more}
    return Answer((ToolCall("i", "cite", codec.dumps(label).decode()),))


def verdict(expression: str, answer: Answer | None = None, **more: Any) -> str:
    """What becomes of an answer: fine, or the error's class."""
    task = task_of(ValidatorOptions(expression=expression, **more))
    try:
        task.render(RECORD)
        task.parse_calls(answer or said(), RECORD)
    except LabelpipeError as error:
        return f"{type(error).__name__}: {error}"
    return "fine"


# -- expressions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "len(quote) > 0 and quote in text",
        "quote in record.text and label.quote == quote",
        'record["text"].startswith("My")',
        "stars <= label.max",
        "max(stars, 4) == 4",
        "result|length == 2 and result[0] == 'a'",
        "lower(text) == text|lower",
        "lang in ['en', 'de']",
        "title is not defined or quote in title",
        "title|default('kettle') == quote",
        "record.title is not defined",
        "none is none",
        "'}}' not in text and '{{' not in text",
    ],
)
def test_what_an_expression_can_say(expression: str) -> None:
    assert verdict(expression) == "fine"


NAMED_LIKE_METHODS = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"type": "string"}}, "count": {"type": "integer"}},
    "required": ["items", "count"],
}


@pytest.mark.parametrize(
    "expression",
    [
        "count == label.count and label.items == items",
        "items|length == 2 and items.count('a') == 1",
        "label.keys()|length == 2",
        "record.len == 7 and record.get('len') == 7 and order.items == 'x'",
        "record.order.items == 'x' and record.order.values is not defined",
    ],
)
def test_a_dot_is_a_field_and_a_call_is_a_method(expression: str) -> None:
    function = ToolOptions("f", NAMED_LIKE_METHODS)
    task = task_of(ValidatorOptions(expression=expression), function=function, strict=False)
    record = replace(RECORD, fields={"text": "t", "len": 7, "order": {"items": "x"}})
    assert task.render(record)
    assert task.parse_calls(Answer((ToolCall("i", "f", '{"items": ["a", "b"], "count": 5}'),)), record)


@pytest.mark.parametrize(
    ("expression", "answer", "words"),
    [
        ("quote in text", said("toaster"), "the label does not fit the rule: quote in text"),
        ("len(quote) > 0", said(None), r"rule: len\(quote\) > 0 \(TypeError: object of type 'NoneType' has no len"),
        ("stars / 0 > 1", said(), "ZeroDivisionError"),
        ("stars > 3", said(), "rule: stars > 3$"),
    ],
)
def test_what_does_not_fit_is_worth_asking_again(expression: str, answer: Answer, words: str) -> None:
    task = task_of(ValidatorOptions(expression=expression))
    with pytest.raises(InvalidAnswerError, match=words) as caught:
        task.parse_calls(answer, RECORD)
    assert caught.value.code == "invalid_label"
    again = repair(task, task.render(RECORD), answer, caught.value)
    assert "does not fit the rule" in str(again.messages[-1]["content"]), "the model is told why"


def test_a_message_of_ones_own_and_all_faults_at_once() -> None:
    task = task_of(
        ValidatorOptions(expression="quote in text", message="quote the text word by word"),
        ValidatorOptions(expression="stars > 3"),
    )
    with pytest.raises(
        InvalidAnswerError, match=r"^quote the text word by word; the label does not fit the rule: stars"
    ):
        task.parse_calls(said("toaster"), RECORD)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("quote in", r"number 1: 'quote in' is not an expression: column 9 \(the end\): something is missing"),
        ("len(quote) > 0) or (1", "is not an expression"),
        ("quote.__class__", "uses '__class__': only fields"),
        ("''.__class__.__mro__[1].__subclasses__()", "uses '__"),
        ("label.quot == 'a'", "names 'quot'; the label has quote, stars, max, result"),
        ("sum > 3", "uses the function 'sum' without calling it: write label.sum or record.sum"),
        ("max > 3", "uses 'max', which is a field of the label and also a word of expressions: write label.max"),
    ],
)
def test_what_cannot_work_is_told_at_the_start(expression: str, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        task_of(ValidatorOptions(expression=expression))


@pytest.mark.parametrize(
    "expression", ["quotes in text", "quote in txt", "quote in record.txt", "range(3)", "open('x')"]
)
def test_a_name_that_is_nowhere_is_told_before_anything_is_sent(expression: str) -> None:
    told = verdict(expression)
    assert told.startswith("RenderError: task.validators, number 1: ")
    assert "the label has quote, stars, max, result, and the record's fields are text, lang, none" in told


@pytest.mark.parametrize(
    "expression",
    [
        "quote['__class__']",
        "text|attr('__class__')",
        "'{0.__class__}'.format(text)",
        "[text]|map(attribute='__class__')|first|length > 0",
    ],
)
def test_nothing_reaches_out_of_the_sandbox(expression: str) -> None:
    assert verdict(expression).startswith(("CallbackError", "InvalidAnswerError", "TaskError"))


def test_what_a_record_says_is_never_an_expression() -> None:
    record = Record("f", 0, "k", {"text": "{{ 1/0 }} __class__ quote", "lang": "en"}, 1, 0)
    task_of(ValidatorOptions(expression="quote in text")).parse_calls(said("{{ 1/0 }}"), record)


def test_a_field_that_the_model_left_out_is_null() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a"]}
    rule = ValidatorOptions(expression="b is none or a in b or label.b == a")
    task = task_of(rule, function=ToolOptions("f", schema), strict=False)
    assert task.parse_calls(Answer((ToolCall("i", "f", '{"a":"x"}'),)), RECORD)[0].label == {"a": "x"}


def test_the_labels_field_comes_before_the_records() -> None:
    task = task_of(
        ValidatorOptions(expression="text == 'x' and record.text != 'x'"), function=None, labels={"text": ["x"]}
    )
    task.parse_calls(Answer((ToolCall("i", "set_label", '{"text":"x"}'),)), RECORD)


# -- functions -------------------------------------------------------------------------------------------------------

CHECKS = """
    import sys

    from pydantic import BaseModel

    def fine(label, record):
        return label["quote"] in record.fields["text"]

    def told(label, record):
        return None if label["stars"] < 3 else f"{record.key} has too many stars"

    def raises(label, record):
        if label["stars"] > 2:
            raise ValueError("too many")

    def asserts(label, record):
        assert label["stars"] < 3

    def breaks(label, record):
        return label["zork"]

    def leaves(label, record):
        sys.exit(3)

    def other(label, record):
        return 7

    def spoils(label, record):
        label["result"].append("mine")
        label.clear()

    async def late(label, record):
        return True

    def one(label):
        return True

    class Checker:
        def __call__(self, label, record):
            return False

    checker = Checker()

    def wordless(label, record):
        return ""

    def blank(label, record):
        return "  "

    def blankly(label, record):
        raise ValueError("  ")

    def changes(label, record):
        record.fields["text"] = "changed"
        record.fields["more"]["deep"][0]["x"] = "changed"

    def interrupts(label, record):
        raise KeyboardInterrupt
"""


@pytest.mark.parametrize(
    ("name", "message", "words"),
    [
        ("told", None, "^k has too many stars$"),
        ("raises", None, "^too many$"),
        ("raises", "fewer stars", "^fewer stars$"),
        ("asserts", None, "^the validator asserts refused the answer$"),
        ("checker", None, "^the validator Checker refused the answer$"),
        ("checker", "not so", "^not so$"),
        ("wordless", None, "^the validator wordless refused the answer$"),
        ("blank", None, "^the validator blank refused the answer$"),
        ("blankly", None, "^the validator blankly refused the answer$"),
    ],
)
def test_a_function_that_refuses(module: Callable[..., Path], name: str, message: str | None, words: str) -> None:
    task = task_of(ValidatorOptions(python=f"mytools:{name}", message=message), base=module(CHECKS))
    with pytest.raises(InvalidAnswerError, match=words):
        task.parse_calls(said(), RECORD)


def test_a_function_that_is_content_and_one_that_changes_its_copy(module: Callable[..., Path]) -> None:
    rules = [ValidatorOptions(python=f"mytools:{name}") for name in ("spoils", "fine")]
    task = task_of(*rules, base=module(CHECKS))
    assert task.parse_calls(said(), RECORD)[0].label["result"] == ["a", "b"]
    with pytest.raises(InvalidAnswerError, match="fine refused the answer"):
        task.parse_calls(said("toaster"), RECORD)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("breaks", "raised KeyError"),
        ("leaves", "raised SystemExit: 3"),
        ("interrupts", "raised KeyboardInterrupt"),
        ("other", "returned 7: expected"),
    ],
)
def test_a_function_that_breaks_is_no_fault_of_the_model(module: Callable[..., Path], name: str, words: str) -> None:
    task = task_of(ValidatorOptions(python=f"mytools:{name}"), base=module(CHECKS))
    with pytest.raises(CallbackError, match=words):
        task.parse_calls(said(), RECORD)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (ValidatorOptions(python="mytools:late"), "must be a plain function that takes"),
        (ValidatorOptions(python="mytools:one"), "must be a plain function that takes"),
        (
            ValidatorOptions(python="mytools:nosuch"),
            "^task.validators, number 1: python is 'mytools:nosuch', but .* no 'nosuch'",
        ),
        (
            ValidatorOptions(python="nosuchmodule:f"),
            "^task.validators, number 1: python names the module 'nosuchmodule'",
        ),
        (ValidatorOptions(), "number 1: expected either expression or python"),
        (ValidatorOptions(expression="1", python="mytools:fine"), "expected either expression or python"),
        (ValidatorOptions(expression="1", tool="zork"), "tool is 'zork', which the task does not have; it has cite"),
    ],
)
def test_a_validator_that_is_none(module: Callable[..., Path], rule: ValidatorOptions, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        task_of(rule, base=module(CHECKS))


def test_what_it_does_to_the_record_is_done_to_a_copy(module: Callable[..., Path]) -> None:
    fields = {"text": "as it was", "more": {"deep": [{"x": 1}]}}
    record = replace(RECORD, fields=fields)
    task = task_of(ValidatorOptions(python="mytools:changes"), base=module(CHECKS))
    task.parse_calls(said(), record)
    task.parse_calls(said(), record)
    assert record.fields == {"text": "as it was", "more": {"deep": [{"x": 1}]}}


# -- several tools ---------------------------------------------------------------------------------------------------

REFUND = ToolOptions("refund", labels={"amount": [1, 2]})
CLOSE = ToolOptions("close", labels={"why": ["spam", "done"]})


def test_a_validator_of_one_tool_leaves_the_others_alone() -> None:
    rule = ValidatorOptions(expression="amount < 2", tool="refund")
    task = task_of(rule, function=None, tools=[REFUND, CLOSE], rows="calls")
    calls = [ToolCall("a", "close", '{"why":"spam"}'), ToolCall("b", "refund", '{"amount":1}')]
    assert len(task.parse_calls(Answer(tuple(calls)), RECORD)) == 2
    calls.append(ToolCall("c", "refund", '{"amount":2}'))
    with pytest.raises(InvalidAnswerError, match=r"^the label does not fit the rule: amount < 2$"):
        task.parse_calls(Answer(tuple(calls)), RECORD)


def test_one_that_forgot_to_name_its_tool_is_told_which() -> None:
    task = task_of(ValidatorOptions(expression="amount < 2"), function=None, tools=[REFUND, CLOSE])
    with pytest.raises(RenderError, match=r"names 'amount'; the label of close has why \(give it tool = 'refund'\?\)"):
        task.render(RECORD)


def test_validators_are_in_the_fingerprint_and_their_messages_are_not() -> None:
    plain, ruled, told = (
        task_of(*rules).fingerprint
        for rules in ([], [ValidatorOptions("stars > 1")], [ValidatorOptions("stars > 1", message="more")])
    )
    assert "validators" not in plain
    assert ruled == told != plain


def test_an_answer_is_shared_only_where_nothing_looks_at_more_than_the_request() -> None:
    """A validator sees fields that no prompt names, and a conversation goes on about its own record."""
    assert task_of().can_share_answers
    assert not task_of(ValidatorOptions(expression="stars > 0")).can_share_answers
    assert not task_of(max_turns=2).can_share_answers
