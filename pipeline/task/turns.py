"""Going on after a call: the model is told what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline import codec
from pipeline.records import JSON, Answer, Request, ValidCall
from pipeline.task.readings import plain_name
from pipeline.task.render import Message
from pipeline.task.repair import echoed, named_calls, remade

#: what the model is told of a call whose callback gave nothing back, or that has none
DONE = "ok"
UNKNOWN = "there is no such function"
MAX_RESULT_CHARS = 50_000


def next_turn(request: Request, answer: Answer, valid_calls: Sequence[ValidCall]) -> Request:
    """The request that shows the answer's calls and what came of each, and leaves the model free to go on or to end."""
    # By the call itself: not every server gives each a name of its own. One that says the same as another is left out
    # of `valid_calls`, and has that one's result.
    results: dict[object, JSON] = {one.tool: one.result for one in reversed(valid_calls)}
    results |= {id(one.call): one.result for one in valid_calls}
    named = named_calls(request.messages, answer.calls)
    known = {tool["function"]["name"] for tool in request.tools}
    told: list[Message] = []
    shown = []
    for name, call in named:
        meant = plain_name(call.name, known)
        content = told_of(results.get(id(call), results.get(meant))) if meant in known else UNKNOWN
        told.append({"role": "tool", "tool_call_id": name, "content": content})
        shown.append((name, replace(call, name=meant)))
    messages = (*request.messages, echoed(shown, answer.text, answer.items), *told)
    return remade(request, messages, request.parameters, tool_choice="auto")


def told_of(result: JSON) -> str:
    """A callback's result as the model reads it."""
    if result is None:
        return DONE
    text = result if isinstance(result, str) else codec.dumps(result).decode()
    return text if len(text) <= MAX_RESULT_CHARS else f"{text[:MAX_RESULT_CHARS]} … (cut)"
