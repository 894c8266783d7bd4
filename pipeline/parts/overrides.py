"""Settings with a few values changed: a pilot, a rehearsal, and a trial are runs of their own."""

from collections.abc import Mapping
from typing import Any

from pipeline.settings import Settings


def override_settings(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with these values, by dotted key. None takes a value out.

    With a config file they are laid over it like `--set`, so that they hold when a session reads it again.
    """
    if settings.config_path is not None:
        return settings.again([f"{key}={_text(value)}" for key, value in values.items()])
    tables: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        table, _, name = key.partition(".")
        tables.setdefault(table, {})[name] = value
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=table) for name, table in tables.items()}
    )


def _text(value: Any) -> str:
    """A value as `--set` takes it."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
