"""The task: what is asked of the model, how an answer is read, and what follows a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial

from pipeline import codec
from pipeline.errors import AnswerError, CallbackError, NotCalledError, RenderError, TaskError, did_you_mean
from pipeline.labelfields import Rename
from pipeline.records import JSON, Answer, CallbackContext, LabelResult, Record, Request, ValidCall
from pipeline.task import parse, validators
from pipeline.task.caching import PromptCaching, resolve_caching
from pipeline.task.callback import call_in_conversation, call_once
from pipeline.task.columns import Columns, row_fields
from pipeline.task.examples import PlainExample, build_examples, check_count, nearest_selector, validate_examples
from pipeline.task.options import CALLS, ROWS_OF_CALLS, TOOL_CHOICES, TaskOptions
from pipeline.task.parse import CallRules
from pipeline.task.prompt import Prompt
from pipeline.task.renames import accept_old_names
from pipeline.task.render import (
    BYTES_PER_TOKEN,
    NO_MESSAGES,
    MessageBlock,
    RequestTemplate,
    TemplateCache,
    build_template,
    constant_bytes,
    join_blocks,
)
from pipeline.task.repair import next_turn, repair
from pipeline.task.schema import Tool, short
from pipeline.task.schema_tree import Schema
from pipeline.task.tools import DynamicTool, ToolBinding
from pipeline.task.toolset import build_tools
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
    find again; `marks_prefix`: its end is marked.

    `fields` are the record's fields that the prompt names, `media_kinds` the kinds of media that it may show (image,
    audio, document). `prints_record`: it prints the whole record, so that all fields decide what is asked;
    `is_constant`: nothing of the record is in it. `has_callback`: code of the user's is called with a label;
    `can_share_answers`: an answer fits every record with the identical request.
    """

    def __init__(self, options: TaskOptions, bindings: Sequence[ToolBinding]) -> None:
        fields = {binding.name: binding.tool.columns for binding in bindings}
        is_dynamic = any(isinstance(binding.tool, DynamicTool) for binding in bindings)
        self._tool_names = tuple(fields)
        self._rules = _call_rules(options)
        self._callbacks = {binding.name: binding.callback for binding in bindings if binding.callback is not None}
        self.has_callback = bool(self._callbacks)
        self._columns = Columns(
            fields,
            {name: callback.extra_columns or () for name, callback in self._callbacks.items()},
            call=self._rules.call,
            rows=options.rows,
            row_fields=_row_fields(options, bindings),
            reply=options.reply,
        )
        self.columns = self._columns.names
        self.closed_columns = _closed_columns(bindings, self.columns)
        self.extra_columns = self._columns.extra
        self.max_turns = options.max_turns
        self._timeout_s = options.callback_timeout_s
        self._renames: Sequence[Rename] = ()
        self._validators = Validators(options.validators, fields, options.base)
        # A validator may look at fields that are in no request, and a conversation is about its own record.
        self.can_share_answers = self.max_turns == 1 and not options.validators
        examples = validate_examples(options.examples, [name for names in fields.values() for name in names])
        check_count(options.examples_k, examples)
        parameters = _request_parameters(options.parameters, self._rules)
        self.fingerprint = _fingerprint(options, bindings, parameters, examples)
        self._prompt = Prompt(options.prompt, options.media)
        self.fields, self.media_kinds = self._prompt.fields, self._prompt.media_kinds
        self.prints_record = self._prompt.prints_whole
        self.is_constant = self._prompt.is_constant and not is_dynamic
        if examples and self.media_kinds:
            raise TaskError("task.examples cannot show media: remove the examples or the media")
        if self.media_kinds and options.media is not None:
            self.fingerprint["media"] = dict(options.media.shape or {})
        templates = partial(_templates, options, bindings, self._rules, parameters)
        bare = templates(PromptCaching(), NO_MESSAGES)
        shots = build_examples(examples, self._prompt, lambda record: bare(record).tools_by_name)
        fixed = NO_MESSAGES if options.examples_k else join_blocks(messages for _text, messages in shots)
        definitions = [binding.tool.definition for binding in bindings if isinstance(binding.tool, Tool)]
        constant_tokens = constant_bytes(options.system, definitions, fixed) // BYTES_PER_TOKEN
        self.constant_tokens = 0 if is_dynamic else constant_tokens  # the tools stand first of all
        keepable = self.constant_tokens if options.system or fixed.messages else 0  # a mark stands in a message
        requested = PromptCaching(options.prompt_cache_key, options.cache_breakpoint)
        caching = resolve_caching(requested, parameters, self.fingerprint, keepable)
        self.marks_prefix = bool(caching.breakpoint)
        self._template_for = templates(caching, fixed)
        self._examples_for = (
            nearest_selector(shots, options.examples_k) if options.examples_k else lambda _: NO_MESSAGES
        )

    def with_renames(self, renames: Sequence[Rename]) -> Task:
        """The task for answers that were given before these renames: it takes the former names, and gives the new."""
        task = copy(self)
        task._renames = tuple(renames)
        return task

    def prompt_text(self, record: Record) -> str:
        """The record's prompt, as a person reads it. Raises RenderError for what `render` does."""
        self._validators.require_fields(record)
        self._template_for(record)
        return self._prompt.render(record).text

    def render(self, record: Record) -> Request:
        """The request for one record. Raises RenderError."""
        self._validators.require_fields(record)
        template, prompt = self._template_for(record), self._prompt.render(record)
        return template.request(record, prompt, self._examples_for(prompt.text))

    def parse_calls(self, answer: Answer, record: Record, before: Sequence[ValidCall] = ()) -> tuple[ValidCall, ...]:
        """The valid calls in an answer; none where it may be words alone. `before` are those of earlier turns.

        Raises InvalidAnswerError, TruncatedError, RefusalError or CallbackError. The last one comes of code of the
        user's: a model's validator, or a schema that depends on the record.
        """
        try:
            tools = self._template_for(record).tools_by_name
        except RenderError as error:
            raise CallbackError(str(error)) from error
        if self._renames:
            tools = accept_old_names(tools, self._renames)
        valid_calls = parse.parse_answer(tools, answer, self._rules, before)
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
            parse.refuse_missing(self._tool_names, valid_calls, self._rules)
        return self._columns.build(valid_calls, reply, record.key)

    def repair(self, request: Request, answer: Answer, error: AnswerError, *, base: int) -> Request:
        """The request that asks again, with the fault shown; after a TruncatedError with more room.

        `base` is how many messages the turn began with.
        """
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
            return replace(valid_call, extra=await call_once(callback, valid_call, record, call, self._timeout_s))
        try:
            extra, result = await call_in_conversation(callback, valid_call, record, call, self._timeout_s)
        except NotCalledError:
            raise
        except CallbackError as error:
            return replace(valid_call, result={"error": str(error)})
        return replace(valid_call, extra=extra, result=result)


