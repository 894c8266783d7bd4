"""The task: what is asked of the model, how an answer is read, and what follows a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from pipeline import codec
from pipeline.errors import AnswerError, CallbackError, RenderError, TaskError
from pipeline.records import JSON, Answer, Record, Request
from pipeline.task import parse
from pipeline.task.caching import Caching, settled
from pipeline.task.callback import call_back
from pipeline.task.examples import Plain, check_count, make_examples, nearest_of, plain_examples
from pipeline.task.load import load
from pipeline.task.render import NOTHING, Frame, Frames, Prompt, Shown, make_frame, together
from pipeline.task.repair import repair
from pipeline.task.schema import DEFAULT_NAME, Tool, labels_description, labels_schema, make_tool, short
from pipeline.task.tools import Naming, Offer, PerRecord, offer_of
from pipeline.task.walk import Schema

TOOL_CHOICES = ("forced", "required", "auto")
#: what labelpipe says itself in each request
RESERVED = frozenset(
    {"model", "messages", "tools", "tool_choice", "functions", "function_call", "n", "stream", "stream_options"}
)
#: the value of a parameter that is left out although it would be sent by default
OMIT = "omit"


@dataclass(frozen=True, slots=True)
class FunctionOptions:
    """A function given by its JSON Schema."""

    name: str
    parameters: Mapping[str, JSON]
    description: str | None = None


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What a task is made of. Exactly one of `labels`, `function` and `python` says what a label is.

    `name` and `description` are the function's, as the model sees it; None takes the tool's own. `parameters` are
    sent with each request as they are; None among them is not sent. `base` is the folder of the config, from which
    `python` is imported.

    `examples` are records with the right arguments under the key "label". All of them are shown with each record, in
    their order; with `examples_k` only that many, the nearest to the record.

    How the prompt is cached changes no answer, so it is in no fingerprint: `prompt_cache_key` is sent as it is ("auto":
    one made of the fingerprint), `cache_breakpoint` marks the end of what is the same for all records.
    """

    model: str
    prompt: str
    system: str | None = None
    labels: Mapping[str, Sequence[JSON]] | None = None
    function: FunctionOptions | None = None
    python: str | None = None
    name: str | None = None
    description: str | None = None
    tool_choice: str = "forced"
    strict: bool = True
    parameters: Mapping[str, JSON] = field(default_factory=dict)
    base: Path = Path()
    examples: Sequence[Mapping[str, JSON]] = ()
    examples_k: int | None = None
    prompt_cache_key: str | None = None
    cache_breakpoint: bool = False


class Task:
    """One labelling task. Made by `build_task`; holds no state but a bounded cache.

    `columns` are the label columns in the schema's order. `extra_columns` are those that a callback declares, ()
    where it declares none. `fingerprint` are the named parts that decide what the model is asked; the callback is
    none of them, so that a mended one runs again on the answers that are kept.
    """

    __slots__ = (
        "_callback",
        "_frame_for",
        "_opening_count",
        "_prompt",
        "_shown_for",
        "columns",
        "extra_columns",
        "fingerprint",
    )

    def __init__(self, options: TaskOptions, offer: Offer, parameters: Mapping[str, JSON]) -> None:
        examples = plain_examples(options.examples, offer.columns)
        check_count(options.examples_k, examples)
        self.columns = offer.columns
        self.fingerprint = _fingerprint(options, offer, parameters, examples)
        self.extra_columns: tuple[str, ...] = (offer.callback and offer.callback.extra_columns) or ()
        self._callback = offer.callback
        self._prompt = Prompt(options.prompt)
        caching = settled(Caching(options.prompt_cache_key, options.cache_breakpoint), parameters, self.fingerprint)
        framing = partial(_frames, options, offer.tool, parameters, caching)
        bare = framing(NOTHING)
        made = make_examples(examples, self._prompt, lambda record: bare(record).tool)
        fixed = NOTHING if options.examples_k else together(shown for _text, shown in made)
        self._opening_count = bool(options.system) + len(fixed.messages)
        self._frame_for = framing(fixed)
        self._shown_for = nearest_of(made, options.examples_k) if options.examples_k else _show_nothing

    @property
    def has_callback(self) -> bool:
        """Whether `call_back` calls anything."""
        return self._callback is not None

    @property
    def fields(self) -> frozenset[str]:
        """The record's fields that the prompt names."""
        return self._prompt.fields

    def render(self, record: Record) -> Request:
        """The request for one record. Raises RenderError."""
        frame, text = self._frame_for(record), self._prompt.render(record)
        return frame.request(record, text, self._shown_for(text))

    def read(self, answer: Answer, record: Record) -> dict[str, JSON]:
        """The label in an answer. Raises InvalidAnswerError, TruncatedError, RefusalError or CallbackError.

        The last one comes of code of the user's: a model's validator, or a schema that depends on the record.
        """
        try:
            tool = self._frame_for(record).tool
        except RenderError as error:
            raise CallbackError(str(error)) from error
        return parse.read(tool, answer)

    def repair(self, request: Request, answer: Answer, error: AnswerError) -> Request:
        """The request that asks again, with the fault shown; after a TruncatedError with more room."""
        shown = self._shown_for(self._prompt.render(request.record))
        return repair(request, answer, error, base=self._opening_count + len(shown.messages) + 1)

    async def call_back(self, label: Mapping[str, JSON], record: Record) -> dict[str, JSON]:
        """The extra columns that the user's callback returns; {} without one. Raises CallbackError."""
        if self._callback is None:
            return {}
        return await call_back(self._callback, label, record)


