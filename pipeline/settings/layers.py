"""Merges the sources of the settings: the last source that names a key wins.

default < file < .env < environment < --set < Python's own arguments
"""

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

from pipeline.errors import Mistake
from pipeline.settings.commandline import holds_secret
from pipeline.settings.schema import field_of, is_secret, kinds_at, section_at
from pipeline.settings.texts import REDACTED, dotted, kind_of, one_line, parse_value, redact
from pipeline.settings.tomltext import Keys, pair_of

PREFIX = "labelpipe_"
Root: TypeAlias = type[BaseSettings]


class Kind(enum.StrEnum):
    """The kind of source that a value came from."""

    #: Nobody set the value.
    DEFAULT = "default"
    #: The config file.
    FILE = "file"
    #: A .env file beside the config or in the current directory.
    DOTENV = ".env"
    #: A variable of the process.
    ENVIRONMENT = "environment"
    #: The command line.
    SET = "--set"
    #: An argument of `Settings` or `Settings.load`.
    PYTHON = "Python"


@dataclass(frozen=True, slots=True)
class ValueOrigin:
    """Where a value came from. `source` is the file, or what set it. Messages about mistakes add `detail`."""

    kind: Kind
    source: str
    line: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"

    def mistake(self, key: str, text: str) -> Mistake:
        """Create a mistake at this source."""
        return Mistake(f"{self.source}{self.detail}", self.line, key, text)


DEFAULT = ValueOrigin(Kind.DEFAULT, "default")
PYTHON = ValueOrigin(Kind.PYTHON, "Settings")


@dataclass(slots=True)
class MergedConfig:
    """The merged values, and the origin of each. `overlay` adds to it until the settings are built."""

    root: Root
    config_path: Path | None = None
    lines: Mapping[Keys, int] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Keys, ValueOrigin] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def overlay(self, path: Keys, value: Any, origin_of: Callable[[Keys], ValueOrigin]) -> None:
        """Put a value over the current ones. Tables of the config merge key by key; free tables are replaced."""
        value = _plain(value)
        if isinstance(value, dict) and section_at(self.root, path):
            for name, item in value.items():
                self.overlay((*path, name), item, origin_of)
        elif self._put(path, value):
            # An entry of a free table has one origin, the last, however deep in it the value was set.
            found = field_of(self.root, path)
            path = path[: len(found[0]) + 1] if found else path
            self._forget(path)
            self.origins[path] = origin_of(path)
            for name in value if isinstance(value, dict) else ():
                self.origins[(*path, name)] = origin_of((*path, name))
        elif reason := self._blocked_message(path):
            self.mistakes.append(origin_of(path).mistake(dotted(path), reason))

    def origin(self, path: Keys) -> ValueOrigin | None:
        """Return where the value, or the table that holds it, came from; None for a default."""
        lengths = range(len(path), 0, -1)
        return next((self.origins[path[:length]] for length in lengths if path[:length] in self.origins), None)

    def value(self, path: Keys) -> Any:
        """Return the value that was given for the key."""
        found: Any = self.values
        for name in path:
            if isinstance(name, int):
                found = found[name] if isinstance(found, list) and name < len(found) else None
            else:
                found = found.get(name) if isinstance(found, dict) else None
        return found

    def _put(self, path: Keys, value: Any) -> bool:
        table: Any = self.values
        for name in path[:-1]:
            if table.get(name) is None:
                table[name] = {}
            table = table[name]
            if not isinstance(table, dict):
                return False  # `limits = 5` below: that is the mistake, and it is told
        table[path[-1]] = value
        return True

    def _blocked_message(self, path: Keys) -> str:
        """Explain why the key cannot be set: the value above it is not a table, which alone is not a mistake."""
        for length in range(1, len(path)):
            value = self.value(path[:length])
            if value is not None and not isinstance(value, dict):
                is_told = section_at(self.root, path[:length]) is not None
                return "" if is_told else f"cannot be set: {dotted(path[:length])} is a {kind_of(value)}, not a table"
        return ""

    def _forget(self, path: Keys) -> None:
        for known in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[known]