def _closed_columns(bindings: Sequence[ToolBinding], columns: Sequence[str]) -> tuple[str, ...]:
    """The columns in which two answers can be expected to say the same: an enum, true or false, or a list of these."""
    if len(bindings) > 1 or isinstance(bindings[0].tool, DynamicTool):
        return ()
    properties = bindings[0].tool.schema["properties"]
    return tuple(name for name in columns if _is_closed(properties.get(name, {})))


def _is_closed(node: Schema) -> bool:
    items = node.get("items")
    is_one = "enum" in node or "const" in node or node.get("type") == "boolean"
    return is_one or (isinstance(items, dict) and _is_closed(items))


def build_task(options: TaskOptions) -> Task:
    """The task. Raises TaskError for anything in the options that cannot work."""
    if not options.model.strip():
        raise TaskError("model.name is empty: expected the name of a model")
    _validate_choice("model.tool_choice", options.tool_choice, TOOL_CHOICES)
    _validate_choice("task.call", options.call, CALLS)
    if options.max_turns < 1:
        raise TaskError(f"task.max_turns is {options.max_turns}: expected 1 or more")
    if options.reply is not None and options.max_turns == 1 and options.call != "any":
        raise TaskError('task.reply is the model\'s final text: it needs task.max_turns of 2 or more, or call = "any"')
    return Task(options, build_tools(options))


