"""What `run` refuses by the settings alone: asked by `run` before anything is opened, by `plan` before it pays for a
pilot, and by `check`, which tells all of it at once."""

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


#: What is judged, by the name that `check` gives it. Each raises SetupError.
_RULES: dict[str, Callable[[Settings], object]] = {
    "where": lambda settings: filter_of(settings.input),
    "limits": admission_of,
    "budget": lambda settings: budget_of(settings, spent_usd=0.0, spent_tokens=0),
    "notify": lambda settings: Notifier(*notify_targets(settings)),
    "parameters": refuse_parameters,
    "schema": refuse_schema,
}


def settings_errors(settings: Settings) -> dict[str, str]:
    """Why a run cannot start with these settings, by what is wrong; empty where it can."""
    errors: dict[str, str] = {}
    for name, rule in _RULES.items():
        try:
            rule(settings)
        except SetupError as error:
            errors[name] = str(error)
    return errors


def validate_settings(settings: Settings) -> None:
    """Raises SetupError for the first thing that a run cannot start with."""
    for rule in _RULES.values():
        rule(settings)


def validate_prompt(task: Task) -> None:
    """Raises TaskError where all records would be asked, and paid for, the same."""
    if task.is_constant:
        raise TaskError(SAME_PROMPT)
