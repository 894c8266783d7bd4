"""Builds the task from [task] and [model]."""

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline import codec
from pipeline.engine import VOTE_COLUMNS, Panel
from pipeline.errors import ConfigError, TaskError
from pipeline.labelfields import Rename, renamer
from pipeline.parts.labels import fields_of_forms, label_fields
from pipeline.parts.media import show_options
from pipeline.parts.outputs import COLUMN
from pipeline.parts.server import is_openai, is_simulated, names_function
from pipeline.records import JSON
from pipeline.settings import Settings, renamed_example
from pipeline.task import (
    MIN_CACHED_TOKENS,
    Task,
    TaskOptions,
    ToolOptions,
    ValidatorOptions,
    build_task,
    supports_breakpoint,
)


def task_of(settings: Settings, rename: Rename | None = None) -> Task:
    """Return the task of the settings, or their task after a rename of labels. Raises TaskError."""
    task = build_task(_options(settings, rename))
    if is_simulated(settings) and COLUMN in task.columns + task.extra_columns:
        raise TaskError(f"the task has a column {COLUMN!r}, which marks the rows of a rehearsal: give it another name")
    return task


def panel_of(settings: Settings, task: Task) -> Panel | None:
    """Return who votes on this task's labels; None if one answer is enough. Raises TaskError."""
    quality = settings.quality
    if quality.size == 1:
        return None
    columns = tuple(quality.vote_on or task.closed_columns)
    _refuse_votes(settings, task, columns)
    options = _options(settings)
    voters = [
        build_task(
            replace(
                options,
                model=one.model or options.model,
                system=options.system if one.system is None else one.system,
                prompt=one.prompt or options.prompt,
                parameters={**options.parameters, **one.parameters},
            )
        )
        for one in quality.voters
    ]
    return Panel(quality.size, columns, tuple(voter.render for voter in voters), quality.review_below)


def voters_of(settings: Settings, task: Task) -> dict[str, JSON]:
    """Return the vote options that affect labels, for the run's fingerprint; empty if one answer is enough."""
    quality = settings.quality
    if quality.size == 1:
        return {}
    voters = [one.model_dump(exclude_unset=True, exclude={"price"}) for one in quality.voters]
    return {
        "votes": {"votes": quality.size, "on": list(quality.vote_on or task.closed_columns)}
        | ({"voters": voters} if voters else {})
    }


def _refuse_votes(settings: Settings, task: Task, columns: Sequence[str]) -> None:
    """Raise TaskError if nobody can vote."""
    if task.max_turns > 1 or settings.task.rows is not None:
        key = "task.rows" if settings.task.rows is not None else "task.max_turns"
        raise TaskError(
            f"quality.votes needs one label from one answer, so it cannot be combined with {key}: remove one of them"
        )
    if not columns:
        raise TaskError(
            "quality.votes compares label fields with a fixed set of values, and the task has none: name the fields in "
            f"quality.vote_on (there are {', '.join(task.columns)})"
        )
    if unknown := [name for name in columns if name not in task.columns]:
        raise TaskError(f"quality.vote_on: there is no label field {unknown[0]!r}; there are {', '.join(task.columns)}")
    if clashes := [name for name in VOTE_COLUMNS if name in task.columns + task.extra_columns]:
        raise TaskError(f"the task has a column {clashes[0]!r}, which the votes need: give it another name")
    if settings.quality.voters and task.media_kinds:
        raise TaskError("quality.voters cannot be used with media yet: use quality.votes, or remove the media")


