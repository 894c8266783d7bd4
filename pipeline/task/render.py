"""Builds a record's request from a part that all records share and its own part."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline import codec
from pipeline.errors import RenderError, TaskError
from pipeline.records import JSON, Record, Request, room_in
from pipeline.task.attachments import RenderedPrompt
from pipeline.task.caching import PromptCaching, with_breakpoint, with_caching
from pipeline.task.schema import Tool
from pipeline.task.schema_tree import Schema

BYTES_PER_TOKEN = 4
#: The tokens of a call without its values: name, braces, quotes.
CALL_TOKENS = 32
FREE_TEXT_TOKENS = 48
VALUE_TOKENS = 8
MAX_TEMPLATES = 1_024

Message = Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class MessageBlock:
    """Messages that are shown before the record.

    `digest_key` represents them in a request's digest. `size_bytes` estimates what a model reads of them.
    """

    messages: tuple[Message, ...]
    digest_key: bytes
    size_bytes: int


def join_blocks(blocks: Iterable[MessageBlock]) -> MessageBlock:
    """Concatenate the blocks."""
    all_blocks = tuple(blocks)
    return MessageBlock(
        tuple(message for block in all_blocks for message in block.messages),
        b"".join(block.digest_key for block in all_blocks),
        sum(block.size_bytes for block in all_blocks),
    )


NO_MESSAGES = join_blocks(())


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """The part of a request that is the same for every record: the prefix for a server's prompt cache.

    `opening` is the system text and the fixed examples. `digest_key` represents this part in a request's digest.
    `size_bytes` is its size; `answer_tokens` estimates the expected answer.
    """

    tools_by_name: Mapping[str, Tool]
    model: str
    opening: tuple[Message, ...]
    tools: tuple[Schema, ...]
    tool_choice: JSON
    parameters: Mapping[str, JSON]
    digest_key: bytes
    size_bytes: int
    answer_tokens: int

    def request(self, record: Record, prompt: RenderedPrompt, examples: MessageBlock = NO_MESSAGES) -> Request:
        """Build the record's request, with the examples that only this record is shown.

        Its size is that of its text. The size of media is known after they are loaded.
        """
        return Request(
            record,
            self.model,
            (*self.opening, *examples.messages, {"role": "user", "content": prompt.content}),
            self.tools,
            self.tool_choice,
            self.parameters,
            (self.size_bytes + examples.size_bytes + len(prompt.text.encode("utf-8", "surrogatepass")))
            // BYTES_PER_TOKEN
            + self.answer_tokens,
            codec.digest128(self.digest_key + examples.digest_key + prompt.digest_key),
            attachments=prompt.attachments,
        )


def build_template(
    tools_by_name: Sequence[Tool],
    *,
    model: str,
    system: str | None,
    fixed: MessageBlock,
    tool_choice: JSON,
    parameters: Mapping[str, JSON],
    caching: PromptCaching,
) -> RequestTemplate:
    """Build the constant part of the requests that offer these tools. A request's digest ignores the caching."""
    opening = (*_system_messages(system), *fixed.messages)
    definitions = tuple(tool.definition for tool in tools_by_name)
    constant = codec.dumps([model, opening, *definitions, tool_choice, parameters])
    return RequestTemplate(
        tools_by_name={tool.name: tool for tool in tools_by_name},
        model=model,
        opening=with_breakpoint(opening) if caching.breakpoint else opening,
        tools=definitions,
        tool_choice=tool_choice,
        parameters=with_caching(parameters, caching),
        digest_key=codec.digest128(constant),
        size_bytes=constant_bytes(system, definitions, fixed),
        answer_tokens=room_in(parameters) or max(_answer_tokens(tool.schema) for tool in tools_by_name),
    )


def constant_bytes(system: str | None, definitions: Sequence[Schema], fixed: MessageBlock) -> int:
    """Estimate what a model reads before the record."""
    return len(codec.dumps([_system_messages(system), *definitions])) + fixed.size_bytes


def _system_messages(system: str | None) -> tuple[Message, ...]:
    return ({"role": "system", "content": codec.clean_text(system)},) if system else ()


class TemplateCache:
    """A cache of the latest templates of tools whose schemas depend on the record, one for each set of schemas."""

    def __init__(
        self, schemas_for: Callable[[Record], Sequence[Schema]], build: Callable[[Sequence[Schema]], RequestTemplate]
    ) -> None:
        self._schemas_for = schemas_for
        self._build = build
        self._cache: OrderedDict[bytes, RequestTemplate] = OrderedDict()

    def __call__(self, record: Record) -> RequestTemplate:
        """Return the template for the record. Raises RenderError."""
        schemas = self._schemas_for(record)
        try:
            key = codec.canonical(schemas)
            template = self._cache.pop(key, None) or self._build(schemas)
        except (TaskError, TypeError) as error:
            reason = " ".join(str(error).split())  # one line, for a cell and a log
            raise RenderError(f"the tool's schema for this record cannot be used: {reason}") from error
        self._cache[key] = template
        if len(self._cache) > MAX_TEMPLATES:
            self._cache.popitem(last=False)
        return template


def _answer_tokens(schema: Schema) -> int:
    tokens = CALL_TOKENS
    for name, node in schema.get("properties", {}).items():
        closed = isinstance(node, dict) and ("enum" in node or node.get("type") in ("boolean", "integer", "number"))
        tokens += len(name) // BYTES_PER_TOKEN + (VALUE_TOKENS if closed else FREE_TEXT_TOKENS)
    return tokens