def _validate_choice(key: str, word: str, words: Sequence[str]) -> None:
    if word not in words:
        raise TaskError(f"{key} is {word!r}: expected {', '.join(words)}{did_you_mean(word, words)}")


def _call_rules(options: TaskOptions) -> CallRules:
    each = options.rows == ROWS_OF_CALLS
    call = "some" if each and options.call == "one" else options.call
    return CallRules(
        call=call,
        each=each,
        talks=options.max_turns > 1,
        reply=options.reply is not None,
        strict=options.strict_answers,
    )


def _row_fields(options: TaskOptions, bindings: Sequence[ToolBinding]) -> tuple[str, ...]:
    if options.rows is None or options.rows == ROWS_OF_CALLS:
        return ()
    if len(bindings) > 1:
        raise TaskError(f'task.rows is {options.rows!r}: with several tools it can only be "{ROWS_OF_CALLS}"')
    tool = bindings[0].tool
    if isinstance(tool, DynamicTool):
        raise TaskError(f"task.rows is {options.rows!r}: it needs a schema that is the same for all records")
    return row_fields(tool.schema, options.rows)


def _request_parameters(parameters: Mapping[str, JSON], rules: CallRules) -> dict[str, JSON]:
    """The model parameters of each request. Where one call is wanted, parallel calls are off."""
    if reserved := [name for name in parameters if name in RESERVED]:
        raise TaskError(f"model.parameters.{reserved[0]} cannot be set: labelpipe sets it itself; remove it")
    try:
        plain: dict[str, JSON] = codec.plain({PARALLEL: rules.call != "one" or rules.each, **parameters})
    except ValueError as error:
        raise TaskError(f"model.parameters is {short(parameters)}, which JSON cannot hold: {error}") from error
    return {name: value for name, value in plain.items() if value is not None and value != OMIT}


def _templates(
    options: TaskOptions,
    bindings: Sequence[ToolBinding],
    rules: CallRules,
    parameters: Mapping[str, JSON],
    caching: PromptCaching,
    fixed: MessageBlock,
) -> Callable[[Record], RequestTemplate]:
    """Gives the template of each record's request, with the examples that all records are shown."""

    def template(tools: Sequence[Tool]) -> RequestTemplate:
        return build_template(
            tools,
            model=options.model,
            system=options.system,
            fixed=fixed,
            tool_choice=_tool_choice(options, [tool.name for tool in tools], rules),
            parameters=parameters,
            caching=caching,
        )

    tools = [binding.tool for binding in bindings]
    varying = [tool for tool in tools if isinstance(tool, DynamicTool)]
    if not varying:
        only = template([tool for tool in tools if isinstance(tool, Tool)])
        return lambda _record: only

    def build(schemas: Sequence[Schema]) -> RequestTemplate:
        remaining = iter(schemas)
        return template([tool.build(next(remaining)) if isinstance(tool, DynamicTool) else tool for tool in tools])

    return TemplateCache(lambda record: [tool.schema_for(record) for tool in varying], build)


def _tool_choice(options: TaskOptions, names: Sequence[str], rules: CallRules) -> JSON:
    """`forced` names the function; where there are several, or more than one call is wanted, any must be called."""
    word = options.tool_choice
    if rules.call == "any":
        return "auto"
    if word == "forced" and options.names_function and len(names) == 1 and rules.call == "one":
        return {"type": "function", "function": {"name": names[0]}}
    return "required" if word == "forced" else word


def _fingerprint(
    options: TaskOptions,
    bindings: Sequence[ToolBinding],
    parameters: Mapping[str, JSON],
    examples: Sequence[PlainExample],
) -> dict[str, JSON]:
    tools = [binding.tool for binding in bindings]
    definitions = [tool.description if isinstance(tool, DynamicTool) else tool.definition for tool in tools]
    parts: dict[str, JSON] = {
        "prompt": options.prompt,
        "system": options.system,
        "tools": definitions,
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
