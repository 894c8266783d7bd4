"""Translates requests and answers between the Chat Completions form and the Responses API."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
from pipeline.records import ITEMS, JSON, Answer, Request, ToolCall

Item = Mapping[str, JSON]

#: The place of a Chat Completions parameter in this API; the others keep their names.
NAMES: Mapping[str, tuple[str, ...]] = {
    "max_completion_tokens": ("max_output_tokens",),
    "max_tokens": ("max_output_tokens",),
    "reasoning_effort": ("reasoning", "effort"),
    "verbosity": ("text", "verbosity"),
    "response_format": ("text", "format"),
}
_ABSENT = "the Responses API has no such parameter"
#: Parameters that cannot be sent, and why.
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("audio", "frequency_penalty", "logit_bias", "logprobs", "modalities", "n", "prediction", "presence_penalty",
         "seed", "stop", "web_search_options"),
        _ABSENT,
    ),
    "max_output_tokens": "write max_completion_tokens, which is sent under that name",
    "input": "set task.system and task.prompt instead",
    "instructions": "set task.system instead",
    "prompt": "set task.prompt instead",
    "background": "each answer is waited for",
    "background_options": "each answer is waited for",
    "conversation": "a conversation is sent whole with each call",
    "previous_response_id": "a conversation is sent whole with each call",
}  # fmt: skip
#: Parameters that only this API has.
_OWN = frozenset(
    {"access_programs", "context_management", "include", "max_tool_calls", "reasoning", "text", "truncation"}
)
#: Models that only this API serves (openai 3.5x, `ResponsesModel`).
_ONLY_HERE = re.compile(
    r"(o[13]-pro|o\d(-mini)?-deep-research|computer-use-preview|gpt-5(\.5)?-pro|gpt-5-codex|gpt-5\.1-codex-max"
    r"|gpt-daybreak-\w+-latest|gpt-[\d.]+-(cyber|rosalind|astra-law)|gpt-rosalind-research)(-\d{4}-\d\d-\d\d)?"
)
#: The reasons for an unfinished answer, in the words of Chat Completions.
_ENDS = {"max_output_tokens": "length", "content_filter": "content_filter"}
#: The statuses of an answer that failed or does not exist yet.
_NO_ENDS = frozenset({"failed", "cancelled", "queued", "in_progress"})


def needs_responses(model: str, parameters: Mapping[str, JSON]) -> str:
    """Return why OpenAI's Chat Completions cannot serve this model with a function, or a parameter; empty if it can."""
    if _ONLY_HERE.fullmatch(model):
        return f"only the Responses API has {model}"
    if own := sorted(_OWN & {name for name, value in parameters.items() if value is not None}):
        return f"only the Responses API has the parameter {own[0]}"
    version = re.match(r"gpt-(\d+)(?:\.(\d+))?", model)
    if version and (int(version[1]), int(version[2] or 0)) >= (5, 6) and parameters.get("reasoning_effort") != "none":
        return f'{model} takes functions in Chat Completions only with [model.parameters] reasoning_effort = "none"'
    return ""


def _body(request: Request) -> dict[str, JSON]:
    # By default the server stores answers for 30 days, but records must not be stored.
    body: dict[str, JSON] = {"model": request.model, "input": list(_input(request.messages)), "store": False}
    if request.tools:
        body["tools"] = [_tool(tool["function"]) for tool in request.tools]
        body["tool_choice"] = _choice(request.tool_choice)
    for name, value in request.parameters.items():
        _put(body, NAMES.get(name, (name,)), _format(value) if name == "response_format" else value)
    return body


def _put(body: dict[str, JSON], path: tuple[str, ...], value: JSON) -> None:
    """Set the value without changing other values in the same table."""
    name, *within = path
    for one in within:
        value = {one: value}
    known = body.get(name)
    body[name] = {**known, **value} if isinstance(known, Mapping) and isinstance(value, Mapping) else value


def _tool(function: Mapping[str, JSON]) -> dict[str, JSON]:
    # The default of `strict` is true in this API, and false in the other one.
    return {"type": "function", "parameters": None, "strict": False, **function}


def _choice(choice: JSON) -> JSON:
    function = choice.get("function") if isinstance(choice, Mapping) else None
    return {"type": "function", "name": function["name"]} if function else choice


def _format(wanted: JSON) -> JSON:
    schema = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
    return {"type": "json_schema", **schema} if isinstance(schema, Mapping) else wanted


def _input(messages: Sequence[Mapping[str, JSON]]) -> Iterator[Item]:
    for message in messages:
        match message["role"]:
            case "assistant":
                yield from _message_items(message)
            case "tool":
                name, result = message["tool_call_id"], message["content"]
                yield {"type": "function_call_output", "call_id": name, "output": result}
            case role:
                content = message["content"]
                parts = content if isinstance(content, str) else [_part(part) for part in content]
                yield {"role": role, "content": parts}


