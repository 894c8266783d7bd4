"""What the simulated model says: valid, repeatable, and sensible for the sample."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rehearsal_client import ENUM, ask, tool

from pipeline.rehearsal import RehearsalOptions
from pipeline.rehearsal.completions import CompletionGenerator
from pipeline.rehearsal.request_parser import Call, RequestParser
from pipeline.rehearsal.schema_values import ValueGenerator
from pipeline.rehearsal.seeded_random import SeededRandom
from pipeline.rehearsal.sentiment import sentiment_sign, sentiment_values

SAMPLE = [
    ("I love this product!", "positive"),
    ("This is the worst thing I have ever bought.", "negative"),
    ("It's okay, not great but not bad.", "neutral"),
    ("Not worth the money.", "negative"),
    ("Best purchase ever!", "positive"),
    ("이 제품을 사랑해요!", "positive"),
    ("돈이 아깝다.", "negative"),
]


def read(body: dict[str, Any]) -> Call:
    _, call = RequestParser(RehearsalOptions()).read(json.dumps(body).encode())
    assert isinstance(call, Call), call
    return call


def answer(body: dict[str, Any], *, seed: int = 0, accuracy: float = 1.0, kind: str | None = None) -> dict[str, Any]:
    completion: dict[str, Any] = CompletionGenerator(seed, accuracy).complete(read(body), kind).body
    return completion


def label(body: dict[str, Any], **more: Any) -> Any:
    message = answer(body, **more)["choices"][0]["message"]
    return json.loads(message["tool_calls"][0]["function"]["arguments"])


def fields(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


# -- schemas: any value that is made must be valid --------------------------------------------------------------------


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    least = draw(st.integers(0, 12))
    return {"type": "string", "minLength": least, "maxLength": least + draw(st.integers(0, 40))}


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["integer", "number"]))
    low = draw(st.integers(-1000, 1000))
    schema: dict[str, Any] = {"type": kind}
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = low + draw(st.integers(20, 500))
    if kind == "integer" and draw(st.booleans()):
        schema["multipleOf"] = draw(st.integers(1, 9))
    return schema


PATTERNS = [
    r"^[A-Z]{2,3}-\d+$",
    r"^(a|b)*c$",
    r"^\S+@\S+\.com$",
    r"^[^abc]{4}$",
    r"\d{4}-\d\d",
    r"^[가-힣]+$",
    r"^\w+\s?$",
]
LEAVES = (
    st.just({"type": "boolean"})
    | st.just({"type": "null"})
    | st.just({"const": {"a": [1]}})
    | st.lists(st.text(max_size=8) | st.integers() | st.none(), min_size=1, max_size=5).map(lambda all_: {"enum": all_})
    | st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern})
    | st.sampled_from([["string", "null"], ["integer", "null"]]).map(lambda kinds: {"type": kinds})
    | st.just({"$ref": "#/$defs/mood"})
    | st.just({"$ref": "#/$defs/tree"})
    | strings()
    | numbers()
)


def _nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    objects = st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=4).map(lambda found: fields(**found))
    sizes = st.integers(0, 4)
    arrays = st.builds(
        lambda item, low, more: {"type": "array", "items": item, "minItems": low, "maxItems": low + more},
        inner,
        sizes,
        sizes,
    )
    unions = st.lists(inner, min_size=1, max_size=3).map(lambda found: {"anyOf": found})
    return objects | arrays | unions


DEFS = {
    "mood": {"type": "string", "enum": ENUM},
    "tree": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "below": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
            "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
        },
        "required": ["name", "below", "next"],
        "additionalProperties": False,
    },
}


@given(schema=st.recursive(LEAVES, _nested, max_leaves=8), seed=st.integers(0, 1000))
def test_what_is_made_for_a_schema_validates(schema: dict[str, Any], seed: int) -> None:
    root = {**fields(value=schema), "$defs": DEFS}
    value = ValueGenerator(root).fill(SeededRandom(seed))
    jsonschema_rs.validator_for(root).validate(value)
    assert ValueGenerator(root).fill(SeededRandom(seed)) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True},
        {
            "type": "array",
            "prefixItems": [{"type": "string"}, {"const": 7}],
            "items": False,
            "minItems": 2,
            "maxItems": 2,
        },
        {"allOf": [fields(a={"type": "integer"}), {"properties": {"b": {"const": 1}}, "required": ["b"]}]},
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "uuid"},
        {"type": "number", "multipleOf": 0.5, "minimum": 1, "maximum": 9},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
        {"type": "object", "required": ["free"]},
        {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        True,
    ],
)
def test_rarer_words_of_schemas(schema: Any) -> None:
    if isinstance(schema, dict) and "allOf" in schema:
        schema["allOf"][0].pop("additionalProperties")
    validator = jsonschema_rs.validator_for(fields(value=schema), validate_formats=True)
    for seed in range(20):
        validator.validate(ValueGenerator(fields(value=schema)).fill(SeededRandom(seed)))


# -- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), SAMPLE)
def test_the_sample_gets_sensible_labels(text: str, expected: str) -> None:
    assert label(ask(f"Label this text: {text}")) == {"label": expected}


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("It isn’t good.", -1),
        ("It was never bad", 1),
        ("I did not find it. Great!", 1),
        ("불만족스러워요", -1),
        ("돈이 아깝지 않아요", 1),
        ("별로 좋지 않아요", -1),
        ("안 좋아요", -1),
        ("그냥 그래요", 0),
        ("The box is blue.", 0),
    ],
)
def test_a_not_turns_what_follows(text: str, sign: int) -> None:
    assert sentiment_sign(text) == sign


def test_sentiment_is_known_by_its_words_in_either_language() -> None:
    assert sentiment_values(["부정", "긍정", "중립"]) == {-1: "부정", 1: "긍정", 0: "중립"}
    assert sentiment_values(["POSITIVE", "Negative"]) == {1: "POSITIVE", -1: "Negative"}
    assert sentiment_values(["red", "positive"]) is None
    assert sentiment_values([1, None]) is None


def test_other_enums_take_the_word_that_the_text_says() -> None:
    topics = tool(fields(topic={"type": "string", "enum": ["billing", "customer_service", "delivery"]}))
    for text, topic in [("The delivery came late", "delivery"), ("Rude customer service!", "customer_service")]:
        assert label(ask(text, tools=[topics])) == {"topic": topic}
    found = {label(ask(f"number {i}", tools=[topics]))["topic"] for i in range(40)}
    assert found == {"billing", "customer_service", "delivery"}


def test_the_same_prompt_gets_the_same_answer_and_another_seed_another() -> None:
    free = tool(fields(score={"type": "integer", "minimum": 0, "maximum": 10_000}))
    bodies = [ask(f"text {i}", record=str(i), tools=[free]) for i in range(5)]
    first = [label(body) for body in bodies]
    assert [label(body) for body in reversed(bodies)] == first[::-1]
    assert [label(body, seed=1) for body in bodies] != first
    assert label({**bodies[0], "metadata": {"record": "another"}}) == first[0]


def gold(i: int, **values: Any) -> dict[str, Any]:
    return ask(f"text {i}", metadata={"record": str(i), "gold": json.dumps(values, ensure_ascii=False)})


def test_gold_is_given_with_the_accuracy_that_was_set() -> None:
    rights = [ENUM[i % 3] for i in range(600)]
    assert all(label(gold(i, label=right)) == {"label": right} for i, right in enumerate(rights[:30]))
    found = [label(gold(i, label=right), accuracy=0.8)["label"] for i, right in enumerate(rights)]
    assert 0.74 < sum(one == other for one, other in zip(found, rights, strict=True)) / 600 < 0.86
    assert set(found) == set(ENUM)
    assert all(label(gold(i, label=right), accuracy=0.0)["label"] != right for i, right in enumerate(rights[:30]))


def test_gold_as_a_csv_has_it_becomes_what_the_schema_wants() -> None:
    kinds = tool(fields(n={"type": "integer"}, yes={"type": "boolean"}, label={"enum": ENUM}, x={"type": "number"}))
    body = {**gold(1, n="7", yes="True", label="Neutral", x="0.5", unknown="ignored"), "tools": [kinds]}
    assert label(body) == {"n": 7, "yes": True, "label": "neutral", "x": 0.5}
    wrong = label(body, accuracy=0.0)
    assert wrong["n"] != 7
    assert wrong["yes"] is False
    assert wrong["label"] != "neutral"


def test_gold_of_several_labels_is_a_json_list_or_one_of_them() -> None:
    several = {"tools": [tool(fields(topics={"type": "array", "items": {"enum": ENUM}}))]}
    for cell, right in (('["Neutral", "positive"]', ["neutral", "positive"]), ("neutral", ["neutral"]), ("", [])):
        assert label({**gold(1, topics=cell), **several}) == {"topics": right}
    assert label({**gold(1, topics=["purple"]), **several})["topics"] != ["purple"]


def test_gold_that_is_no_label_is_passed_over_and_a_bare_word_is_meant_for_the_only_field() -> None:
    assert label(ask("I love it", metadata={"gold": '{"label": "purple"}'})) == {"label": "positive"}
    assert label(ask("I love it", metadata={"gold": "negative"})) == {"label": "negative"}


# -- the completion ---------------------------------------------------------------------------------------------------


def test_forced_calls_finish_with_stop_and_others_with_tool_calls() -> None:
    reasons = {}
    for choice in (None, "auto", "required", {"type": "function", "function": {"name": "label"}}):
        reasons[str(choice)[:8]] = answer(ask(tool_choice=choice))["choices"][0]["finish_reason"]
    assert list(reasons.values()) == ["tool_calls", "tool_calls", "tool_calls", "stop"]


def test_without_tools_the_answer_is_text_and_a_response_format_is_kept_to() -> None:
    message = answer(ask(tools=None, tool_choice=None))["choices"][0]["message"]
    assert "simulated" in message["content"]
    assert "tool_calls" not in message
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": fields(label={"enum": ENUM})}}
    message = answer(ask(tools=None, tool_choice=None, response_format=wanted))["choices"][0]["message"]
    assert json.loads(message["content"]) == {"label": "positive"}
    assert "tool_calls" not in answer(ask(tool_choice="none"))["choices"][0]["message"]


def test_usage_counts_prompt_tools_and_arguments() -> None:
    usage = answer(ask("x" * 400))["usage"]
    tools_chars = len(json.dumps([tool()], separators=(",", ":")))
    assert usage["prompt_tokens"] == -(-(400 + len("You label.") + tools_chars) // 4) + 6
    assert usage["completion_tokens"] == -(-len('{"label":"positive"}') // 4)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_request_s_own_maximum_cuts_the_answer() -> None:
    completion = answer(ask(max_completion_tokens=2))
    choice = completion["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"label"'
    assert completion["usage"]["completion_tokens"] == 2


@given(parameters=st.dictionaries(st.text(min_size=1, max_size=4), LEAVES, min_size=1, max_size=3))
def test_a_bad_label_is_never_valid(parameters: dict[str, Any]) -> None:
    schema = {**fields(**parameters), "$defs": DEFS}
    found = label(ask(tools=[tool(schema, strict=False)]), kind="bad_label")
    assert not jsonschema_rs.is_valid(schema, found)
