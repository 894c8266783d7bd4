"""Defines the task: what the model is asked, how an answer is read, and what follows a label."""

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

#: Parameters that labelpipe itself sets in each request.
RESERVED = frozenset(
    {"model", "messages", "tools", "tool_choice", "functions", "function_call", "n", "stream", "stream_options"}
)
#: The value of a parameter that is left out, even if it would be sent by default.
OMIT = "omit"
PARALLEL = "parallel_tool_calls"


class Task:
    """One labeling task. `build_task` creates it. Its only state is a bounded cache.

    `columns` are the label columns in the schema's order; `closed_columns` those with a fixed set of values.
    `extra_columns` are those that callbacks declare. `fingerprint` contains the named parts that decide what the model
    is asked. The callback is not one of them, so that a fixed callback can run again on the saved answers.
    `constant_tokens` estimates the beginning that all requests share, which a server's prompt cache can reuse.
    `marks_prefix`: its end is marked.

    `fields` are the record's fields that the prompt names; `media_kinds` the kinds of media that it may show (image,
    audio, document). `prints_record`: it prints the whole record, so all fields decide what is asked. `is_constant`:
    it contains nothing of the record. `has_callback`: the user's code is called with a label. `can_share_answers`: an
    answer is valid for every record with the identical request.
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
        # A validator may use fields that are in no request, and a conversation is about its own record.
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
        self.constant_tokens = 0 if is_dynamic else constant_tokens  # the tools come first in a prompt
        keepable = self.constant_tokens if options.system or fixed.messages else 0  # only a message can carry a mark
        requested = PromptCaching(options.prompt_cache_key, options.cache_breakpoint)
        caching = resolve_caching(requested, parameters, self.fingerprint, keepable)
        self.marks_prefix = bool(caching.breakpoint)
        self._template_for = templates(caching, fixed)
        self._examples_for = (
            nearest_selector(shots, options.examples_k) if options.examples_k else lambda _: NO_MESSAGES
        )

    def with_renames(self, renames: Sequence[Rename]) -> Task:
        """Return the task for answers from before these renames. It accepts the former names and returns the new."""
        task = copy(self)
        task._renames = tuple(renames)
        return task

    def prompt_text(self, record: Record) -> str:
        """Return the record's prompt as a person reads it. Raises RenderError like `render`."""
        self._validators.require_fields(record)
        self._template_for(record)
        return self._prompt.render(record).text

    def render(self, record: Record) -> Request:
        """Build the request for one record. Raises RenderError."""
        self._validators.require_fields(record)
        template, prompt = self._template_for(record), self._prompt.render(record)
        return template.request(record, prompt, self._examples_for(prompt.text))

    def parse_calls(self, answer: Answer, record: Record, before: Sequence[ValidCall] = ()) -> tuple[ValidCall, ...]:
        """Return the valid calls in an answer; none if it may be text alone. `before` are those of earlier turns.

        Raises InvalidAnswerError, TruncatedError, RefusalError, or CallbackError. The last one comes from the user's
        code: a model's validator, or a schema that depends on the record.
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
        """Build the record's row or rows from all its calls and the model's final text.

        Raises UnfinishedError if a conversation was cut off (`reply` is None) before it was complete, and CallbackError
        for an extra column that is one of the task's.
        """
        if self.max_turns == 1:
            reply = reply or ""
        elif reply is None:
            parse.refuse_missing(self._tool_names, valid_calls, self._rules)
        return self._columns.build(valid_calls, reply, record.key)

    def repair(self, request: Request, answer: Answer, error: AnswerError, *, base: int) -> Request:
        """Return the request that asks again, with the fault; after a TruncatedError, with a higher limit.

        `base` is the turn's number of initial messages.
        """
        return repair(request, answer, error, base=base)

    def next_turn(self, request: Request, answer: Answer, valid_calls: Sequence[ValidCall]) -> Request:
        """Return the request that shows the model the results of its calls."""
        return next_turn(request, answer, valid_calls)

    async def run_callback(self, valid_call: ValidCall, record: Record, call: CallbackContext) -> ValidCall:
        """Return the call with its callback's result. Raises CallbackError; in a conversation the model gets the error.

        NotCalledError is always raised: without a call there is nothing to report to the model.
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
    """Return the columns in which two answers can be expected to agree: an enum, a boolean, or a list of these."""
    if len(bindings) > 1 or isinstance(bindings[0].tool, DynamicTool):
        return ()
    properties = bindings[0].tool.schema["properties"]
    return tuple(name for name in columns if _is_closed(properties.get(name, {})))


def _is_closed(node: Schema) -> bool:
    items = node.get("items")
    is_one = "enum" in node or "const" in node or node.get("type") == "boolean"
    return is_one or (isinstance(items, dict) and _is_closed(items))


def build_task(options: TaskOptions) -> Task:
    """Build the task. Raises TaskError for options that cannot work."""
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
    """Return the model parameters of each request. If one call is expected, parallel calls are off."""
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
    """Return a function from a record to its template, with the examples that all records share."""

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
    """Return the tool choice. `forced` names the function, or requires any call if several are offered or expected."""
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
    # Left out if unused, so that a folder of an older labelpipe does not look like another run.
    later = {
        "call": options.call if options.call != "one" else None,
        "rows": options.rows,
        "max_turns": options.max_turns if options.max_turns > 1 else None,
        "reply": options.reply,
        "validators": validators.fingerprint(options.validators),
    }
    return parts | {name: value for name, value in later.items() if value is not None}
