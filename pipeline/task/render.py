"""A record becomes a request: the template, and all of a request that is the same for every record."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline import codec
from pipeline.errors import MediaError, RenderError, TaskError
from pipeline.records import JSON, Record, Request
from pipeline.task.caching import Caching, marked, with_caching
from pipeline.task.schema import Tool
from pipeline.task.showing import Asked, ShowOptions, as_filters, filters, rendered, with_fields
from pipeline.task.showing import marked as with_mark
from pipeline.task.walk import Schema

#: in a prompt: all the record's fields, for names that are no identifiers: {{ record["Review text"] }}
WHOLE = "record"
SHOWN_FIELDS = 20
BYTES_PER_TOKEN = 4
#: what a call costs besides its values: name, braces, quotes
CALL_TOKENS = 32
FREE_TEXT_TOKENS = 48
VALUE_TOKENS = 8
FRAMES_KEPT = 1_024

Message = Mapping[str, JSON]


def _as_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own tojson escapes for HTML and turns all but ASCII into \\u…: wrong in a prompt, and dear in tokens.
    return (codec.dumps(value) if indent is None else codec.pretty(value).rstrip()).decode()


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        finalize=lambda value: "" if value is None else value,
    )
    # A field named "range" or "dict" that a record lacks has to be missed, not found among Jinja's functions.
    environment.globals.clear()
    environment.filters["tojson"] = _as_json
    environment.filters.update(filters())
    return environment


_ENVIRONMENT = _environment()


class Prompt:
    """A compiled prompt template. Raises TaskError for one that cannot work.

    The record's fields are variables, and `record` is the mapping of all of them. A field's text is data: it is
    never rendered itself. None renders as nothing. `shows` are the kinds of media that it may show.
    """

    __slots__ = ("_media", "_render", "_wants_whole", "fields", "shows")

    def __init__(self, source: str, media: ShowOptions | None = None) -> None:
        if not source.strip():
            raise TaskError("task.prompt is empty: expected a template such as 'Label this text: {{ text }}'")
        try:
            tree = _ENVIRONMENT.parse(source)
            shown = as_filters(tree)
            self.fields = frozenset(_fields(tree))
            template = _ENVIRONMENT.from_string(tree if shown else source)
        except TemplateSyntaxError as error:
            raise TaskError(f"task.prompt is not a template, at its line {error.lineno}: {error.message}") from error
        _refuse_reaching_out(tree)
        names = {node.name for node in tree.find_all(nodes.Name)}
        if "self" in names:
            raise TaskError('task.prompt uses self, which means the template; for a field write {{ record["self"] }}')
        self._wants_whole = WHOLE in names
        self._media = media or ShowOptions()
        self.shows = shown | {kind for kind, _name in self._media.by_kind()}
        self._render = template.render

    def render(self, record: Record) -> str:
        """The prompt for one record, as a person reads it. Raises RenderError."""
        return self.ask(record).text

    def ask(self, record: Record) -> Asked:
        """What the record is asked, with what it shows. Raises RenderError."""
        if not self.shows:
            return with_mark(_as_text(self._text(record)), self._media.root)
        asked = with_fields(rendered(lambda: self._text(record)), record, self._media)
        return with_mark(asked, self._media.root)

    def _text(self, record: Record) -> str:
        fields: Mapping[str, JSON] = record.fields
        try:
            return self._render({**fields, WHOLE: fields} if self._wants_whole else fields)
        except MediaError:
            raise
        except Exception as error:
            raise RenderError(self._why(error, fields)) from error

    def _why(self, error: Exception, fields: Mapping[str, JSON]) -> str:
        reason = f"{type(error).__name__}: {error}"
        missing = sorted(self.fields - fields.keys())
        if not missing or not isinstance(error, TemplateError):
            return f"the prompt cannot be rendered for this record: {reason}"
        names = ", ".join(map(repr, missing))
        return f"the prompt uses {names}, which this record lacks; {_there_is(missing[0], fields)}"


def expected_fields(prompt: str) -> set[str]:
    """The record fields that the template names. Raises TaskError for a template that cannot work."""
    return set(Prompt(prompt).fields)


def _as_text(text: str) -> Asked:
    return Asked(text, text)


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
        answer_tokens=room(parameters) or max(_answer_tokens(tool.schema) for tool in kit),
    )


def constant_bytes(system: str | None, definitions: Sequence[Schema], fixed: Shown) -> int:
    """What a model reads before the record, about."""
    return len(codec.dumps([_first(system), *definitions])) + fixed.size_bytes


def _first(system: str | None) -> tuple[Message, ...]:
    return ({"role": "system", "content": system},) if system else ()


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


def room(parameters: Mapping[str, JSON]) -> int:
    """The tokens that an answer may take; 0 where the user set no limit."""
    found = parameters.get("max_completion_tokens", parameters.get("max_tokens"))
    return found if isinstance(found, int) else 0


def _refuse_reaching_out(tree: nodes.Template) -> None:
    for reference in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        word = type(reference).__name__.lower()
        raise TaskError(f"task.prompt has {word!r} at its line {reference.lineno}: a prompt is one template")
    for _owner, name, line in _lookups(tree):
        if name.startswith("__"):
            raise TaskError(f"task.prompt uses {name!r} at its line {line}: only the record's fields can be used")


def _fields(tree: nodes.Template) -> Iterable[str]:
    yield from meta.find_undeclared_variables(tree) - {WHOLE}
    for owner, name, _line in _lookups(tree):
        if isinstance(owner, nodes.Name) and owner.name == WHOLE:
            yield name


def _lookups(tree: nodes.Template) -> Iterable[tuple[nodes.Expr, str, int]]:
    """Each `owner.name` and `owner["name"]` of the template, with its line."""
    for dotted in tree.find_all(nodes.Getattr):
        yield dotted.node, dotted.attr, dotted.lineno
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, str):
            yield item.node, item.arg.value, item.lineno


def _there_is(missing: str, fields: Mapping[str, JSON]) -> str:
    names = [str(name) for name in fields]
    more = f" and {len(names) - SHOWN_FIELDS} more" if len(names) > SHOWN_FIELDS else ""
    near = get_close_matches(missing, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"its fields are: {', '.join(names[:SHOWN_FIELDS]) or 'none'}{more}{hint}"


def _answer_tokens(schema: Schema) -> int:
    properties: dict[str, Any] = schema.get("properties", {})
    values = sum(_value_tokens(name, node) for name, node in properties.items())
    return CALL_TOKENS + values


def _value_tokens(name: str, node: Any) -> int:
    closed = isinstance(node, dict) and ("enum" in node or node.get("type") in ("boolean", "integer", "number"))
    return len(name) // BYTES_PER_TOKEN + (VALUE_TOKENS if closed else FREE_TEXT_TOKENS)
