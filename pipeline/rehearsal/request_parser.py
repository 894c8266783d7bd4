"""Parses a request's body into a call, or the error that a server would send."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.codec import JSONDecodeError, digest64, dumps, loads
from pipeline.rehearsal.options import RehearsalOptions
from pipeline.rehearsal.prompt_cache import Prefixes, prefixes_of
from pipeline.rehearsal.replies import CHAT, ApiFormat, Body, ErrorReply, invalid
from pipeline.rehearsal.request_checks import MAX_ANSWER_WORDS, check_messages, check_parameters
from pipeline.rehearsal.schema_values import ValueGenerator
from pipeline.rehearsal.tool_choice import OfferedTools, ToolResults, offer_of, results_of
from pipeline.rehearsal.tools import ToolSet, read_tools

CHARS_A_TOKEN = 4
#: What the rate limit counts for an answer if the request sets no maximum.
_DEFAULT_OUTPUT_TOKENS = 16
_MESSAGE_TOKENS = 3  #: Overhead of each message.
#: Tokens of an image at low detail, another image, and a document: round numbers near those of a real server.
_LOW_IMAGE_TOKENS, _IMAGE_TOKENS, _FILE_TOKENS = 300, 1_500, 3_000
#: 10 tokens for a second of a recording with 32,000 bytes per second, as base64.
_SOUND_CHARS_A_TOKEN = 32_000 * 4 // 3 // 10
_EXCERPT_CHARS = 40
#: A run sends the same tools or schema with every call, but a user's own may depend on the record.
_KEEP_SCHEMAS = 256


@dataclass(frozen=True, slots=True)
class Call:
    """One valid request.

    `request` is the original body. `text` is the text of the last user message, `user_text` that of all of them.
    `offer` is what the answer may call, `results` what earlier calls returned, and `schema` that of a text answer.
    `limit_tokens` is what the rate limit counts; `prefixes` is what the prompt cache may store.
    """

    request: Body
    record: str
    model: str
    text: str
    user_text: str
    prompt_digest: int
    prompt_tokens: int
    limit_tokens: int
    prefixes: Prefixes
    offer: OfferedTools
    results: ToolResults
    schema: ValueGenerator | None
    gold: Mapping[str, Any] | str | None
    max_output_tokens: int | None


class RequestParser:
    """Parses bodies."""

    def __init__(self, options: RehearsalOptions) -> None:
        self._models = frozenset(options.models)
        self._context_tokens = options.context_tokens
        self._tools_of = lru_cache(_KEEP_SCHEMAS)(read_tools)
        self._schema_of = lru_cache(_KEEP_SCHEMAS)(_response_schema)

    def read(self, raw: bytes, api: ApiFormat = CHAT) -> tuple[str | None, Call | ErrorReply]:
        """Return the record's name, if it can be determined, and the call or its error."""
        try:
            raw_body = loads(raw)
        except JSONDecodeError as error:
            return None, invalid(f"We could not parse the JSON body of your request: {error}.")
        if not isinstance(raw_body, dict):
            return None, invalid("Invalid body: expected a JSON object.")
        body = api.read(raw_body)
        if isinstance(body, ErrorReply):
            return None, body
        fault = check_messages(body.get("messages"))
        if fault:
            return None, api.named(fault)
        texts = [_text(message) for message in body["messages"] if message["role"] == "user"]
        text = texts[-1] if texts else ""
        record = _record_name(body.get("metadata"), text)
        call = self._read_checked(body, raw_body, record, text, texts)
        return record, api.named(call) if isinstance(call, ErrorReply) else call

    def _read_checked(
        self, body: Body, raw_body: Body, record: str, text: str, texts: Sequence[str]
    ) -> Call | ErrorReply:
        fault = self._model_fault(body.get("model")) or check_parameters(body)
        if fault:
            return fault
        tools = self._tools_of(dumps(body["tools"])) if body.get("tools") is not None else None
        if isinstance(tools, ErrorReply):
            return tools
        offer = offer_of(body, tools)
        if isinstance(offer, ErrorReply):
            return offer
        schema = self._schema_of(dumps(body.get("response_format")))
        if isinstance(schema, ErrorReply):
            return schema
        prompt_tokens = _prompt_tokens(body["messages"], tools)
        raw = [dumps(message) for message in body["messages"]]
        most = next((int(body[word]) for word in MAX_ANSWER_WORDS if body.get(word)), None)
        call = Call(
            request=raw_body,
            record=record,
            model=body["model"],
            text=text,
            user_text=text if len(texts) < 2 else "\n".join(texts),
            prompt_digest=digest64(b"[%b]" % b",".join(raw)),
            prompt_tokens=prompt_tokens,
            limit_tokens=prompt_tokens + (most or _DEFAULT_OUTPUT_TOKENS),
            prefixes=prefixes_of(body, raw, tools.size_chars / CHARS_A_TOKEN if tools else 0.0, _message_tokens),
            offer=offer,
            results=results_of(body["messages"], _text),
            schema=schema,
            gold=_gold(body.get("metadata")),
            max_output_tokens=most,
        )
        return self._context_fault(call.prompt_tokens) or call

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
    """Return the 404 for an unknown model."""
    message = f"The model `{model}` does not exist or you do not have access to it."
    return ErrorReply(404, message, "invalid_request_error", None, "model_not_found")


def _response_schema(raw: bytes) -> ValueGenerator | ErrorReply | None:
    response_format = loads(raw)
    kind = response_format.get("type") if isinstance(response_format, dict) else response_format
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return ValueGenerator({"type": "object", "properties": {"answer": {"type": "string"}}})
    schema = response_format.get("json_schema") if kind == "json_schema" else None
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        return invalid("Invalid 'response_format': expected text, json_object or json_schema.", "response_format")
    generator = ValueGenerator(schema["schema"])
    fault = generator.fault()
    return invalid(f"Invalid schema for response_format: {fault}", "response_format") if fault else generator


def _prompt_tokens(messages: Sequence[Body], tools: ToolSet | None) -> int:
    return math.ceil(sum(map(_message_tokens, messages)) + (tools.size_chars / CHARS_A_TOKEN if tools else 0))


def _message_tokens(message: Body) -> float:
    return len(_text(message)) / CHARS_A_TOKEN + _MESSAGE_TOKENS + sum(map(_shown_tokens, _parts(message)))


def _text(message: Body) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in _parts(message) if "text" in part)


def _parts(message: Body) -> list[Body]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _shown_tokens(part: Body) -> int:
    """Return the tokens of a part that is not text."""
    kind = part.get("type")
    inner = part.get(kind) if isinstance(kind, str) else None
    if not isinstance(inner, dict):
        return 0
    if kind == "image_url":
        return _LOW_IMAGE_TOKENS if inner.get("detail") == "low" else _IMAGE_TOKENS
    if kind == "input_audio":
        return 1 + len(str(inner.get("data", ""))) // _SOUND_CHARS_A_TOKEN
    return _FILE_TOKENS if kind == "file" else 0


def _record_name(metadata: Any, text: str) -> str:
    if isinstance(metadata, dict) and metadata.get("record") is not None:
        return str(metadata["record"])
    excerpt = " ".join(text[:_EXCERPT_CHARS].split())
    return f"{digest64(text.encode()) & (1 << 64) - 1:016x} {excerpt}"


def _gold(metadata: Any) -> Mapping[str, Any] | str | None:
    """Return the right label: field -> value, or a plain value for the only field."""
    text = metadata.get("gold") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        return text if isinstance(text, dict) else None
    try:
        gold = loads(text)
    except JSONDecodeError:
        return text
    return gold if isinstance(gold, dict) else text
