"""A request's body becomes a call to answer, or the error that a server would send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.codec import JSONDecodeError, digest64, dumps, loads
from pipeline.rehearsal.checks import MAX_ANSWER_WORDS, Body, check_messages, check_parameters
from pipeline.rehearsal.options import RehearsalOptions
from pipeline.rehearsal.replies import ErrorReply, invalid
from pipeline.rehearsal.schema import Filler
from pipeline.rehearsal.tools import Tool, Toolbox, ToolSet

CHARS_A_TOKEN = 4
#: what the door reckons for an answer when the request sets no maximum
_DEFAULT_OUTPUT_TOKENS = 16
_MESSAGE_TOKENS = 3  #: what the frame of a message costs
_EXCERPT_CHARS = 40
_KEEP_SCHEMAS = 256


@dataclass(frozen=True, slots=True)
class Call:
    """One request that may be answered.

    `text` is what the last user message says, `user_text` what all of them say. `tool` is the function that the
    answer calls; `schema` what a text answer must be like. `door_tokens` is what the rate limit counts.
    """

    record: str
    model: str
    text: str
    user_text: str
    prompt_digest: int
    prompt_tokens: int
    door_tokens: int
    prefix_tokens: int
    prefix_digest: int
    tool: Tool | None
    forced: bool
    schema: Filler | None
    gold: Mapping[str, Any] | str | None
    max_output_tokens: int | None


class Caller:
    """Reads bodies."""

    def __init__(self, options: RehearsalOptions) -> None:
        self._models = frozenset(options.models)
        self._context_tokens = options.context_tokens
        self._toolbox = Toolbox()
        self._schemas: dict[bytes, Filler | ErrorReply | None] = {}

    def read(self, raw: bytes) -> tuple[str | None, Call | ErrorReply]:
        """The record's name, if one can be told, and the call or what is wrong with it."""
        try:
            body = loads(raw)
        except JSONDecodeError as error:
            return None, invalid(f"We could not parse the JSON body of your request: {error}.")
        if not isinstance(body, dict):
            return None, invalid("Invalid body: expected a JSON object.")
        fault = check_messages(body.get("messages"))
        if fault:
            return None, fault
        texts = [_text(message) for message in body["messages"] if message["role"] == "user"]
        text = texts[-1] if texts else ""
        record = _record_name(body.get("metadata"), text)
        return record, self._read_checked(body, record, text, texts)

    def _read_checked(self, body: Body, record: str, text: str, texts: Sequence[str]) -> Call | ErrorReply:
        fault = self._model_fault(body.get("model")) or check_parameters(body)
        if fault:
            return fault
        tools = self._toolbox.read(body["tools"]) if body.get("tools") is not None else None
        if isinstance(tools, ErrorReply):
            return tools
        chosen = choose_tool(body, tools)
        if isinstance(chosen, ErrorReply):
            return chosen
        tool, forced = chosen
        schema = self._response_schema(body.get("response_format"))
        if isinstance(schema, ErrorReply):
            return schema
        size = _sizes(body["messages"], text, tools)
        most = next((int(body[word]) for word in MAX_ANSWER_WORDS if body.get(word)), None)
        call = Call(
            record=record,
            model=body["model"],
            text=text,
            user_text=text if len(texts) < 2 else "\n".join(texts),
            prompt_digest=digest64(dumps(body["messages"])),
            prompt_tokens=size.prompt,
            door_tokens=size.prompt + (most or _DEFAULT_OUTPUT_TOKENS),
            prefix_tokens=size.prefix,
            prefix_digest=_prefix_digest(body, size.prefix),
            tool=tool,
            forced=forced,
            schema=schema,
            gold=_gold(body.get("metadata")),
            max_output_tokens=most,
        )
        return self._context_fault(call.prompt_tokens) or call

    def _response_schema(self, wanted: Any) -> Filler | ErrorReply | None:
        if wanted is None:
            return None
        key = dumps(wanted)
        if key not in self._schemas:
            if len(self._schemas) >= _KEEP_SCHEMAS:
                self._schemas.clear()
            self._schemas[key] = _response_schema(wanted)
        return self._schemas[key]

    def _model_fault(self, model: Any) -> ErrorReply | None:
        if not isinstance(model, str) or not model:
            return invalid("You must provide a model parameter.", "model")
        if not self._models or model in self._models:
            return None
        return unknown_model(model)

    def _context_fault(self, tokens: int) -> ErrorReply | None:
        if tokens <= self._context_tokens:
            return None
        return invalid(
            f"This model's maximum context length is {self._context_tokens} tokens. However, your messages resulted "
            f"in {tokens} tokens. Please reduce the length of the messages.",
            "messages",
            "context_length_exceeded",
        )


