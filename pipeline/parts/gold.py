"""A gold file as a source: read as an input is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, InputError
from pipeline.parts.inputs import resolved
from pipeline.readers import Source
from pipeline.settings import InputSettings, Settings


def gold_source(path: str, sets: Sequence[str] = ()) -> Source:
    """A gold file, of any format that an input may have. Raises SetupError.

    `sets` say how it is read, by keys of [input]: `input.encoding=cp1252`.
    """
    try:
        found = resolved(path, _reading_as(path, sets), Path(), None, secret=False)
    except InputError as error:
        raise InputError(str(error).replace("input.path", "gold")) from error
    if len(found) != 1:
        raise InputError(f"gold: {path} names {len(found)} files; expected one")
    return found[0]


def _reading_as(path: str, sets: Sequence[str]) -> InputSettings:
    """How a file is read that the config does not name: only what is said here, nothing of the run's own input."""
    said: dict[str, Any] = {"path": path}
    if sets:
        stub: dict[str, Any] = {"task": {"prompt": "-", "labels": {"label": ["a", "b"]}}, "model": {"name": "-"}}
        settings = Settings.load(None, sets, input={"path": path}, **stub)
        named = [key for key, origin in settings.origins().items() if origin.kind == "--set"]
        for key in named:
            if not key.startswith("input.") or key == "input.path":
                raise ConfigError(f"--set {key}: only keys that say how the file is read, like input.encoding")
        said |= {name: getattr(settings.input, name) for name in (key.removeprefix("input.") for key in named)}
    return InputSettings(**said)
