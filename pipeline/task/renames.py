"""Reads answers from before labels were renamed: maps their arguments to the current names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pipeline import codec
from pipeline.labelfields import Rename, renamer
from pipeline.records import JSON, Answer, ToolCall
from pipeline.task.schema import Tool


def accept_old_names(tools: Mapping[str, Tool], renames: Sequence[Rename]) -> Mapping[str, Tool]:
    """Return the tools, extended to accept the former names of labels."""
    rename = _renamer(renames)

    def accepting(tool: Tool) -> Tool:
        return replace(tool, check=lambda value, text: tool.check(rename(value), text))

    return {name: accepting(tool) for name, tool in tools.items()}


def rename_answer(answer: Answer, renames: Sequence[Rename]) -> Answer:
    """Return the answer with the current names of its labels. It is for a copy, which belongs to another record."""
    rename = _renamer(renames)

    def renamed(call: ToolCall) -> ToolCall:
        try:
            value = codec.loads_digits(call.arguments)
        except codec.JSONDecodeError:
            return call
        return replace(call, arguments=codec.dumps(rename(value)).decode()) if isinstance(value, dict) else call

    return replace(answer, calls=tuple(map(renamed, answer.calls))) if renames else answer


def _renamer(renames: Sequence[Rename]) -> Callable[[JSON], JSON]:
    changes = [(one.column, renamer(one.pairs, loosely=True)) for one in renames]

    def rename(value: JSON) -> JSON:
        for column, new in changes if isinstance(value, dict) else ():
            if column in value:
                value = {**value, column: new(value[column])}
        return value

    return rename
