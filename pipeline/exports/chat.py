"""Lines for fine-tuning: the conversation as it was sent, and the record's label as the call that answers it.

The form is that of OpenAI's fine-tuning files for function calling: `messages`, whose last one has `tool_calls`, the
`tools`, and `parallel_tool_calls`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import AnswerError, InvalidAnswerError, RenderError, SetupError
from pipeline.parts import task_of
from pipeline.records import JSON, Answer, Outcome, Request, ToolCall
from pipeline.store import RunDir
from pipeline.targets import load_settings
from pipeline.task import Task, row_fields

#: The keys of a line.
TITLES = ("messages", "tools", "parallel_tool_calls")
_CALL = "call_label"


class Chat:
    """Makes the lines of a run's records. Raises SetupError where its task cannot be written in this form.

    `former` counts the records that were asked with another prompt than the present one.
    """

    def __init__(self, run_dir: RunDir, manifest: Mapping[str, Any]) -> None:
        # Settings of a run folder move the process to where the run was started; whoever exports stays where it is.
        with chdir(Path.cwd()):
            settings = load_settings(run_dir.path)
            # A mark for the server's cache is no part of what the model reads.
            model = settings.model.model_copy(update={"cache_breakpoint": False})
            self._task = task_of(settings.model_copy(update={"model": model}))
        self._rows = settings.task.rows
        _refuse_other_prompt(self._task, manifest, settings.config_path)
        _refuse_other_forms(self._task, settings.task.rows, settings.task.call)
        # All state that changes.
        self.former = 0

    def row(self, outcome: Outcome) -> list[JSON] | str:
        """The values of TITLES; or, as a text, why the record has no line."""
        try:
            request = self._task.render(outcome.record)
            name, arguments = self._called(request, outcome)
            call = ToolCall(_CALL, name, codec.dumps(arguments).decode())
            self._task.calls(Answer(calls=(call,)), outcome.record)
        except RenderError:
            return "no_prompt"
        except AnswerError:
            return "invalid_label"
        self.former += request.digest != outcome.request_digest
        function = {"name": name, "arguments": call.arguments}
        answer = {"role": "assistant", "tool_calls": [{"id": _CALL, "type": "function", "function": function}]}
        return [[*request.messages, answer], list(request.tools), False]

    def _called(self, request: Request, outcome: Outcome) -> tuple[str, dict[str, JSON]]:
        """The function, and the label as its arguments in the order of the schema."""
        functions = {tool["function"]["name"]: tool["function"]["parameters"] for tool in request.tools}
        label = outcome.label or {}
        name = str(label.get("tool")) if len(functions) > 1 else next(iter(functions))
        if name not in functions:
            raise InvalidAnswerError(f"there is no function {name!r}")
        before = f"{name}_" if len(functions) > 1 else ""
        schema = functions[name]
        arguments: dict[str, JSON] = {}
        for field in schema.get("properties", {}):
            if field == self._rows:
                arguments[field] = _items(schema, field, outcome)
            elif before + field in label:
                arguments[field] = label[before + field]
        return name, arguments


def _items(schema: dict[str, Any], name: str, outcome: Outcome) -> list[JSON]:
    """The list whose items are the record's rows."""
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
            "it was. Put the config back as it was, or label with the new one first"
        )


def _refuse_other_forms(task: Task, rows: str | None, call: str) -> None:
    why = ""
    if task.max_turns > 1:
        why = "conversations of several turns (task.max_turns)"
    elif task.shows:
        why = f"media ({', '.join(sorted(task.shows))})"
    elif rows == "calls" or call != "one":
        why = "answers of several calls (task.call, task.rows)"
    if why:
        raise SetupError(f"--chat: {why} cannot be written as lines for fine-tuning: leave --chat out")
