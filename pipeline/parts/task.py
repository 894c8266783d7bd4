"""[task] and [model] -> the task."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path

from pipeline import codec
from pipeline.errors import ConfigError, TaskError
from pipeline.parts.labels import fields_of_forms, label_fields
from pipeline.parts.media import show_options
from pipeline.parts.outputs import COLUMN
from pipeline.parts.server import is_openai, is_simulated, names_function
from pipeline.records import JSON
from pipeline.settings import Settings
from pipeline.task import (
    FunctionOptions,
    Task,
    TaskOptions,
    ToolOptions,
    ValidatorOptions,
    build_task,
    takes_breakpoint,
)


def task_of(settings: Settings) -> Task:
    """The task that the settings describe. Raises TaskError."""
    options, task = settings.model, settings.task
    made = build_task(
        TaskOptions(
            model=options.name,
            prompt=task.prompt,
            system=task.system,
            labels=label_fields(settings) if task.labels is not None else None,
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
            examples=_examples(settings),
            examples_k=task.examples_k,
            media=show_options(settings),
            prompt_cache_key=options.prompt_cache_key or ("auto" if is_openai(settings) else None),
            cache_breakpoint=_breakpoint(settings),
            base=settings.config_path.parent if settings.config_path else Path(),
        )
    )
    if is_simulated(settings) and COLUMN in made.columns + made.extra_columns:
        raise TaskError(f"the task has a column {COLUMN!r}, which marks the rows of a rehearsal: give it another name")
    return made


def _breakpoint(settings: Settings) -> bool:
    """Whether the constant part's end is marked. Raises ConfigError where OpenAI's own API would refuse the mark."""
    model, wanted = settings.model.name, settings.model.cache_breakpoint
    if wanted and is_openai(settings) and not takes_breakpoint(model):
        raise ConfigError(
            f"model.cache_breakpoint = true, but {model} takes no mark: OpenAI's models do from gpt-5.6 on; take it out"
        )
    return wanted


def _function(settings: Settings) -> FunctionOptions | None:
    function = settings.task.function
    if function is None:
        return None
    parameters = settings.json_schema(function.parameters, ("task", "function", "parameters"))
    return FunctionOptions(name=function.name, parameters=parameters, description=function.description)


def _tools(settings: Settings) -> list[ToolOptions] | None:
    """The tools of [[task.tools]], their schemas read where they are files; None without that table."""
    if settings.task.tools is None:
        return None
    found = []
    for place, one in enumerate(settings.task.tools):
        key = ("task", "tools", place, "parameters")
        schema = None if one.parameters is None else settings.json_schema(one.parameters, key)
        labels = None if one.labels is None else fields_of_forms(settings, one.labels, f"task.tools.{place}.labels")
        found.append(ToolOptions(one.name, one.description, labels, schema, one.python, one.callback))
    return found


def _examples(settings: Settings) -> list[Mapping[str, JSON]]:
    """The config's examples, then those of the file."""
    found: list[Mapping[str, JSON]] = list(settings.task.examples)
    if settings.task.examples_file is None:
        return found
    path = settings.find(settings.task.examples_file)
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError as error:
        raise ConfigError(f"task.examples_file: {path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            found.append(_example(path, number, line))
    return found


def _example(path: Path, number: int, line: bytes) -> Mapping[str, JSON]:
    try:
        example = codec.loads_loosely(line)
    except ValueError as error:  # no JSON, or no UTF-8
        raise ConfigError(f"{path}:{number}: task.examples_file: not JSON: {error}") from error
    if not isinstance(example, dict):
        raise ConfigError(f"{path}:{number}: task.examples_file: expected an object, got {type(example).__name__}")
    return example
