"""A record becomes a request: all of it that is the same for every record, and what is not."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import codec
from pipeline.errors import RenderError, TaskError
from pipeline.records import JSON, Record, Request, room_in
from pipeline.task.attachments import Asked
from pipeline.task.caching import Caching, marked, with_caching
from pipeline.task.schema import Tool
from pipeline.task.schema_tree import Schema

BYTES_PER_TOKEN = 4
#: what a call costs besides its values: name, braces, quotes
CALL_TOKENS = 32
FREE_TEXT_TOKENS = 48
VALUE_TOKENS = 8
FRAMES_KEPT = 1_024

Message = Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Shown:
    """Messages that are shown before the record.

    `mark` stands for them in a request's digest; `size_bytes` is an estimate of what a model reads of them.
    """

    messages: tuple[Message, ...]
    mark: bytes
    size_bytes: int


def together(shown: Iterable[Shown]) -> Shown:
    """All of them, one after the other."""
    every = tuple(shown)
    return Shown(
        tuple(message for one in every for message in one.messages),
        b"".join(one.mark for one in every),
        sum(one.size_bytes for one in every),
    )


NOTHING = together(())


@dataclass(frozen=True, slots=True)
class Frame:
    """All of a request that is the same for every record: the prefix that a server's prompt cache knows.

    `kit` are the tools by their names, `opening` is the system text and the fixed examples. `mark` stands for these
    parts in a request's digest; `size_bytes` is what they take, `answer_tokens` an estimate of the expected answer.
    """

    kit: Mapping[str, Tool]
    model: str
    opening: tuple[Message, ...]
    tools: tuple[Schema, ...]
    tool_choice: JSON
    parameters: Mapping[str, JSON]
    mark: bytes
    size_bytes: int
    answer_tokens: int

    def request(self, record: Record, asked: Asked, shown: Shown = NOTHING) -> Request:
        """The request that asks about the record, with what is shown for this record only.

        Its size is that of its text: what media take is known once they are loaded.
        """
        return Request(
            record,
            self.model,
            (*self.opening, *shown.messages, {"role": "user", "content": asked.content}),
            self.tools,
            self.tool_choice,
            self.parameters,
            (self.size_bytes + shown.size_bytes + len(asked.text.encode("utf-8", "surrogatepass"))) // BYTES_PER_TOKEN
            + self.answer_tokens,
            codec.digest128(self.mark + shown.mark + asked.mark),
            attachments=asked.attachments,
        )


def make_frame(
    kit: Sequence[Tool],
    *,
    model: str,
    system: str | None,
    fixed: Shown,
    tool_choice: JSON,
    parameters: Mapping[str, JSON],
    caching: Caching,
) -> Frame:
    """The constant part of the requests that offer these tools. How it is cached is no part of a request's digest."""
    opening = (*_first(system), *fixed.messages)
    definitions = tuple(tool.definition for tool in kit)
    constant = codec.dumps([model, opening, *definitions, tool_choice, parameters])
    return Frame(
        kit={tool.name: tool for tool in kit},
        model=model,
        opening=marked(opening) if caching.breakpoint else opening,
        tools=definitions,
        tool_choice=tool_choice,
        parameters=with_caching(parameters, caching),
        mark=codec.digest128(constant),
        size_bytes=constant_bytes(system, definitions, fixed),
        answer_tokens=room_in(parameters) or max(_answer_tokens(tool.schema) for tool in kit),
    )


def constant_bytes(system: str | None, definitions: Sequence[Schema], fixed: Shown) -> int:
    """What a model reads before the record, about."""
    return len(codec.dumps([_first(system), *definitions])) + fixed.size_bytes


def _first(system: str | None) -> tuple[Message, ...]:
    return ({"role": "system", "content": codec.clean_text(system)},) if system else ()


class Frames:
    """The frames of tools whose schemas depend on the record: one for each set of schemas, the latest kept."""

    def __init__(
        self, schemas_for: Callable[[Record], Sequence[Schema]], build: Callable[[Sequence[Schema]], Frame]
    ) -> None:
        self._schemas_for = schemas_for
        self._build = build
        self._kept: OrderedDict[bytes, Frame] = OrderedDict()

    def __call__(self, record: Record) -> Frame:
        """The record's frame. Raises RenderError."""
        schemas = self._schemas_for(record)
        try:
            key = codec.canonical(schemas)
            frame = self._kept.pop(key, None) or self._build(schemas)
        except (TaskError, TypeError) as error:
            reason = " ".join(str(error).split())  # one line: it stands in a cell and in a log
            raise RenderError(f"the tool's schema for this record cannot be used: {reason}") from error
        self._kept[key] = frame
        if len(self._kept) > FRAMES_KEPT:
            self._kept.popitem(last=False)
        return frame


def _answer_tokens(schema: Schema) -> int:
    properties: dict[str, Any] = schema.get("properties", {})
    values = sum(_value_tokens(name, node) for name, node in properties.items())
    return CALL_TOKENS + values


def _value_tokens(name: str, node: Any) -> int:
    closed = isinstance(node, dict) and ("enum" in node or node.get("type") in ("boolean", "integer", "number"))
    return len(name) // BYTES_PER_TOKEN + (VALUE_TOKENS if closed else FREE_TEXT_TOKENS)
