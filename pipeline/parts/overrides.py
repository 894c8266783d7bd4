"""Changes a few values of settings, because a pilot, a rehearsal, and a trial are separate runs."""

from collections.abc import Mapping
from typing import Any

from pipeline.settings import Settings


def override_settings(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return the settings with these values, by dotted key. None removes a value.

    With a config file, they override it like `--set`, so they still apply when a session reads it again.
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
    """Return a value in the form that `--set` takes."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
