"""Several functions, several calls in one answer, and conversations: over a socket, with a client that is not ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from rehearsal_client import ENUM, ask, forced, tool, with_endpoint

from pipeline.rehearsal import Rehearsal

FREE = {
    "type": "object",
    "properties": {"count": {"type": "integer"}, "note": {"type": "string"}},
    "required": ["count", "note"],
    "additionalProperties": False,
}


def described(name: str, description: str) -> dict[str, Any]:
    made = tool(FREE, name)
    made["function"]["description"] = description
    return made


DESK = [
    described("refund_order", "Give the customer their money back."),
    described("book_repair", "Send the thing to a workshop to be mended."),
    described("close_ticket", "Nothing has to be done."),
]


def messages_of(bodies: Sequence[dict[str, Any]], **options: Any) -> list[Any]:
    """The choices of the answers to some bodies, from one endpoint."""

    async def talk(_endpoint: Rehearsal, client: AsyncOpenAI) -> list[Any]:
        return [(await client.chat.completions.create(**body)).choices[0] for body in bodies]

    found: list[Any] = with_endpoint(talk, **options)
    return found


def said(choice: Any) -> list[tuple[str, Any]]:
    calls = choice.message.tool_calls or []
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


def desk(text: str = "hello", choice: Any = "required", *, parallel: bool | None = None, **more: Any) -> dict[str, Any]:
    return ask(text, tools=DESK, tool_choice=choice, parallel_tool_calls=parallel, **more)


def turn(choice: Any, *contents: str) -> list[dict[str, Any]]:
    """An answer with calls, and their results."""
    calls = [call.model_dump() for call in choice.message.tool_calls]
    results = contents * (len(calls) if len(contents) == 1 else 1)
    return [
        {"role": "assistant", "content": None, "tool_calls": calls},
        *[
            {"role": "tool", "tool_call_id": call["id"], "content": text}
            for call, text in zip(calls, results, strict=True)
        ],
    ]


# -- which functions --------------------------------------------------------------------------------------------------


def test_of_several_functions_one_is_called_where_only_one_may_be() -> None:
    texts = ["I want a refund at once", "can a workshop mend it?", "My repairs were fine, close the tickets"]
    for mode in ("required", "auto"):
        found = messages_of([desk(text, mode, parallel=False) for text in texts])
        assert [[name for name, _ in said(one)] for one in found] == [
            ["refund_order"],
            ["book_repair"],
            ["close_ticket"],
        ]
        assert {one.finish_reason for one in found} == {"tool_calls"}


def test_what_a_prompt_says_of_all_records_does_not_choose() -> None:
    opening = "Refund, refund, refund: is it about money or the customer?\n"
    found = messages_of([desk(opening + text, parallel=False) for text in ("can a workshop mend it?", "hello")])
    assert [said(one)[0][0] for one in found] == ["book_repair", "refund_order"]


def test_a_text_that_speaks_of_none_is_left_to_chance_but_the_same_each_time() -> None:
    bodies = [desk(f"number {place}", parallel=False) for place in range(30)]
    found = [said(one) for one in messages_of(bodies)]
    assert {name for calls in found for name, _ in calls} == {one["function"]["name"] for one in DESK}
    assert [said(one) for one in messages_of(bodies[::-1])][::-1] == found
    assert [said(one) for one in messages_of(bodies, seed=1)] != found


def test_several_at_once_are_each_called_once_with_ids_of_their_own() -> None:
    for parallel in (True, None):
        (choice,) = messages_of([desk(parallel=parallel)])
        assert [name for name, _ in said(choice)] == ["refund_order", "book_repair", "close_ticket"]
        assert len({call.id for call in choice.message.tool_calls}) == 3
        assert len({json.dumps(arguments) for _, arguments in said(choice)}) == 3


def test_a_named_function_is_called_alone() -> None:
    (choice,) = messages_of([desk(choice=forced("book_repair"))])
    assert [name for name, _ in said(choice)] == ["book_repair"]
    assert choice.finish_reason == "stop"


@pytest.mark.parametrize("choice", ["required", forced("refund_order")], ids=["required", "named"])
def test_one_function_is_called_up_to_three_times_where_that_is_said(choice: Any) -> None:
    bodies = [ask(f"number {place}", tools=DESK[:1], tool_choice=choice) for place in range(20)]
    found = [said(one) for one in messages_of([{**body, "parallel_tool_calls": True} for body in bodies])]
    assert {len(calls) for calls in found} == {1, 2, 3}
    for calls in found:
        assert len({json.dumps(arguments) for _, arguments in calls}) == len(calls), "the calls differ"
    for parallel in ({}, {"parallel_tool_calls": False}):
        assert all(len(said(one)) == 1 for one in messages_of([{**body, **parallel} for body in bodies]))


def test_a_function_with_little_to_say_does_not_say_it_twice() -> None:
    only = tool({**tool()["function"]["parameters"], "properties": {"label": {"type": "string", "enum": ["yes"]}}})
    bodies = [ask(f"number {place}", tools=[only], parallel_tool_calls=True) for place in range(8)]
    assert all(len(said(one)) == 1 for one in messages_of(bodies))


def test_gold_is_for_the_first_call_of_each_function() -> None:
    tools = [tool(name="one"), tool(name="two")]
    metadata = {"record": "r1", "gold": json.dumps({"label": "neutral"})}
    (choice,) = messages_of([ask("I love it", tools=tools, tool_choice="auto", metadata=metadata)])
    assert said(choice) == [("one", {"label": "neutral"}), ("two", {"label": "neutral"})]


def test_a_list_of_labels_says_each_once_and_what_the_text_names_first() -> None:
    topics = {"type": "array", "items": {"type": "string", "enum": ["price", "taste", "delivery"]}}
    listing = tool({**FREE, "properties": {"topics": topics}, "required": ["topics"]})
    bodies = [ask(f"The delivery was late, {place}", tools=[listing]) for place in range(12)]
    for choice in messages_of(bodies):
        ((_, label),) = said(choice)
        assert label["topics"][0] == "delivery"
        assert len(set(label["topics"])) == len(label["topics"])


def test_what_is_described_as_a_quote_stands_in_the_text() -> None:
    quote = {"type": "string", "description": "The exact words of the text that name it."}
    quoting = tool({**FREE, "properties": {"quote": quote}, "required": ["quote"]})
    text = "The kettle (a gift) leaks, and Ms Osei knows"
    bodies = [ask(f"Find it.\nText {place}: {text}", tools=[quoting]) for place in range(12)]
    quotes = {label["quote"] for choice in messages_of(bodies) for _, label in said(choice)}
    assert all(one in text for one in quotes)
    assert len(quotes) > 3


def test_the_maximum_cuts_the_call_that_it_falls_into_and_leaves_out_later_ones() -> None:
    whole, cut = messages_of([desk(), desk(max_completion_tokens=20)])
    first, *_ = [call.function.arguments for call in whole.message.tool_calls]
    assert len(first) < 80 < sum(len(call.function.arguments) for call in whole.message.tool_calls)
    kept = [call.function.arguments for call in cut.message.tool_calls]
    assert kept[0] == first
    assert sum(map(len, kept)) == 80
    assert cut.finish_reason == "length"


def test_the_books_hold_all_calls_of_an_answer() -> None:
    async def talk(endpoint: Rehearsal, client: AsyncOpenAI) -> Any:
        completion = await client.chat.completions.create(**desk())
        return said(completion.choices[0]), endpoint.books.entry("r1").label

    calls, label = with_endpoint(talk)
    assert label == [{"name": name, "arguments": arguments} for name, arguments in calls]


def test_two_calls_adds_one_that_differs() -> None:
    one, several = messages_of([desk(parallel=False), desk()], faults={"two_calls": 1.0})
    assert [len(said(choice)) for choice in (one, several)] == [2, 4]
    for choice in (one, several):
        assert said(choice)[-1][0] == said(choice)[0][0]
        assert said(choice)[-1] != said(choice)[0]
        assert len({call.id for call in choice.message.tool_calls}) == len(said(choice))


# -- conversations ----------------------------------------------------------------------------------------------------


def converse(text: str, result: str, **options: Any) -> list[Any]:
    """The answers of a conversation, until one is in words."""

    async def talk(_endpoint: Rehearsal, client: AsyncOpenAI) -> list[Any]:
        body = desk(text, "required")
        choices = []
        while len(choices) < 9:
            choice = (await client.chat.completions.create(**body)).choices[0]
            choices.append(choice)
            if not choice.message.tool_calls:
                break
            body = {**body, "messages": [*body["messages"], *turn(choice, result)], "tool_choice": "auto"}
        return choices

    found: list[Any] = with_endpoint(talk, **options)
    return found


def test_after_the_results_it_speaks_or_calls_once_more_and_then_speaks() -> None:
    talks = [converse(f"number {place}", '{"done": true}') for place in range(24)]
    rounds = [len(choices) for choices in talks]
    assert set(rounds) == {2, 3}
    assert rounds.count(2) > rounds.count(3)
    for choices in talks:
        last = choices[-1]
        assert (last.finish_reason, last.message.tool_calls) == ("stop", None)
        assert "simulated" in last.message.content
        ids = [call.id for choice in choices[:-1] for call in choice.message.tool_calls]
        assert len(set(ids)) == len(ids), "no id comes twice in a conversation"
        assert all(len(choice.message.tool_calls) == 1 for choice in choices[1:-1])


@pytest.mark.parametrize(
    "result", ["Error: no such order", '{"error": "no such order"}', "Bad. Call book_repair again."]
)
def test_a_result_that_complains_is_answered_by_a_call_but_not_for_ever(result: str) -> None:
    assert len(converse("hello", result)) == 4


def test_a_request_that_wants_a_call_gets_one_after_results_too() -> None:
    (first,) = messages_of([desk(parallel=False)])
    opening = desk()["messages"]
    later = [
        {**desk(choice=choice), "messages": [*opening, *turn(first, "ok")]}
        for choice in ("required", forced("close_ticket"))
    ]
    assert all(said(choice) for choice in messages_of(later))


def test_a_user_who_speaks_again_begins_a_new_round() -> None:
    (first,) = messages_of([desk(parallel=False)])
    body = desk(choice="auto")
    body["messages"] += [*turn(first, "ok"), {"role": "user", "content": "and now?"}]
    (choice,) = messages_of([body])
    assert len(said(choice)) == 3


def test_the_last_words_keep_to_a_response_format() -> None:
    (first,) = messages_of([desk(parallel=False)])
    schema = {
        "name": "mood",
        "schema": {"type": "object", "properties": {"label": {"enum": ENUM}}, "required": ["label"]},
    }
    bodies = []
    for place in range(8):
        body = desk(choice="auto", response_format={"type": "json_schema", "json_schema": schema})
        body["messages"] += turn(first, f"ok {place}")
        bodies.append(body)
    spoken = [choice.message.content for choice in messages_of(bodies) if not choice.message.tool_calls]
    assert spoken
    assert all(json.loads(text)["label"] in ENUM for text in spoken)


def test_a_call_without_its_result_is_refused() -> None:
    (first,) = messages_of([desk()])
    body = desk(choice="auto")
    body["messages"] += turn(first, "ok")[:-1]
    with pytest.raises(openai.BadRequestError, match="must be followed by tool messages responding to each 'tool_call"):
        messages_of([body])


@pytest.mark.parametrize("kind", ["bad_json", "bad_label", "no_tool", "wrong_tool", "two_calls"])
def test_words_have_no_call_that_a_fault_could_spoil(kind: str) -> None:
    async def talk(endpoint: Rehearsal, client: AsyncOpenAI) -> Any:
        completion = await client.chat.completions.create(**desk(choice="none"))
        return completion.choices[0].message.content, endpoint.books.totals()

    words, totals = with_endpoint(talk, faults={kind: 1.0})
    assert "simulated" in words
    assert (totals.answered, dict(totals.failed)) == (1, {})
