"""Answers that were given before labels were renamed: their arguments are read under the names of today."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline import codec
from pipeline.labelfields import Rename, renamer
from pipeline.records import JSON, Answer, ToolCall
from pipeline.task.schema import Check, Tool


def accept_old_names(tools_by_name: Mapping[str, Tool], renames: Sequence[Rename]) -> Mapping[str, Tool]:
    """The tools, which take the former names of labels as well."""
    return {name: replace(tool, check=_check(tool.check, renames)) for name, tool in tools_by_name.items()}


def _check(check: Check, renames: Sequence[Rename]) -> Check:
    changes = [(one.column, renamer(one.pairs, loosely=True)) for one in renames]

    def renamed(value: JSON, text: str) -> dict[str, JSON]:
        if isinstance(value, dict):
            for column, new in changes:
                if column in value:
                    value = {**value, column: new(value[column])}
        return check(value, text)

    return renamed


def rename_answer(answer: Answer, renames: Sequence[Rename]) -> Answer:
    """The answer as if its labels had been given under the names of today: for a copy, which is another record's."""
    return replace(answer, calls=tuple(_call(call, renames) for call in answer.calls)) if renames else answer


def _call(call: ToolCall, renames: Sequence[Rename]) -> ToolCall:
    try:
        value = codec.loads_digits(call.arguments)
    except codec.JSONDecodeError:
        return call
    if not isinstance(value, dict):
        return call
    for one in renames:
        if one.column in value:
            value = {**value, one.column: renamer(one.pairs, loosely=True)(value[one.column])}
    return replace(call, arguments=codec.dumps(value).decode())
