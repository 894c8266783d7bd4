"""Checks settings for what `run` refuses: `run` before it opens anything, `plan` before it pays for a pilot, and
`check`, which reports all errors at once."""

from collections.abc import Callable

from pipeline.errors import SetupError, TaskError
from pipeline.notify import Notifier
from pipeline.parts.card import refuse_schema
from pipeline.parts.limits import admission_of, budget_of
from pipeline.parts.outputs import notify_targets
from pipeline.parts.selection import filter_of
from pipeline.parts.server import refuse_parameters
from pipeline.settings import Settings
from pipeline.task import Task

SAME_PROMPT = "task.prompt names no field, so it asks the same of each record: write one into it, like {{ text }}"


#: The rules, by the name that `check` uses. Each raises SetupError.
_RULES: dict[str, Callable[[Settings], object]] = {
    "where": lambda settings: filter_of(settings.input),
    "limits": admission_of,
    "budget": lambda settings: budget_of(settings, spent_usd=0.0, spent_tokens=0),
    "notify": lambda settings: Notifier(*notify_targets(settings)),
    "parameters": refuse_parameters,
    "schema": refuse_schema,
}


def settings_errors(settings: Settings) -> dict[str, str]:
    """Return why a run cannot start with these settings, by rule; empty if it can."""
    errors: dict[str, str] = {}
    for name, rule in _RULES.items():
        try:
            rule(settings)
        except SetupError as error:
            errors[name] = str(error)
    return errors


def validate_settings(settings: Settings) -> None:
    """Raise SetupError for the first reason why a run cannot start."""
    for rule in _RULES.values():
        rule(settings)


def validate_prompt(task: Task) -> None:
    """Raise TaskError if every record would get, and pay for, the same prompt."""
    if task.is_constant:
        raise TaskError(SAME_PROMPT)
