"""Checks a request's messages and plain parameters as a server does."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.rehearsal.replies import Body, ErrorReply, invalid

MAX_ANSWER_WORDS = ("max_completion_tokens", "max_tokens")
_ROLES = ("developer", "system", "user", "assistant", "tool", "function")
_RANGES = {"temperature": (0, 2), "top_p": (0, 1), "frequency_penalty": (-2, 2), "presence_penalty": (-2, 2)}
_PARAMETERS = """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages
    metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
    prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier
    stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity
    web_search_options
"""
#: Every parameter of Chat Completions.
PARAMETERS = frozenset(_PARAMETERS.split())


def check_messages(messages: Any) -> ErrorReply | None:
    """Return what is wrong with the conversation; None if it is valid."""
    if not isinstance(messages, list) or not messages:
        return invalid("Invalid 'messages': expected an array with at least one message.", "messages")
    return next(_message_faults(messages), None)


def _message_faults(messages: Sequence[Any]) -> Iterator[ErrorReply]:
    pending_ids: set[Any] = set()  # calls of the last assistant message that no tool message has answered yet
    for place, message in enumerate(messages):
        fault = _message_fault(message, f"messages[{place}]", pending_ids)
        if fault:
            yield fault
            return
        if message["role"] == "tool":
            pending_ids.discard(message["tool_call_id"])
        else:
            pending_ids = _calls_of(message)
    if pending_ids:
        yield _unanswered(pending_ids, "messages")


def _message_fault(message: Any, where: str, pending_ids: set[Any]) -> ErrorReply | None:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in _ROLES:
        return invalid(f"Invalid value {role!r} for '{where}.role'; expected one of {_ROLES}.", f"{where}.role")
    if not isinstance(message.get("content"), str | list) and role != "assistant":
        return invalid(f"Invalid '{where}.content': expected a string or an array.", f"{where}.content")
    if role != "tool":
        return _unanswered(pending_ids, where) if pending_ids else None
    if message.get("tool_call_id") in pending_ids:
        return None
    text = "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
    return invalid(text, f"{where}.role")


def _unanswered(pending_ids: set[Any], where: str) -> ErrorReply:
    text = "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'."
    return invalid(f"{text} Without a response: {', '.join(sorted(map(str, pending_ids)))}.", where)


def _calls_of(message: Body) -> set[Any]:
    calls = message.get("tool_calls")
    return {str(call.get("id")) for call in calls if isinstance(call, dict)} if isinstance(calls, list) else set()


def check_parameters(body: Body) -> ErrorReply | None:
    """Return what is wrong with the plain parameters; None if they are valid."""
    unknown = body.keys() - PARAMETERS
    if unknown:
        name = min(unknown)
        return invalid(f"Unrecognized request argument supplied: {name}.", name, "unknown_parameter")
    if body.get("stream"):
        return invalid("The rehearsal endpoint does not stream.", "stream", "unsupported_value")
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is not None and not (isinstance(value, int | float) and low <= value <= high):
            return invalid(f"Invalid '{name}': {value!r} is not a number from {low} to {high}.", name)
    for name in MAX_ANSWER_WORDS:
        value = body.get(name)
        if value is not None and not (isinstance(value, int) and value >= 1):
            return invalid(f"Invalid '{name}': {value!r} is not an integer of 1 or more.", name)
    if body.get("metadata") is not None and not isinstance(body["metadata"], dict):
        return invalid("Invalid 'metadata': expected an object.", "metadata")
    return None