def _plain(value: Any) -> Any:
    """Convert models and mappings to dicts of the values that were set. The caller's own objects never change."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, Mapping) else value


def overlay_environment(merged: MergedConfig) -> None:
    """Add the variables of the process."""
    for path, name, text in _variables(merged.root, EnvSettingsSource(merged.root, case_sensitive=False)):
        origin = ValueOrigin(Kind.ENVIRONMENT, f"environment {name}")
        overlay_text(merged, path, text, origin)


def overlay_dotenv(merged: MergedConfig) -> None:
    """Add the LABELPIPE_ variables of .env files. The current directory's file wins over the config folder's."""
    for file in reversed(dotenv_files(merged.config_path)):
        try:
            source = DotEnvSettingsSource(merged.root, env_file=file, case_sensitive=False)
        except (OSError, UnicodeError) as error:
            merged.mistakes.append(Mistake(str(file), None, "", f"cannot be read: {_reason(error)}"))
            continue
        for path, name, text in _variables(merged.root, source):
            overlay_text(merged, path, text, ValueOrigin(Kind.DOTENV, str(file), detail=f" {name}"))


def dotenv_files(config_path: Path | None) -> list[Path]:
    """Return the .env files that exist, the strongest first."""
    files = [Path(".env")]
    if config_path and (beside := config_path.parent / ".env").resolve() != files[0].resolve():
        files.append(beside)
    return [file for file in files if file.is_file()]


def _reason(error: OSError | UnicodeError) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeError) else error.strerror or type(error).__name__


def _variables(root: Root, source: EnvSettingsSource) -> Iterator[tuple[Keys, str, str]]:
    """Yield key, name, and text of each of labelpipe's variables, tables before the keys within them."""
    found = []
    for name, text in source.env_vars.items():
        path = tuple(name.removeprefix(PREFIX).split("__"))
        if name.startswith(PREFIX) and path[0] in root.model_fields and text is not None:
            found.append((path, name.upper(), text))
    return iter(sorted(found, key=lambda one: (len(one[0]), one)))


def overlay_overrides(
    merged: MergedConfig, overrides: Mapping[str, Any] | Sequence[str], set_by: str = "--set"
) -> None:
    """Add the values of --set, or of an order to a run: `key=value` texts, or values by key."""
    if isinstance(overrides, Mapping):
        for name, value in overrides.items():
            _overlay_one(merged, name, _key(name), value, set_by)
        return
    for text in overrides:
        pair = pair_of(text)
        _overlay_one(merged, text, pair and pair[0], pair and pair[1], set_by)


def _overlay_one(merged: MergedConfig, given: str, path: Keys | None, value: Any, set_by: str) -> None:
    if not path:
        key_text = one_line(redact(given.partition("=")[0]))
        text = "expected key=value with a dotted key, like limits.concurrency=8"
        merged.mistakes.append(Mistake(f"{set_by} {key_text}", None, "", text))
        return
    value_text = REDACTED if holds_secret(path, value) else one_line(redact(str(value)))
    origin = ValueOrigin(Kind.SET, set_by, detail=f" {dotted(path)}={value_text}")
    if value == REDACTED and is_secret(path):
        merged.mistakes.append(origin.mistake("", "*** stands for a secret that was not shown; give its value"))
        return
    if isinstance(value, str):
        overlay_text(merged, path, value, origin)
    else:
        merged.overlay(path, value, lambda _: origin)


def _key(text: str) -> Keys | None:
    pair = pair_of(f"{text}=")
    return pair and pair[0]


def overlay_text(merged: MergedConfig, path: Keys, text: str, origin: ValueOrigin) -> None:
    """Add a value that was given as text."""
    merged.overlay(path, parse_value(text, kinds_at(merged.root, path)), lambda _: origin)
