"""The task: what is asked of the model, how an answer is read, and what follows a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from difflib import get_close_matches
from functools import partial

from pipeline import codec
from pipeline.errors import AnswerError, CallbackError, NotCalledError, RenderError, TaskError
from pipeline.labelfields import Rename
from pipeline.records import JSON, Answer, CallbackContext, LabelResult, Record, Request, ToolCall, ValidCall
from pipeline.task import parse, validators
from pipeline.task.caching import Caching, settled
from pipeline.task.callback import call_back, talk_back
from pipeline.task.columns import Columns, row_fields
from pipeline.task.examples import Plain, check_count, make_examples, nearest_of, plain_examples
from pipeline.task.options import CALLS, ROWS_OF_CALLS, TOOL_CHOICES, TaskOptions
from pipeline.task.parse import Wanted
from pipeline.task.prompt import Prompt
from pipeline.task.renames import renamed_kit
from pipeline.task.render import (
    BYTES_PER_TOKEN,
    NOTHING,
    Frame,
    Frames,
    Shown,
    constant_bytes,
    make_frame,
    together,
)
from pipeline.task.repair import next_turn, repair
from pipeline.task.schema import Tool, short
from pipeline.task.schema_tree import Schema
from pipeline.task.tools import Offer, PerRecord
from pipeline.task.toolset import offers_of
from pipeline.task.validators import Validators

#: what labelpipe says itself in each request
RESERVED = frozenset(
    {"model", "messages", "tools", "tool_choice", "functions", "function_call", "n", "stream", "stream_options"}
)
#: the value of a parameter that is left out, also where it would be sent by default
OMIT = "omit"
PARALLEL = "parallel_tool_calls"


class Task:
    """One labelling task. Made by `build_task`; holds no state but a bounded cache.

    `columns` are the label columns in the schema's order, `closed_columns` those with a fixed set of values.
    `extra_columns` are those that a callback declares, () where it declares none. `fingerprint` are the named parts
    that decide what the model is asked; the callback is none of them, so that a fixed one runs again on the answers
    that are kept. `constant_tokens` is about how long a beginning all requests share: what a server's prompt cache can
    find again; `marks_constant`: its end is marked.
    """

    def __init__(self, options: TaskOptions, offers: Sequence[Offer], parameters: Mapping[str, JSON]) -> None:
        fields = {offer.name: offer.columns for offer in offers}
        self._callable = tuple(fields)
        self._wanted = _wanted(options)
        self._callbacks = {offer.name: offer.callback for offer in offers if offer.callback is not None}
        self._columns = Columns(
            fields,
            {name: callback.extra_columns or () for name, callback in self._callbacks.items()},
            call=self._wanted.call,
            rows=options.rows,
            row_fields=_row_fields(options, offers),
            reply=options.reply,
        )
        self.columns = self._columns.names
        self.closed_columns = _closed_columns(offers, self.columns)
        self.extra_columns = self._columns.extra
        self.max_turns = options.max_turns
        self._timeout_s = options.callback_timeout_s
        self._renames: Sequence[Rename] = ()
        self._validators = Validators(options.validators, fields, options.base)
        examples = plain_examples(options.examples, [name for names in fields.values() for name in names])
        check_count(options.examples_k, examples)
        self.fingerprint = _fingerprint(options, offers, parameters, examples)
        self._prompt = Prompt(options.prompt, options.media)
        self._varies = any(isinstance(offer.tool, PerRecord) for offer in offers)
        if examples and self._prompt.shows:
            raise TaskError("task.examples cannot show media: remove the examples or the media")
        if self._prompt.shows and options.media is not None:
            self.fingerprint["media"] = dict(options.media.shape or {})
        framing = partial(_frames, options, offers, self._wanted, parameters)
        bare = framing(Caching(), NOTHING)
        made = make_examples(examples, self._prompt, lambda record: bare(record).kit)
        fixed = NOTHING if options.examples_k else together(shown for _text, shown in made)
        self._opening_count = bool(options.system) + len(fixed.messages)
        self.constant_tokens = _constant_tokens(options.system, offers, fixed)
        keepable = self.constant_tokens if self._opening_count else 0  # a mark stands in a message
        wanted = Caching(options.prompt_cache_key, options.cache_breakpoint)
        caching = settled(wanted, parameters, self.fingerprint, keepable)
        self.marks_prefix = bool(caching.breakpoint)
        self._frame_for = framing(caching, fixed)
        self._shown_for = nearest_of(made, options.examples_k) if options.examples_k else lambda _: NOTHING

    @property
    def has_callback(self) -> bool:
        """Whether anything of the user's is called with a label."""
        return bool(self._callbacks)

    @property
    def media_kinds(self) -> frozenset[str]:
        """The kinds of media that requests may show: image, audio, document."""
        return self._prompt.shows

    @property
    def prints_record(self) -> bool:
        """Whether the prompt prints the whole record, so that all of its fields decide what is asked."""
        return self._prompt.prints_whole

    @property
    def can_share_answers(self) -> bool:
        """Whether an answer fits every record with the identical request.

        A validator may look at fields that are in no request, and a conversation is about its own record.
        """
        return self.max_turns == 1 and not self._validators

    @property
    def fields(self) -> frozenset[str]:
        """The record's fields that the prompt names."""
        return self._prompt.fields

    @property
    def is_constant(self) -> bool:
        """Whether nothing of the record is in what is asked of it."""
        return self._prompt.is_constant and not self._varies

    def with_renames(self, renames: Sequence[Rename]) -> Task:
        """The task for answers that were given before these renames: it takes the former names, and gives the new."""
        made = copy(self)
        made._renames = tuple(renames)
        return made

    def prompt_text(self, record: Record) -> str:
        """The record's prompt, as a person reads it. Raises RenderError for what `render` does."""
        if self._validators:
            self._validators.expect(record)
        self._frame_for(record)
        return self._prompt.ask(record).text

    def render(self, record: Record) -> Request:
        """The request for one record. Raises RenderError."""
        if self._validators:
            self._validators.expect(record)
        frame, asked = self._frame_for(record), self._prompt.ask(record)
        return frame.request(record, asked, self._shown_for(asked.text))

    def parse_calls(self, answer: Answer, record: Record, before: Sequence[ValidCall] = ()) -> tuple[ValidCall, ...]:
        """The valid calls in an answer; none where it may be words alone. `before` are those of earlier turns.

        Raises InvalidAnswerError, TruncatedError, RefusalError or CallbackError. The last one comes of code of the
        user's: a model's validator, or a schema that depends on the record.
        """
        try:
            kit = self._frame_for(record).kit
        except RenderError as error:
            raise CallbackError(str(error)) from error
        valid_calls = parse.read(
            renamed_kit(kit, self._renames) if self._renames else kit, answer, self._wanted, before
        )
        if self._validators:
            self._validators.check(valid_calls, record)
        return valid_calls

    def build_rows(self, valid_calls: Sequence[ValidCall], reply: str | None, record: Record) -> LabelResult:
        """The record's row or rows, from all its calls and the model's last words.

        Raises UnfinishedError where a conversation was cut off (`reply` is None) before all that is wanted was said,
        and CallbackError for an extra column that is one of the task's.
        """
        if self.max_turns == 1:
            reply = reply or ""
        elif reply is None:
            parse.refuse_missing(self._callable, valid_calls, self._wanted)
        return self._columns.labelled(valid_calls, reply, record.key)

    def read(self, answer: Answer, record: Record) -> dict[str, JSON]:
        """The label in an answer that is the only one. Raises as `calls` does."""
        return dict(self.build_rows(self.parse_calls(answer, record), answer.text, record).label)

    def repair(self, request: Request, answer: Answer, error: AnswerError, *, base: int | None = None) -> Request:
        """The request that asks again, with the fault shown; after a TruncatedError with more room.

        `base` is how many messages the turn began with; None: the first turn.
        """
        if base is None:
            shown = self._shown_for(self._prompt.render(request.record))
            base = self._opening_count + len(shown.messages) + 1
        return repair(request, answer, error, base=base)

    def next_turn(self, request: Request, answer: Answer, valid_calls: Sequence[ValidCall]) -> Request:
        """The request that tells the model what came of its calls."""
        return next_turn(request, answer, valid_calls)

    async def run_callback(self, valid_call: ValidCall, record: Record, call: CallbackContext) -> ValidCall:
        """The call with what its callback gave back. Raises CallbackError; in a conversation the model is told it.

        NotCalledError is raised in both: of a callback that was not called there is nothing to tell.
        """
        callback = self._callbacks.get(valid_call.tool)
        if callback is None:
            return valid_call
        if self.max_turns == 1:
            return replace(valid_call, extra=await call_back(callback, valid_call, record, call, self._timeout_s))
        try:
            extra, result = await talk_back(callback, valid_call, record, call, self._timeout_s)
        except NotCalledError:
            raise
        except CallbackError as error:
            return replace(valid_call, result={"error": str(error)})
        return replace(valid_call, extra=extra, result=result)

    async def call_back(self, label: Mapping[str, JSON], record: Record) -> dict[str, JSON]:
        """The extra columns that the only tool's callback returns for a label; {} without one. Raises CallbackError."""
        tool = next(iter(self._callbacks), "")
        valid_call = ValidCall(tool, label, ToolCall("", tool, ""))
        return dict((await self.run_callback(valid_call, record, CallbackContext("", 0, tool))).extra)


