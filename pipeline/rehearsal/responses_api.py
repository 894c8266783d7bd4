"""Translates the Responses API: its requests to Chat Completions, and completions to its answers."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.codec import digest64
from pipeline.rehearsal.replies import ApiFormat, Body, ErrorReply, invalid

Json = dict[str, Any]

#: The API's minimum.
_LEAST_OUTPUT_TOKENS = 16
_PARAMETERS = """
    background context_management conversation include input instructions max_output_tokens max_tool_calls metadata
    model moderation parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_options
    prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options temperature text
    tool_choice tools top_logprobs top_p truncation user
"""
#: The API's parameters, those that mean the same in both APIs, and those that the endpoint does not support.
PARAMETERS = frozenset(_PARAMETERS.split())
_ALIKE = (
    "model", "metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    "safety_identifier", "service_tier", "store", "stream", "temperature", "top_logprobs", "top_p", "user",
)  # fmt: skip
_NOT_HERE = ("background", "conversation", "previous_response_id", "prompt")
#: Names of parameters in Chat Completions -> in this API.
_NAMES = {"messages": "input", "response_format": "text.format", "max_completion_tokens": "max_output_tokens",
          "reasoning_effort": "reasoning.effort", "verbosity": "text.verbosity"}  # fmt: skip
_ENDS = {"length": "max_output_tokens", "content_filter": "content_filter"}


class _Refused(Exception):  # noqa: N818 - it carries the reply, and is no error of ours
    def __init__(self, reply: ErrorReply) -> None:
        self.reply = reply


def _chat_of(body: Body) -> Json | ErrorReply:
    """Return the same request for Chat Completions, or its error."""
    try:
        return _as_chat(body)
    except _Refused as refused:
        return refused.reply


def _rename_param(error: ErrorReply) -> ErrorReply:
    """Return the error with this API's parameter names."""
    param = error.param or ""
    first = next((name for name in _NAMES if param == name or param.startswith(name + "[")), "")
    if not first:
        return error
    return ErrorReply(error.status, error.message, error.type, _NAMES[first] + param[len(first) :], error.code)


