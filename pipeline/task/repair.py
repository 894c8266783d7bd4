"""Asking again: the request once more, with the last answer and its fault shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipeline import codec
from pipeline.errors import AnswerError, TruncatedError
from pipeline.records import JSON, Answer, Request, ToolCall
from pipeline.task.render import BYTES_PER_TOKEN, Message, room

MAX_SHOWN_CALLS = 8
MAX_ECHO_CHARS = 8_000
MAX_RAW_CHARS = 2_000
_ROOM_KEYS = ("max_completion_tokens", "max_tokens")


def repair(request: Request, answer: Answer, error: AnswerError, *, base: int) -> Request:
    """The request that asks again. The first `base` messages are the first request's; later ones are replaced."""
    if isinstance(error, TruncatedError):
        return _with_room(request, base)
    name = request.tools[0]["function"]["name"]
    calls = [call for call in answer.calls if call.name == name][:MAX_SHOWN_CALLS]
    if calls:
        shown = _by_call(calls, f"{error}. Call {name} again, once, with arguments that fit its schema.")
    else:
        shown = _by_words(answer.text or f"(I did not call {name}.)", f"{error}. Call the function {name}, once.")
    return _remade(request, (*request.messages[:base], *shown), request.parameters)


def _with_room(request: Request, base: int) -> Request:
    parameters = {
        key: value * 2 if key in _ROOM_KEYS and isinstance(value, int) else value
        for key, value in request.parameters.items()
    }
    if parameters != request.parameters:
        return _remade(request, request.messages, parameters)
    brief: Message = {
        "role": "user",
        "content": "Your last answer was too long and was cut. Be brief: answer with the function call alone.",
    }
    return _remade(request, (*request.messages[:base], brief), parameters)


def _by_call(calls: list[ToolCall], fault: str) -> tuple[Message, ...]:
    # Every call that is echoed has to be answered by a tool message with its id.
    named = [(call.id or f"call_{place}", call) for place, call in enumerate(calls)]
    echo: Message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": name, "type": "function", "function": {"name": call.name, "arguments": _safe(call.arguments)}}
            for name, call in named
        ],
    }
    told = [{"role": "tool", "tool_call_id": name, "content": fault + _raw(call.arguments)} for name, call in named]
    return (echo, *told)


def _by_words(said: str, fault: str) -> tuple[Message, ...]:
    return (
        {"role": "assistant", "content": said[:MAX_ECHO_CHARS]},
        {"role": "user", "content": fault},
    )


def _safe(arguments: str) -> str:
    return arguments if _is_object(arguments) else "{}"


def _raw(arguments: str) -> str:
    return "" if _is_object(arguments) else f" What you sent was: {arguments[:MAX_RAW_CHARS]}"


def _is_object(arguments: str) -> bool:
    # Many servers parse the arguments of an echoed call, and refuse the request where they are no JSON object.
    try:
        return len(arguments) <= MAX_ECHO_CHARS and isinstance(codec.loads(arguments), dict)
    except codec.JSONDecodeError:
        return False


def _remade(request: Request, messages: tuple[Message, ...], parameters: Mapping[str, JSON]) -> Request:
    grown_bytes = len(codec.dumps(messages)) - len(codec.dumps(request.messages))
    return replace(
        request,
        messages=messages,
        parameters=parameters,
        size_tokens=request.size_tokens + grown_bytes // BYTES_PER_TOKEN + room(parameters) - room(request.parameters),
        digest=codec.digest128(codec.dumps([request.model, messages, request.tools, request.tool_choice, parameters])),
    )
