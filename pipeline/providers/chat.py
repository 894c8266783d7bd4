"""Writes the body of a Chat Completions call, and reads its answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import codec
from pipeline.errors import UnavailableError
from pipeline.providers.api import Api, Reading
from pipeline.providers.reading import (
    AS_OBJECT,
    arguments_text,
    exact,
    no_answer,
    parsed,
    refuse_broken,
    refuse_error_in,
    text_of,
    usage_of,
    without_answer,
)
from pipeline.records import FILTERED, ITEMS, JSON, Answer, Request, ToolCall

#: How gateways end an answer that their upstream did not finish.
BROKEN_OFF = frozenset({"error", "network_error", "insufficient_system_resource"})
#: With these reasons there is always a message, so a choice without one is not an answer. Other reasons, such as a
#: filter's, need no message.
_WITH_MESSAGE = frozenset({"stop", "length", "tool_calls", "function_call"})


def _body(request: Request) -> dict[str, JSON]:
    body: dict[str, JSON] = {"model": request.model, "messages": _plain(request.messages)}
    if request.tools:
        body["tools"] = request.tools
        body["tool_choice"] = request.tool_choice
    body.update(request.parameters)
    return body


def _plain(messages: Sequence[Mapping[str, JSON]]) -> Sequence[Mapping[str, JSON]]:
    """Return the messages without the items of another API: a conversation may continue in this one."""
    for message in messages:
        if ITEMS in message:
            break
    else:
        return messages
    return [{name: value for name, value in message.items() if name != ITEMS} for message in messages]


def _read(content: bytes, secrets: Sequence[str]) -> Reading:
    body, choice = _completion(content, secrets)
    answer = _answer(choice)
    if any(call.readings for call in answer.calls):
        answer = _answer(exact(body, content)["choices"][0])
    model = body.get("model")
    usage = usage_of(body.get("usage"), "prompt_tokens", "completion_tokens")
    return Reading(answer, usage, str(model) if model else None, text_of(body.get("service_tier")))


#: `POST /chat/completions`, which nearly every server has.
CHAT = Api("/chat/completions", _body, _read)


def _completion(content: bytes, secrets: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the body as a completion, and its first choice.

    A success may contain a page, `{}`, a string, or half a JSON text, which raises NoCompletionError. An error in it is
    judged as if it were the status.
    """
    body, intact = parsed(content, secrets)
    choice = _choice(body) if isinstance(body, dict) else None
    if choice is None:
        raise without_answer(body, content, secrets)
    for holder in (body, choice):
        if holder.get("error"):
            refuse_error_in(holder, secrets)
    if (ended := text_of(choice.get("finish_reason"))) in BROKEN_OFF:
        raise no_answer(UnavailableError, f"the server broke off: finish_reason is {ended!r}")
    if not intact:
        refuse_broken(choice["message"])
    return body, choice


def _choice(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the first choice, with an empty message if finish_reason explains why there is none; None: no answer."""
    choices = body.get("choices")
    if not isinstance(choices, list):
        return None
    choice = choices[0] if choices else {"finish_reason": _filtered(body)}
    if not isinstance(choice, dict):
        return None
    if choice.get("message") is None and "delta" not in choice:
        ended = text_of(choice.get("finish_reason"))
        return {**choice, "message": {}} if ended and ended.lower() not in _WITH_MESSAGE else None
    return choice if isinstance(choice.get("message"), dict) else None


def _filtered(body: dict[str, Any]) -> str | None:
    """Return the finish_reason if a filter removed the prompt or the answer and no choice is left; None otherwise."""
    if ended := text_of(body.get("finish_reason")):
        return ended
    feedback = body.get("prompt_feedback") or body.get("promptFeedback")
    if isinstance(feedback, dict) and (reason := feedback.get("block_reason") or feedback.get("blockReason")):
        return f"{FILTERED}: {reason}"
    results = body.get("prompt_filter_results")
    return FILTERED if b'"filtered":true' in codec.dumps(results) else None


#: What is accepted although the API sends it differently; `task.strict_answers` refuses it.
_OLD = "function_call, as before there were tools"


def _answer(choice: dict[str, Any]) -> Answer:
    message = choice["message"]
    calls = message.get("tool_calls")
    readings: tuple[str, ...] = ()
    if not calls and isinstance(message.get("function_call"), dict):
        calls, readings = [{"function": message["function_call"]}], (_OLD,)
    valid = [_call(call, readings) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return Answer(
        tuple(valid),
        text_of(message.get("content")),
        text_of(message.get("refusal")),
        text_of(choice.get("finish_reason")),
    )


def _call(call: dict[str, Any], readings: tuple[str, ...]) -> ToolCall:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        readings = (*readings, AS_OBJECT)
    return ToolCall(str(call.get("id") or ""), str(function.get("name") or ""), arguments_text(arguments), readings)