def _closed_columns(offers: Sequence[Offer], columns: Sequence[str]) -> tuple[str, ...]:
    """The columns in which two answers can be expected to say the same: an enum, true or false, or a list of these."""
    if len(offers) > 1 or isinstance(offers[0].tool, PerRecord):
        return ()
    properties = offers[0].tool.schema["properties"]
    return tuple(name for name in columns if _is_closed(properties.get(name, {})))


def _is_closed(node: Schema) -> bool:
    items = node.get("items")
    is_one = "enum" in node or "const" in node or node.get("type") == "boolean"
    return is_one or (isinstance(items, dict) and _is_closed(items))


def build_task(options: TaskOptions) -> Task:
    """The task. Raises TaskError for anything in the options that cannot work."""
    if not options.model.strip():
        raise TaskError("model.name is empty: expected the name of a model")
    _one_of("model.tool_choice", options.tool_choice, TOOL_CHOICES)
    _one_of("task.call", options.call, CALLS)
    if options.max_turns < 1:
        raise TaskError(f"task.max_turns is {options.max_turns}: expected 1 or more")
    if options.reply is not None and options.max_turns == 1 and options.call != "any":
        raise TaskError('task.reply is the model\'s final text: it needs task.max_turns of 2 or more, or call = "any"')
    wanted = _wanted(options)
    return Task(options, offers_of(options), _sent(options.parameters, parallel=wanted.call != "one" or wanted.each))


