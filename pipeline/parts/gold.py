"""A gold file as a source: read as an input is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, InputError
from pipeline.parts.inputs import resolve_inputs
from pipeline.parts.tables import delimiter_of
from pipeline.readers import Source
from pipeline.settings import InputSettings, Settings


def gold_source(path: str, sets: Sequence[str] = (), keys: Sequence[str] = ()) -> Source:
    """A gold file, of any format that an input may have. Raises SetupError.

    `sets` say how it is read, by keys of [input]: `input.encoding=cp1252`. `keys` are columns, one of which it has:
    where its first line names one, that line is the header, and tells what separates the columns.
    """
    try:
        found = resolve_inputs(path, _reading_as(path, sets, _header_of(path, keys)), Path(), None, secret=False)
    except InputError as error:
        raise InputError(str(error).replace("input.path", "gold")) from error
    if len(found) != 1:
        raise InputError(f"gold: {path} names {len(found)} files; expected one")
    return found[0]


def _header_of(path: str, keys: Sequence[str]) -> dict[str, Any]:
    file = Path(path)
    if not file.is_file():
        return {}
    try:
        found = next(filter(None, (delimiter_of(file, key) for key in keys)), None)
    except OSError:  # told when it is read
        return {}
    return {} if found is None else {"delimiter": found, "header": True, "skip_lines": 0, "skip_initial_space": True}


def _reading_as(path: str, sets: Sequence[str], seen: Mapping[str, Any]) -> InputSettings:
    """How a file is read that the config does not name: only what is said here, nothing of the run's own input."""
    said: dict[str, Any] = {"path": path, **seen}
    if sets:
        stub: dict[str, Any] = {"task": {"prompt": "-", "labels": {"label": ["a", "b"]}}, "model": {"name": "-"}}
        settings = Settings.load(None, sets, input={"path": path}, **stub)
        named = [key for key, origin in settings.origins().items() if origin.kind == "--set"]
        for key in named:
            if not key.startswith("input.") or key == "input.path":
                raise ConfigError(f"--set {key}: only keys that say how the file is read, like input.encoding")
        said |= {name: getattr(settings.input, name) for name in (key.removeprefix("input.") for key in named)}
    return InputSettings(**said)