def _part(part: Mapping[str, JSON]) -> Item:
    match part["type"]:
        case "text":
            return {**part, "type": "input_text"}
        case "image_url":
            image = part["image_url"]
            return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail", "auto")}
        case "file":
            return {"type": "input_file", **part["file"]}
    return part


def _message_items(message: Mapping[str, JSON]) -> Iterator[Item]:
    """Yield the model's own items if they have exactly these calls, else the text and the calls."""
    calls = {call["id"]: call["function"] for call in message.get("tool_calls") or ()}
    items = message.get(ITEMS) or ()
    if items and [item.get("call_id") for item in items if item["type"] == "function_call"] == list(calls):
        # A name or arguments may have been corrected since.
        yield from ({**item, **calls[item["call_id"]]} if item["type"] == "function_call" else item for item in items)
        return
    if message["content"]:
        yield {"role": "assistant", "content": message["content"]}
    for name, function in calls.items():
        yield {"type": "function_call", "call_id": name, **function}


def _read(content: bytes, secrets: Sequence[str]) -> Reading:
    body = _response(content, secrets)
    if not all(isinstance(item.get("arguments"), str) for item in _items(body) if _is_call(item)):
        body = exact(body, content)
    model = body.get("model")
    return Reading(
        answer=_answer(body),
        usage=usage_of(body.get("usage"), "input_tokens", "output_tokens"),
        model=str(model) if model else None,
        service_tier=text_of(body.get("service_tier")),
    )


#: `POST /responses`: OpenAI and Azure have it, and some compatible servers.
RESPONSES = Api("/responses", _body, _read, names=NAMES, refused=REFUSED)


def _response(content: bytes, secrets: Sequence[str]) -> dict[str, Any]:
    """Return the body as a response with an output.

    A success may contain anything, which raises NoCompletionError. The error of a failed response is judged as if it
    were the status.
    """
    body, intact = parsed(content, secrets)
    if isinstance(body, dict):
        refuse_error_in(body, secrets)
    if not isinstance(body, dict) or not isinstance(body.get("output"), list):
        raise without_answer(body, content, secrets)
    if (status := text_of(body.get("status"))) in _NO_ENDS:
        raise no_answer(UnavailableError, f"the server broke off: status is {status!r}")
    if not intact:
        refuse_broken(body["output"])
    return body


def _items(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in body["output"] if isinstance(item, dict) and isinstance(item.get("type"), str)]


def _is_call(item: Item) -> bool:
    return bool(item["type"] == "function_call")


def _answer(body: dict[str, Any]) -> Answer:
    items = _items(body)
    calls = tuple(_call(item) for item in items if _is_call(item))
    parts = [part for item in items if item["type"] == "message" for part in _parts(item)]
    refusals = [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return Answer(
        calls=calls,
        text="".join(texts) if texts else None,
        refusal="".join(refusals) if refusals else None,
        finish_reason=_finish_reason(body, calls),
        items=_to_send_back(items),
    )


def _parts(item: dict[str, Any]) -> list[dict[str, Any]]:
    content = item.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _call(item: dict[str, Any]) -> ToolCall:
    name = str(item.get("name") or "")
    arguments = item.get("arguments")
    readings = (AS_OBJECT,) if isinstance(arguments, dict) else ()
    return ToolCall(str(item.get("call_id") or ""), name, arguments_text(arguments), readings)


def _finish_reason(body: dict[str, Any], calls: Sequence[ToolCall]) -> str:
    if body.get("status") == "incomplete":
        details = body.get("incomplete_details")
        reason = text_of(details.get("reason")) if isinstance(details, dict) else None
        return _ENDS.get(reason or "", reason or "incomplete")
    return "tool_calls" if calls else "stop"


def _to_send_back(items: Sequence[dict[str, Any]]) -> tuple[Item, ...]:
    """Return the items that the next turn needs; none if text and calls are enough.

    Reasoning without its content is only a name, which means nothing to a server that must not store it. The server
    would refuse the turn, as it would for reasoning at the end of an answer that was cut off there.
    """
    saved = [item for item in items if item["type"] != "reasoning" or _has_content(item)]
    while saved and saved[-1]["type"] == "reasoning":
        saved.pop()
    is_more = any(item["type"] not in ("function_call", "message") or item.get("phase") for item in saved)
    return tuple(saved) if is_more else ()


def _has_content(reasoning: Item) -> bool:
    return bool(reasoning.get("encrypted_content") or reasoning.get("content"))