def _as_chat(body: Body) -> Json:
    _check(body)
    chat = {name: body[name] for name in _ALIKE if name in body}
    chat["messages"] = _messages(body)
    if body.get("tools") is not None:
        chat["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(_list(body["tools"], "tools"))]
    if "tool_choice" in body:
        chat["tool_choice"] = _choice(body["tool_choice"])
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    effort, text = _table(body, "reasoning").get("effort"), _table(body, "text")
    others = {"reasoning_effort": effort, "verbosity": text.get("verbosity"), "response_format": _format(text)}
    return {**chat, **{name: value for name, value in others.items() if value is not None}}


def _check(body: Body) -> None:
    for name in body:
        if name not in PARAMETERS:
            raise _Refused(invalid(f"Unknown parameter: '{name}'.", name, "unknown_parameter"))
    for name in _NOT_HERE:
        if body.get(name):
            raise _Refused(invalid(f"The rehearsal endpoint knows no '{name}'.", name, "unsupported_value"))
    most = body.get("max_output_tokens")
    if most is not None and not (isinstance(most, int) and most >= _LEAST_OUTPUT_TOKENS):
        text = f"Invalid 'max_output_tokens': expected a value >= {_LEAST_OUTPUT_TOKENS}, but got {most!r} instead."
        raise _Refused(invalid(text, "max_output_tokens", "integer_below_min_value"))


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _Refused(invalid(f"Invalid type for '{where}': expected an array.", where, "invalid_type"))
    return value


def _table(body: Body, name: str) -> Mapping[str, Any]:
    value = body.get(name) or {}
    if not isinstance(value, Mapping):
        raise _Refused(invalid(f"Invalid type for '{name}': expected an object.", name, "invalid_type"))
    return value


def _tool(tool: Any, where: str) -> Json:
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        raise _Refused(invalid(f"Invalid value: '{where}.type' must be 'function'.", f"{where}.type"))
    for name in ("name", "parameters", "strict"):
        if name not in tool:
            text = f"Missing required parameter: '{where}.{name}'."
            raise _Refused(invalid(text, f"{where}.{name}", "missing_required_parameter"))
    function = {name: value for name, value in tool.items() if name != "type" and value is not None}
    return {"type": "function", "function": function}


def _choice(choice: Any) -> Any:
    if not isinstance(choice, Mapping):
        return choice
    if choice.get("type") != "function" or not isinstance(choice.get("name"), str):
        raise _Refused(invalid(f"Invalid value for 'tool_choice': {dict(choice)!r}.", "tool_choice"))
    return {"type": "function", "function": {"name": choice["name"]}}


def _format(text: Mapping[str, Any]) -> Any:
    format_json = text.get("format")
    if not isinstance(format_json, Mapping) or format_json.get("type") != "json_schema":
        return format_json
    return {
        "type": "json_schema",
        "json_schema": {name: value for name, value in format_json.items() if name != "type"},
    }


# -- the conversation ------------------------------------------------------------------------------------------------


def _messages(body: Body) -> list[Json]:
    input_json = body.get("input")
    items = [{"role": "user", "content": input_json}] if isinstance(input_json, str) else _list(input_json, "input")
    messages: list[Json] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    for place, item in enumerate(items):
        after = items[place + 1] if place + 1 < len(items) else None
        _add(messages, item, f"input[{place}]", after)
    return messages


def _add(messages: list[Json], item: Any, where: str, after: Any) -> None:
    """Append the item to the messages."""
    kind = item.get("type", "message") if isinstance(item, Mapping) else None
    match kind:
        case "message":
            role, content = item.get("role"), _content(item.get("content"), where)
            is_said = role == "assistant" and isinstance(content, list)
            text = "".join(part["text"] for part in content) if is_said else content
            messages.append({"role": role, "content": text})
        case "function_call":
            _add_call(messages, item)
        case "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
        case "reasoning":
            _check_reasoning(item, where, after)
        case _:
            raise _Refused(invalid(f"Invalid value: {kind!r}.", f"{where}.type", "invalid_value"))


def _add_call(messages: list[Json], item: Mapping[str, Any]) -> None:
    """Append a call. Chat Completions puts an answer's calls and the text before them into one message."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    call = {"id": item.get("call_id"), "type": "function", "function": function}
    messages[-1].setdefault("tool_calls", []).append(call)


def _content(content: Any, where: str) -> Any:
    if not isinstance(content, list):
        return content
    return [_part(part, f"{where}.content[{place}]") for place, part in enumerate(content)]


def _part(part: Any, where: str) -> Json:
    kind = part.get("type") if isinstance(part, Mapping) else None
    match kind:
        case "input_text" | "output_text":
            more = {name: part[name] for name in ("prompt_cache_breakpoint",) if name in part}
            return {"type": "text", "text": str(part.get("text", "")), **more}
        case "input_image":
            return {"type": "image_url", "image_url": {"url": part.get("image_url"), "detail": part.get("detail")}}
        case "input_file":
            return {"type": "file", "file": {name: value for name, value in part.items() if name != "type"}}
        case "refusal":
            return {"type": "text", "text": str(part.get("refusal", ""))}
    text = f"Invalid value: {kind!r}. Supported values are: 'input_text', 'input_image' and 'input_file'."
    raise _Refused(invalid(text, f"{where}.type", "invalid_value"))


def _check_reasoning(item: Mapping[str, Any], where: str, after: Any) -> None:
    """Refuse reasoning as the API does: it must be included, must be genuine, and must precede another item."""
    name, sealed = str(item.get("id")), item.get("encrypted_content")
    if not sealed:
        text = f"Item with id '{name}' not found. Items are not persisted when `store` is set to false."
        raise _Refused(ErrorReply(404, text, "invalid_request_error", "input"))
    if sealed != _encrypted(name):
        text = f"The encrypted content for item {name} could not be verified."
        raise _Refused(invalid(text, f"{where}.encrypted_content", "invalid_encrypted_content"))
    if not isinstance(after, Mapping) or after.get("type") not in ("function_call", "message"):
        text = f"Item '{name}' of type 'reasoning' was provided without its required following item."
        raise _Refused(invalid(text, "input"))


def _encrypted(name: str) -> str:
    return f"rehearsal-{digest64(name.encode()) & (1 << 64) - 1:016x}"


# -- the answer ------------------------------------------------------------------------------------------------------


def _response_of(completion: Mapping[str, Any], request: Body) -> Json:
    """Convert the completion to this API's answer to the request."""
    number = str(completion["id"]).removeprefix("chatcmpl-")
    choice = completion["choices"][0]
    reason = _ENDS.get(choice["finish_reason"])
    status = "incomplete" if reason else "completed"
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": completion["created"],
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "model": completion["model"],
        "output": list(_output(choice["message"], number, status)),
        "parallel_tool_calls": request.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": request.get("reasoning") or {"effort": None, "summary": None},
        "service_tier": completion["service_tier"],
        "store": request.get("store", True),
        "temperature": request.get("temperature", 1.0),
        "text": request.get("text") or {"format": {"type": "text"}},
        "tool_choice": request.get("tool_choice", "auto"),
        "tools": request.get("tools") or [],
        "top_p": request.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": _usage(completion["usage"]),
        "user": None,
        "metadata": request.get("metadata") or {},
    }


def _output(message: Mapping[str, Any], number: str, status: str) -> Iterator[Json]:
    thought = f"rs_{number}"
    yield {"id": thought, "type": "reasoning", "summary": [], "encrypted_content": _encrypted(thought)}
    parts = list(_output_items(message))
    if parts:
        yield {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": status, "content": parts}
    for place, call in enumerate(message.get("tool_calls") or ()):
        name = f"fc_{number}_{place}"
        yield {"id": name, "type": "function_call", "call_id": call["id"], "status": status, **call["function"]}


def _output_items(message: Mapping[str, Any]) -> Iterator[Json]:
    if message.get("content") is not None:
        yield {"type": "output_text", "text": message["content"], "annotations": [], "logprobs": []}
    if message.get("refusal") is not None:
        yield {"type": "refusal", "refusal": message["refusal"]}


def _usage(usage: Mapping[str, Any]) -> Json:
    read, made = usage["prompt_tokens_details"], usage["completion_tokens_details"]
    cached = {"cached_tokens": read["cached_tokens"], "cache_write_tokens": read.get("cache_write_tokens", 0)}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": cached,
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": made["reasoning_tokens"]},
        "total_tokens": usage["total_tokens"],
    }


RESPONSES = ApiFormat(_chat_of, _response_of, _rename_param)