def _one_of(key: str, word: str, words: Sequence[str]) -> None:
    if word not in words:
        near = get_close_matches(word, words, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise TaskError(f"{key} is {word!r}: expected {', '.join(words)}{hint}")


def _wanted(options: TaskOptions) -> Wanted:
    each = options.rows == ROWS_OF_CALLS
    call = "some" if each and options.call == "one" else options.call
    return Wanted(
        call=call,
        each=each,
        talks=options.max_turns > 1,
        reply=options.reply is not None,
        strict=options.strict_answers,
    )


def _row_fields(options: TaskOptions, offers: Sequence[Offer]) -> tuple[str, ...]:
    if options.rows is None or options.rows == ROWS_OF_CALLS:
        return ()
    if len(offers) > 1:
        raise TaskError(f'task.rows is {options.rows!r}: with several tools it can only be "{ROWS_OF_CALLS}"')
    tool = offers[0].tool
    if isinstance(tool, PerRecord):
        raise TaskError(f"task.rows is {options.rows!r}: it needs a schema that is the same for all records")
    return row_fields(tool.schema, options.rows)


def _sent(parameters: Mapping[str, JSON], *, parallel: bool) -> dict[str, JSON]:
    """The model parameters of each request. Where one call is wanted, parallel calls are off."""
    if taken := [name for name in parameters if name in RESERVED]:
        raise TaskError(f"model.parameters.{taken[0]} cannot be set: labelpipe sets it itself; remove it")
    try:
        plain: dict[str, JSON] = codec.plain({PARALLEL: parallel, **parameters})
    except ValueError as error:
        raise TaskError(f"model.parameters is {short(parameters)}, which JSON cannot hold: {error}") from error
    return {name: value for name, value in plain.items() if value is not None and value != OMIT}


def _frames(
    options: TaskOptions,
    offers: Sequence[Offer],
    wanted: Wanted,
    parameters: Mapping[str, JSON],
    caching: Caching,
    fixed: Shown,
) -> Callable[[Record], Frame]:
    """The frame of each record, with the examples that all records are shown."""

    def frame(kit: Sequence[Tool]) -> Frame:
        return make_frame(
            kit,
            model=options.model,
            system=options.system,
            fixed=fixed,
            tool_choice=_choice(options, [tool.name for tool in kit], wanted),
            parameters=parameters,
            caching=caching,
        )

    tools = [offer.tool for offer in offers]
    varying = [tool for tool in tools if isinstance(tool, PerRecord)]
    if not varying:
        only = frame([tool for tool in tools if isinstance(tool, Tool)])
        return lambda _record: only

    def build(schemas: Sequence[Schema]) -> Frame:
        left = iter(schemas)
        return frame([tool.build(next(left)) if isinstance(tool, PerRecord) else tool for tool in tools])

    return Frames(lambda record: [tool.schema_for(record) for tool in varying], build)


def _constant_tokens(system: str | None, offers: Sequence[Offer], fixed: Shown) -> int:
    """0 where a schema depends on the record: the tools stand first of all."""
    tools = [offer.tool for offer in offers]
    if any(isinstance(tool, PerRecord) for tool in tools):
        return 0
    definitions = [tool.definition for tool in tools if isinstance(tool, Tool)]
    return constant_bytes(system, definitions, fixed) // BYTES_PER_TOKEN


def _choice(options: TaskOptions, names: Sequence[str], wanted: Wanted) -> JSON:
    """`forced` names the function; where there are several, or more than one call is wanted, any must be called."""
    word = options.tool_choice
    if wanted.call == "any":
        return "auto"
    if word == "forced" and options.names_function and len(names) == 1 and wanted.call == "one":
        return {"type": "function", "function": {"name": names[0]}}
    return "required" if word == "forced" else word


def _fingerprint(
    options: TaskOptions, offers: Sequence[Offer], parameters: Mapping[str, JSON], examples: Sequence[Plain]
) -> dict[str, JSON]:
    tools = [offer.tool for offer in offers]
    shown = [tool.described if isinstance(tool, PerRecord) else tool.definition for tool in tools]
    parts: dict[str, JSON] = {
        "prompt": options.prompt,
        "system": options.system,
        "tools": shown,
        "tool_choice": options.tool_choice,
        "model": options.model,
        "parameters": dict(parameters),
        "examples": list(examples) or None,
        "examples_k": options.examples_k,
    }
    # Left out where they are not used, so that a folder of an older labelpipe is not taken for another run.
    later = {
        "call": options.call if options.call != "one" else None,
        "rows": options.rows,
        "max_turns": options.max_turns if options.max_turns > 1 else None,
        "reply": options.reply,
        "validators": validators.fingerprint(options.validators),
    }
    return parts | {name: value for name, value in later.items() if value is not None}