def unknown_model(model: str) -> ErrorReply:
    """The 404 for a name that is not served."""
    message = f"The model `{model}` does not exist or you do not have access to it."
    return ErrorReply(404, message, "invalid_request_error", None, "model_not_found")


def choose_tool(body: Body, tools: ToolSet | None) -> tuple[Tool | None, bool] | ErrorReply:
    """The function that the answer calls (None for a text) and whether the request named it."""
    choice = body.get("tool_choice")
    if tools is None:
        for name in ("tool_choice", "parallel_tool_calls"):
            if body.get(name) not in (None, "none"):
                return invalid(
                    f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.", name
                )
        return None, False
    if choice in (None, "auto", "required"):
        return tools.tools[0], False
    if choice == "none":
        return None, False
    function = choice.get("function") if isinstance(choice, dict) else None
    if not isinstance(function, dict) or choice.get("type") != "function":
        return invalid(f"Invalid value for 'tool_choice': {choice!r}.", "tool_choice")
    tool = tools.named(str(function.get("name")))
    if tool is None:
        message = f"Tool choice {function.get('name')!r} not found in 'tools' parameter."
        return invalid(message, "tool_choice")
    return tool, True


def _response_schema(wanted: Any) -> Filler | ErrorReply | None:
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return Filler({"type": "object", "properties": {"answer": {"type": "string"}}})
    schema = wanted.get("json_schema") if kind == "json_schema" else None
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        return invalid("Invalid 'response_format': expected text, json_object or json_schema.", "response_format")
    filler = Filler(schema["schema"])
    fault = filler.fault()
    return invalid(f"Invalid schema for response_format: {fault}", "response_format") if fault else filler


@dataclass(frozen=True, slots=True)
class _Sizes:
    prompt: int
    prefix: int


def _sizes(messages: Sequence[Body], last_text: str, tools: ToolSet | None) -> _Sizes:
    chars = sum(len(_text(message)) for message in messages) + (tools.size_chars if tools else 0)
    frame = _MESSAGE_TOKENS * len(messages)
    return _Sizes(-(-chars // CHARS_A_TOKEN) + frame, max(0, chars - len(last_text)) // CHARS_A_TOKEN)


def _prefix_digest(body: Body, tokens: int) -> int:
    """A hash of all that comes before the last message; only prompts long enough to be cached are worth it."""
    return digest64(dumps([body.get("tools"), body["messages"][:-1]])) if tokens >= 1024 else 0


def _text(message: Body) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _record_name(metadata: Any, text: str) -> str:
    if isinstance(metadata, dict) and metadata.get("record") is not None:
        return str(metadata["record"])
    excerpt = " ".join(text[:_EXCERPT_CHARS].split())
    return f"{digest64(text.encode()) & (1 << 64) - 1:016x} {excerpt}"


def _gold(metadata: Any) -> Mapping[str, Any] | str | None:
    """The right label: field -> value, or a bare value that is meant for the only field."""
    text = metadata.get("gold") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        return text if isinstance(text, dict) else None
    try:
        gold = loads(text)
    except JSONDecodeError:
        return text
    return gold if isinstance(gold, dict) else text
