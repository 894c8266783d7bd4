"""The whole decision table of reading an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_calls import read_label, repair

from pipeline import codec
from pipeline.errors import AnswerError, InvalidAnswerError, RefusalError, TruncatedError
from pipeline.records import Answer, Record, ToolCall
from pipeline.store.rows import answer_text, read_answer
from pipeline.task import Task, TaskOptions, ToolOptions, build_task
from pipeline.task.lenient import FENCE, PREFIX, SPELLING, TEXT_IN_TEXT

RECORD = Record("f", 0, "k", {"text": "t"}, 1, 0)
GOOD = '{"label":"positive"}'


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    return make_task()


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call", "length", None, "anything"])
def test_a_valid_call_is_a_label(task: Task, make_answer, reason: str | None) -> None:
    assert read_label(task, make_answer(GOOD, finish_reason=reason), RECORD) == {"label": "positive"}


def test_space_around_the_arguments_and_text_beside_the_call_do_no_harm(task: Task, make_answer) -> None:
    assert read_label(task, make_answer(f" \n{GOOD}\t", text="Sure!", refusal=""), RECORD) == {"label": "positive"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(refusal="I cannot."), "declined: 'I cannot.'"),
        (Answer(calls=(ToolCall("i", "set_label", GOOD),), refusal="No."), "declined"),
        (Answer(text="half a", finish_reason="content_filter"), "content filter .*'half a'"),
        (Answer(finish_reason="content_filter"), "content filter cut the answer$"),
        (Answer(calls=(ToolCall("i", "set_label", GOOD),), finish_reason="content_filter"), "content filter"),
    ],
)
def test_a_refusal(task: Task, answer: Answer, words: str) -> None:
    with pytest.raises(RefusalError, match=words):
        read_label(task, answer, RECORD)


@pytest.mark.parametrize("arguments", [[], ['{"label":"posi'], ['{"label":"po"}'], ["{}"], [""]])
def test_an_answer_that_was_cut(task: Task, make_answer, arguments: list[str]) -> None:
    with pytest.raises(TruncatedError, match="max_completion_tokens"):
        read_label(task, make_answer(*arguments, finish_reason="length"), RECORD)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(), "no call of 'set_label'$"),
        (Answer(text="It is positive."), "no call of 'set_label'; the text was 'It is positive.'"),
        (Answer(text=GOOD, finish_reason="stop"), "no call of 'set_label'; the text was"),
        (Answer(text="x" * 5000), "x…$"),
        (Answer(calls=(ToolCall("i", "get_weather", GOOD),)), "call of 'get_weather': expected a call of 'set_label'"),
        (Answer(calls=(ToolCall("i", "", GOOD),)), "call of ''"),
    ],
)
def test_no_call_of_the_function(task: Task, answer: Answer, words: str) -> None:
    with pytest.raises(InvalidAnswerError, match=words) as caught:
        read_label(task, answer, RECORD)
    assert caught.value.code == "no_tool_call"


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "{",
        "{'label': 'positive'}",
        GOOD[:-1],
        GOOD * 2,
        '{"label": NaN}',
        "\ud800",
        '{"a":"\\ud8"}',
    ],
)
def test_arguments_that_are_not_json(task: Task, make_answer, arguments: str) -> None:
    with pytest.raises(InvalidAnswerError, match="the arguments of set_label are not valid JSON") as caught:
        read_label(task, make_answer(arguments), RECORD)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            '{"label":"positiv"}',
            r"^label: 'positiv' is not one of \['positive', 'negative', 'neutral'\]$",
        ),
        ("{}", "the arguments: 'label' is required, but missing"),
        ('{"label":null}', "label: "),
        ('{"label":["positive"]}', "label: "),
        ('{"label":"positive","why":"x"}', "'why' was unexpected"),
        ("null", 'the arguments: null is not of type "object"'),
        ('["positive"]', 'not of type "object"'),
        ('"positive"', 'not of type "object"'),
    ],
)
def test_a_label_outside_the_schema(task: Task, make_answer, arguments: str, words: str) -> None:
    with pytest.raises(InvalidAnswerError, match=words) as caught:
        read_label(task, make_answer(arguments), RECORD)
    assert caught.value.code == "invalid_label"


@pytest.mark.parametrize(
    ("name", "arguments", "readings"),
    [
        ("functions.set_label", GOOD, (PREFIX,)),
        ("set_label", f"```json\n{GOOD}\n```", (FENCE,)),
        ("set_label", f"```{GOOD}```", (FENCE,)),
        ("set_label", codec.dumps(GOOD).decode(), (TEXT_IN_TEXT,)),
        ("set_label", codec.dumps(codec.dumps(GOOD).decode()).decode(), (TEXT_IN_TEXT,)),
        ("set_label", '{"label":"Positive"}', (SPELLING,)),
        ("set_label", '{"label":" POSITIVE\\n"}', (SPELLING,)),
        ("functions.set_label", f"```json\n{codec.dumps(GOOD.title()).decode()}```", None),
        ("functions.set_label", codec.dumps('{"label":"Positive"}').decode(), (PREFIX, TEXT_IN_TEXT, SPELLING)),
    ],
)
def test_what_can_be_read_in_one_way_only_is_read_and_told(
    make_task, name: str, arguments: str, readings: tuple[str, ...] | None
) -> None:
    answer = Answer(calls=(ToolCall("i", name, arguments),))
    if readings is not None:
        (said,) = make_task().parse_calls(answer, RECORD)
        assert (said.label, said.readings) == ({"label": "positive"}, readings)
    with pytest.raises(InvalidAnswerError):
        make_task(strict_answers=True).parse_calls(answer, RECORD)


def test_how_a_server_sent_a_call_is_a_reading_too(make_task) -> None:
    answer = Answer(calls=(ToolCall("i", "set_label", GOOD, ("an object",)),))
    (said,) = make_task().parse_calls(answer, RECORD)
    assert said.readings == ("an object",)
    with pytest.raises(InvalidAnswerError, match=r"an object, which task\.strict_answers refuses"):
        make_task(strict_answers=True).parse_calls(answer, RECORD)
    assert read_answer(answer_text(answer)) == answer


@pytest.mark.parametrize(
    ("labels", "value"),
    [
        (["Yes", "yes"], "YES"),  # two that it may be
        (["yes", "no"], "yess"),
        (["yes", "no"], True),
        ([True, False], "true"),
        ([1, 2], "1"),
    ],
)
def test_what_could_be_read_in_two_ways_is_not(make_task, make_answer, labels: list[Any], value: Any) -> None:
    with pytest.raises(InvalidAnswerError, match="is not one of"):
        read_label(make_task(labels={"label": labels}), make_answer(codec.dumps({"label": value}).decode()), RECORD)


def test_choices_within_lists_and_alternatives_are_known(make_task, make_answer) -> None:
    tone = {"$ref": "#/$defs/tone"}
    schema = {
        "type": "object",
        "properties": {
            "tones": {"type": "array", "items": tone},
            "maybe": {"anyOf": [tone, {"type": "null"}]},
            "free": {"type": "string"},
        },
        "required": ["tones", "maybe", "free"],
        "$defs": {"tone": {"type": "string", "enum": ["warm", "cold"]}},
    }
    task = make_task(labels=None, function=ToolOptions("f", schema))
    label = {"tones": ["Warm", "cold "], "maybe": "WARM", "free": " Cold"}
    answer = Answer(calls=(ToolCall("i", "f", codec.dumps(label).decode()),))
    assert read_label(task, answer, RECORD) == {"tones": ["warm", "cold"], "maybe": "warm", "free": " Cold"}


@pytest.mark.parametrize("arguments", ["```" + " " * 29_000, "```" * 9_000, "```\n" * 7_000, " " * 29_000 + "```"])
def test_a_fence_without_an_end_is_no_trap(task: Task, make_answer, arguments: str) -> None:
    """Looked for with a pattern, it took the cube of the number of blanks: hours."""
    with pytest.raises(InvalidAnswerError, match="not valid JSON"):
        read_label(task, make_answer(arguments), RECORD)


TWICE = '{"label":"negative","label":"positive"}'


@pytest.mark.parametrize(
    "arguments",
    [TWICE, '{"label":"negative","label":"Positive"}', codec.dumps(TWICE).decode(), f"```{TWICE}```",
     '{"label":"neutral","l\\u0061bel":"positive"}'],
)  # fmt: skip
def test_a_key_that_stands_twice_and_differs_is_no_label(task: Task, make_answer, arguments: str) -> None:
    with pytest.raises(InvalidAnswerError):
        read_label(task, make_answer(arguments), RECORD)


@pytest.mark.parametrize("arguments", ['{"label":"positive","label":"positive"}', '{"label":"positive" }'])
def test_a_key_that_says_the_same_twice_is_one(task: Task, make_answer, arguments: str) -> None:
    assert read_label(task, make_answer(arguments), RECORD) == {"label": "positive"}


def test_colons_in_a_value_are_no_keys(make_task, make_answer) -> None:
    task = make_task(labels={"label": ["a: b: c", "d"]})
    assert read_label(task, make_answer('{"label":"a: b: c"}'), RECORD) == {"label": "a: b: c"}


@pytest.mark.parametrize("text", ["I love it. I love", "positive"])
def test_words_that_were_cut_are_no_call_and_need_no_more_room(task: Task, text: str) -> None:
    with pytest.raises(InvalidAnswerError, match="no call of 'set_label'") as caught:
        read_label(task, Answer(text=text, finish_reason="length"), RECORD)
    assert caught.value.code == "no_tool_call"


@pytest.mark.parametrize("text", [None, " ", "<think>Let me see: the"])
def test_room_that_went_into_thinking_is_asked_for_again(task: Task, text: str | None) -> None:
    with pytest.raises(TruncatedError, match="max_completion_tokens"):
        read_label(task, Answer(text=text, finish_reason="length"), RECORD)


def test_an_answer_that_the_server_found_no_call_in(make_task) -> None:
    """Also where words alone would do: the server says that a call was meant."""
    answer = Answer(text="<function=set_label{", finish_reason="tool_use_failed")
    for call in ("one", "any"):
        with pytest.raises(InvalidAnswerError, match=r"found no valid call .*<function=set_label") as caught:
            make_task(call=call).parse_calls(answer, RECORD)
        assert caught.value.code == "no_tool_call"


def test_equal_calls_are_one_and_differing_calls_are_none(task: Task, make_answer) -> None:
    assert read_label(task, make_answer(GOOD, f" {GOOD}"), RECORD) == {"label": "positive"}
    with pytest.raises(InvalidAnswerError, match=r"2 calls of set_label that differ: .*positive.*negative"):
        read_label(task, make_answer(GOOD, '{"label":"negative"}'), RECORD)
    with pytest.raises(InvalidAnswerError, match="'x' is not one of"):
        read_label(task, make_answer(GOOD, '{"label":"x"}'), RECORD)


def test_a_call_of_something_else_beside_the_right_one_is_passed_over(task: Task) -> None:
    calls = (ToolCall("a", "think", "{"), ToolCall("b", "set_label", GOOD))
    assert read_label(task, Answer(calls=calls), RECORD) == {"label": "positive"}


def test_the_faults_of_a_long_answer_are_not_looked_for_one_by_one(make_task, make_answer) -> None:
    """The validator makes all of them before it gives the first: 200,000 took half a minute, in the loop."""
    tags = {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}
    schema = {"type": "object", "properties": {"tags": tags}, "required": ["tags"], "additionalProperties": False}
    task = make_task(function=ToolOptions("set_label", schema))
    with pytest.raises(InvalidAnswerError, match=r"^the arguments \(\d+,\d+ characters\) do not fit the schema$"):
        read_label(task, make_answer(codec.dumps({"tags": ["x"] * 10_000}).decode()), RECORD)
    assert len(read_label(task, make_answer(codec.dumps({"tags": ["a"] * 10_000}).decode()), RECORD)["tags"]) == 10_000


def test_a_long_enum_is_shown_in_part(make_task, make_answer) -> None:
    task = make_task(labels={"label": [f"l{n}" for n in range(50)]})
    with pytest.raises(InvalidAnswerError, match=r"'l0', .*'l19'\] \(and 30 more\)") as caught:
        read_label(task, make_answer('{"label":"' + "y" * 5000 + '"}'), RECORD)
    assert len(str(caught.value)) < 600


NESTED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": {"type": "object", "properties": {"n": {"enum": [1]}}}},
        "maybe": {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]},
        "free": {},
        "short": {"type": "string", "pattern": "^.{0,3}$"},
    },
}


@pytest.fixture
def nested(make_task: Callable[..., Task]) -> Task:
    return make_task(function=ToolOptions("set_label", NESTED), strict=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('{"items":[{"n":1},{"n":2}]}', r"^items\[1\].n: 2 is not one of \[1\]$"),
        (
            '{"maybe":"b"}',
            r"maybe: 'b' fits none of the forms it may have \(maybe: 'b' is not one of \['a'\] \| maybe: ",
        ),
        ('{"maybe":"b","items":3}', "maybe: .*; items: 3 is not of type"),
        ('{"short":"' + "z" * 3000 + '"}', "short: .* … "),
    ],
)
def test_the_path_and_the_expectation_are_told(nested: Task, make_answer, arguments: str, words: str) -> None:
    with pytest.raises(InvalidAnswerError, match=words) as caught:
        read_label(nested, make_answer(arguments), RECORD)
    assert len(str(caught.value)) < 1000


def test_the_columns_come_in_the_schemas_order(nested: Task, make_answer) -> None:
    label = read_label(nested, make_answer('{"x":1,"short":"s","maybe":null,"items":[]}'), RECORD)
    assert list(label) == ["items", "maybe", "short", "x"]


@pytest.mark.parametrize("depth", [900, 1500, 100_000])
def test_deep_nesting_breaks_nothing(nested: Task, make_answer, depth: int) -> None:
    arguments = '{"items":' + "[" * depth + "]" * depth + "}"
    with pytest.raises(InvalidAnswerError):
        read_label(nested, make_answer(arguments), RECORD)


# properties

PROPERTIES: dict[str, Any] = {
    "label": {"type": "string", "enum": ["a", "b", "ㅋ"]},
    "stars": {"type": ["integer", "null"]},
    "note": {"type": "string"},
    "tags": {"type": "array", "items": {"type": "string"}},
}
WIDE = build_task(
    TaskOptions(
        model="m",
        prompt="{{ text }}",
        function=ToolOptions("set_label", {"type": "object", "properties": PROPERTIES, "required": list(PROPERTIES)}),
    )
)
PLAIN = build_task(TaskOptions(model="m", prompt="{{ text }}", labels={"label": ["a", "b"]}))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
LABELS = st.fixed_dictionaries(
    {
        "tags": st.lists(TEXTS),
        "label": st.sampled_from(["a", "b", "ㅋ"]),
        "note": TEXTS,
        "stars": st.none() | st.integers(-(2**63), 2**63 - 1),
    }
)


@given(LABELS)
def test_a_valid_label_survives_the_way_there_and_back(label: dict[str, Any]) -> None:
    text = codec.dumps(label).decode()
    read = read_label(WIDE, Answer(calls=(ToolCall("i", "set_label", text),)), RECORD)
    assert read == label
    assert tuple(read) == WIDE.columns


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda more: st.lists(more, max_size=3)
)
ARGUMENTS = st.text() | JSONISH.map(lambda value: codec.dumps({"label": value}).decode())
CALLS = st.builds(ToolCall, st.text(), st.sampled_from(["set_label", "x"]) | st.text(), ARGUMENTS)
ANSWERS = st.builds(
    Answer,
    st.lists(CALLS, max_size=3).map(tuple),
    st.none() | st.text(),
    st.none() | st.text(max_size=1),
    st.sampled_from([None, "stop", "length", "content_filter", "tool_calls"]),
)


@given(ANSWERS)
def test_garbage_raises_nothing_but_an_answer_error(answer: Answer) -> None:
    for task in (PLAIN, WIDE):
        try:
            label = read_label(task, answer, RECORD)
        except AnswerError as error:
            again = repair(task, task.render(RECORD), answer, error)
            codec.dumps(again.messages)
        else:
            assert label["label"] in ("a", "b", "ㅋ")
