"""Writes lines for fine-tuning: the conversation as it was sent, answered by a call with the record's label.

The format is OpenAI's fine-tuning files for function calling: `messages`, whose last one has `tool_calls`, the
`tools`, and `parallel_tool_calls`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import AnswerError, InvalidAnswerError, RenderError, SetupError
from pipeline.parts import task_of
from pipeline.records import JSON, Answer, Outcome, Request, ToolCall
from pipeline.store import RunDir
from pipeline.targets import run_settings
from pipeline.task import ROWS_OF_CALLS, TOOL_COLUMN, Task, row_fields

#: The keys of a line.
TITLES = ("messages", "tools", "parallel_tool_calls")
_CALL = "call_label"


class ChatLines:
    """Creates the lines of a run's records. Raises SetupError if its task cannot be written in this format.

    `former` counts the records that were asked with another prompt than the present one.
    """

    def __init__(self, run_dir: RunDir, manifest: Mapping[str, Any]) -> None:
        with run_settings(run_dir.path) as settings:
            # The marker for the server's cache is not part of what the model reads.
            model = settings.model.model_copy(update={"cache_breakpoint": False})
            self._task = task_of(settings.model_copy(update={"model": model}))
        self._rows, self._several = settings.task.rows, settings.task.call != "one"
        _refuse_other_prompt(self._task, manifest, settings.config_path)
        _refuse_other_forms(self._task)
        # Mutable state: the count of records with a former prompt.
        self.former = 0

    def row(self, outcome: Outcome) -> list[JSON] | str:
        """Return the values of TITLES, or a code for why the record has no line."""
        try:
            request = self._task.render(outcome.record)
            calls = [
                ToolCall(f"{_CALL}_{number}" if number > 1 else _CALL, name, codec.dumps(arguments).decode())
                for number, (name, arguments) in enumerate(self._called(request, outcome), start=1)
            ]
            if not calls:
                return "no_call"
            self._task.parse_calls(Answer(calls=tuple(calls)), outcome.record)
        except RenderError:
            return "no_prompt"
        except AnswerError:
            return "invalid_label"
        self.former += request.digest != outcome.request_digest
        functions = [{"name": call.name, "arguments": call.arguments} for call in calls]
        tool_calls: list[JSON] = [
            {"id": call.id, "type": "function", "function": function}
            for call, function in zip(calls, functions, strict=True)
        ]
        answer = {"role": "assistant", "tool_calls": tool_calls}
        return [[*request.messages, answer], list(request.tools), self._several]

    def _called(self, request: Request, outcome: Outcome) -> Iterator[tuple[str, dict[str, JSON]]]:
        """Yield the functions that were called, each with its part of the label as arguments, in schema order.

        If one function was called several times, the label has the last call, unless each call is a row.
        """
        functions = {tool["function"]["name"]: tool["function"]["parameters"] for tool in request.tools}
        calls = (outcome.rows or ()) if self._rows == ROWS_OF_CALLS else (outcome.label or {},)
        for label in calls:
            for name in self._names(functions, label):
                if name not in functions:
                    raise InvalidAnswerError(f"there is no function {name!r}")
                columns = self._fields(functions, name, label)
                yield (
                    name,
                    {
                        field: _items(functions[name], field, outcome) if field == self._rows else label[column]
                        for field, column in columns.items()
                    },
                )

    def _names(self, functions: Mapping[str, Any], label: Mapping[str, JSON]) -> list[str]:
        """Return the functions that were called, in order; if the label does not show it, those with a field in it."""
        called = label.get(TOOL_COLUMN) if len(functions) > 1 else None
        if called is not None:
            return [str(name) for name in (called if isinstance(called, list) else [called])]
        return [name for name in functions if not self._several or self._fields(functions, name, label)]

    def _fields(self, functions: Mapping[str, Any], name: str, label: Mapping[str, JSON]) -> dict[str, str]:
        """Return the fields of a function that the label has, with their columns."""
        prefix = f"{name}_" if len(functions) > 1 else ""
        columns = {field: prefix + field for field in functions[name].get("properties", {})}
        return {field: column for field, column in columns.items() if field == self._rows or column in label}


def _items(schema: dict[str, Any], name: str, outcome: Outcome) -> list[JSON]:
    """Return the list whose items are the record's rows."""
    fields = row_fields(schema, name)
    if fields == (name,):
        return [row.get(name) for row in outcome.rows or ()]
    return [{field: row[field] for field in fields if field in row} for row in outcome.rows or ()]


def _refuse_other_prompt(task: Task, manifest: Mapping[str, Any], config: Path | None) -> None:
    before = manifest["fingerprint"]
    changed = [
        name for name, now in task.fingerprint.items() if codec.canonical(before.get(name)) != codec.canonical(now)
    ]
    if changed:
        raise SetupError(
            f"--chat: {config} has another {' and '.join(changed)} than the run, so what was sent cannot be written as "
            "it was. Restore the config, or label with the new one first"
        )


def _refuse_other_forms(task: Task) -> None:
    why = ""
    if task.max_turns > 1:
        why = "conversations of several turns (task.max_turns)"
    elif task.media_kinds:
        why = f"media ({', '.join(sorted(task.media_kinds))})"
    if why:
        raise SetupError(f"--chat: {why} cannot be written as lines for fine-tuning: leave --chat out")