def build_task(options: TaskOptions) -> Task:
    """The task. Raises TaskError for anything in the options that cannot work."""
    if not options.model.strip():
        raise TaskError("model.name is empty: expected the name of a model")
    if options.tool_choice not in TOOL_CHOICES:
        near = get_close_matches(options.tool_choice, TOOL_CHOICES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise TaskError(f"model.tool_choice is {options.tool_choice!r}: expected {', '.join(TOOL_CHOICES)}{hint}")
    return Task(options, _offer(options), _sent(options.parameters))


def _offer(options: TaskOptions) -> Offer:
    forms = {"task.labels": options.labels, "task.function": options.function, "task.python": options.python}
    given = [name for name, value in forms.items() if value is not None]
    if len(given) != 1:
        raise TaskError(f"{' and '.join(given) or 'none'} of {', '.join(forms)} is given: expected exactly one")
    if options.python is not None:
        naming = Naming(options.python, options.name, options.description, options.strict)
        return offer_of(load(options.python, options.base), naming)
    if options.function is not None:
        tool = _function_tool(options, options.function)
    else:
        tool = _labels_tool(options, options.labels or {})
    return Offer(tool, tool.columns)


def _labels_tool(options: TaskOptions, labels: Mapping[str, Sequence[JSON]]) -> Tool:
    schema = labels_schema(labels)
    description = options.description or labels_description(labels)
    return make_tool(schema, name=options.name or DEFAULT_NAME, description=description, strict=options.strict)


def _function_tool(options: TaskOptions, function: FunctionOptions) -> Tool:
    return make_tool(
        dict(function.parameters),
        name=options.name or function.name,
        description=options.description or function.description,
        strict=options.strict,
    )


def _sent(parameters: Mapping[str, JSON]) -> dict[str, JSON]:
    """The model parameters of each request. Records are labelled by one call, so parallel calls are off."""
    if taken := [name for name in parameters if name in RESERVED]:
        raise TaskError(f"model.parameters.{taken[0]} cannot be set: labelpipe sets it itself; take it out")
    try:
        plain: dict[str, JSON] = codec.loads(codec.dumps({"parallel_tool_calls": False, **parameters}))
    except ValueError as error:
        raise TaskError(f"model.parameters is {short(parameters)}, which JSON cannot hold: {error}") from error
    if plain["parallel_tool_calls"] == OMIT:
        del plain["parallel_tool_calls"]
    return {name: value for name, value in plain.items() if value is not None}


def _show_nothing(_text: str) -> Shown:
    return NOTHING


def _frames(
    options: TaskOptions,
    tool: Tool | PerRecord,
    parameters: Mapping[str, JSON],
    caching: Caching,
    fixed: Shown,
) -> Callable[[Record], Frame]:
    """The frame of each record, with the examples that all records are shown."""

    def frame(made: Tool) -> Frame:
        return make_frame(
            made,
            model=options.model,
            system=options.system,
            fixed=fixed,
            tool_choice=_choice(options.tool_choice, made.name),
            parameters=parameters,
            caching=caching,
        )

    if isinstance(tool, PerRecord):
        build = tool.build
        return Frames(tool.schema_for, lambda schema: frame(build(schema)))
    only = frame(tool)
    return lambda _record: only


def _choice(word: str, name: str) -> JSON:
    return {"type": "function", "function": {"name": name}} if word == "forced" else word


def _fingerprint(
    options: TaskOptions, offer: Offer, parameters: Mapping[str, JSON], examples: Sequence[Plain]
) -> dict[str, JSON]:
    shown: Schema = offer.tool.described if isinstance(offer.tool, PerRecord) else offer.tool.definition
    return {
        "prompt": options.prompt,
        "system": options.system,
        "tools": [shown],
        "tool_choice": options.tool_choice,
        "model": options.model,
        "parameters": dict(parameters),
        "examples": list(examples) or None,
        "examples_k": options.examples_k,
    }