def _options(settings: Settings, rename: Rename | None = None) -> TaskOptions:
    options, task = settings.model, settings.task
    labels = label_fields(settings) if task.labels is not None else None
    examples = _examples(settings)
    if rename is not None and labels is not None:
        labels = {name: rename.field(field) if name == rename.column else field for name, field in labels.items()}
        examples = [renamed_example(one, rename.column, renamer(rename.pairs)) for one in examples]
    return TaskOptions(
        model=options.name,
        prompt=task.prompt,
        system=task.system,
        labels=labels,
        function=_function(settings),
        python=task.python,
        tools=_tools(settings),
        callback=task.callback,
        callback_timeout_s=task.callback_timeout_s,
        call=task.call,
        rows=task.rows,
        max_turns=task.max_turns,
        reply=task.reply,
        validators=[ValidatorOptions(**one.model_dump()) for one in task.validators],
        name=task.name,
        description=task.description,
        tool_choice=options.tool_choice or "forced",
        names_function=names_function(settings),
        strict=options.strict,
        strict_answers=task.strict_answers,
        parameters=options.parameters,
        examples=examples,
        examples_k=task.examples_k,
        media=show_options(settings),
        prompt_cache_key=options.prompt_cache_key or ("auto" if is_openai(settings) else None),
        cache_breakpoint=_breakpoint(settings),
        base=settings.config_path.parent if settings.config_path else Path(),
    )


def _breakpoint(settings: Settings) -> bool | None:
    """Whether to mark the end of the constant part. None: if it pays, at OpenAI's own API, which knows the mark.

    Raises ConfigError if that API would refuse the mark.
    """
    mark = settings.model.cache_breakpoint
    if mark is None and not (is_openai(settings) or is_simulated(settings)):
        return False
    models = [settings.model.name, *(one.model for one in settings.quality.voters if one.model is not None)]
    older = [model for model in models if not supports_breakpoint(model)]
    if mark and is_openai(settings) and older:
        message = f"model.cache_breakpoint = true, but {older[0]} takes no mark"
        raise ConfigError(f"{message}: OpenAI's models do from gpt-5.6 on; remove it")
    return mark


def cache_text(settings: Settings, task: Task) -> str:
    """Describe how the server's prompt cache is used; empty if the constant part is too short for it."""
    if task.constant_tokens < MIN_CACHED_TOKENS or not (
        task.marks_prefix or is_openai(settings) or is_simulated(settings)
    ):
        return ""
    begins = f"about {task.constant_tokens:,} tokens begin each prompt"
    if task.marks_prefix:
        return f"{begins}; their end is marked, so that the server keeps them (model.cache_breakpoint)"
    if not supports_breakpoint(settings.model.name):
        return f"{begins}; the cache of {settings.model.name} keeps them by itself"
    why = (
        "there is no system text or fixed example to mark" if settings.model.cache_breakpoint is None else "it is false"
    )
    return f"{begins}; they are not marked, and so not found again (model.cache_breakpoint: {why})"


def _function(settings: Settings) -> ToolOptions | None:
    function = settings.task.function
    if function is None:
        return None
    parameters = settings.json_schema(function.parameters, ("task", "function", "parameters"))
    return ToolOptions(name=function.name, parameters=parameters, description=function.description)


def _tools(settings: Settings) -> list[ToolOptions] | None:
    """Return the tools of [[task.tools]], with schemas from files read; None without that table."""
    if settings.task.tools is None:
        return None
    tools = []
    for place, one in enumerate(settings.task.tools):
        key = ("task", "tools", place, "parameters")
        schema = None if one.parameters is None else settings.json_schema(one.parameters, key)
        labels = None if one.labels is None else fields_of_forms(settings, one.labels, f"task.tools.{place}.labels")
        tools.append(ToolOptions(one.name, schema, one.description, labels, one.python, one.callback))
    return tools


def _examples(settings: Settings) -> list[Mapping[str, JSON]]:
    """Return the examples of the config, then of the file."""
    examples: list[Mapping[str, JSON]] = list(settings.task.examples)
    if settings.task.examples_file is None:
        return examples
    path = settings.find(settings.task.examples_file)
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError as error:
        raise ConfigError(f"task.examples_file: {path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            examples.append(_example(path, number, line))
    return examples


def _example(path: Path, number: int, line: bytes) -> Mapping[str, JSON]:
    try:
        example = codec.loads_loosely(line)
    except ValueError as error:  # invalid JSON or UTF-8
        raise ConfigError(f"{path}:{number}: task.examples_file: not JSON: {error}") from error
    if not isinstance(example, dict):
        raise ConfigError(f"{path}:{number}: task.examples_file: expected an object, got {type(example).__name__}")
    return example
