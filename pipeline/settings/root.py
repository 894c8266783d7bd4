"""The settings of a run: merged from every source and validated."""

from __future__ import annotations

import glob
import os
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline import codec, globs
from pipeline.errors import ConfigError, Mistake
from pipeline.records import JSON
from pipeline.settings import checks, mistakes
from pipeline.settings.commandline import replayable_overrides
from pipeline.settings.fields import (
    LimitsSettings,
    ModelSettings,
    NotifySettings,
    RehearsalSettings,
    TelemetrySettings,
)
from pipeline.settings.inputs import InputSettings
from pipeline.settings.lanes import BatchSettings, FlexSettings, ScaleSettings
from pipeline.settings.layers import (
    DEFAULT,
    PYTHON,
    Kind,
    MergedConfig,
    ValueOrigin,
    dotenv_files,
    overlay_dotenv,
    overlay_environment,
    overlay_overrides,
)
from pipeline.settings.outputs import OutputSettings
from pipeline.settings.quality import QualitySettings
from pipeline.settings.schema import is_secret, keys
from pipeline.settings.tasks import TaskSettings
from pipeline.settings.texts import as_toml, dotted, kind_of
from pipeline.settings.tomltext import Keys, key_lines, line_of


class Settings(BaseSettings):
    """All settings of a run. They are frozen and contain no secrets.

    `Settings(input={...}, ...)` takes nested dicts, over the environment and .env; it reads no config file.
    Raises ConfigError with every mistake at once.
    """

    model_config = SettingsConfigDict(
        env_prefix="LABELPIPE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    input: InputSettings
    task: TaskSettings
    model: ModelSettings
    limits: LimitsSettings
    batch: BatchSettings
    flex: FlexSettings
    scale: ScaleSettings
    quality: QualitySettings
    output: OutputSettings
    notify: NotifySettings
    telemetry: TelemetrySettings
    rehearsal: RehearsalSettings

    _loaded: tuple[Mapping[str, Any] | Sequence[str], Mapping[str, Any]] = PrivateAttr(((), {}))
    _config_path: Path | None = PrivateAttr(None)
    _origins: dict[Keys, ValueOrigin] = PrivateAttr(default_factory=dict)
    _merged: MergedConfig = PrivateAttr()
    _no_input: tuple[Mistake, ...] = PrivateAttr(())

    def __init__(self, *, _merged_config: MergedConfig | None = None, **values: Any) -> None:
        merged = _merged_config or _merge_layers(type(self), None, (), values)
        # Only known tables: BaseSettings takes names such as `_cli_parse_args` as its own options.
        tables: dict[str, Any] = {name: merged.values.get(name, {}) for name in type(self).model_fields}
        merged.mistakes += [mistakes.unknown(merged, (name,)) for name in merged.values if name not in tables]
        no_input = _no_input(merged)
        try:
            super().__init__(**tables)
        except ValidationError as error:
            # `from None`: pydantic's message repeats values, and one of them may be a secret.
            merged.mistakes = [*no_input, *merged.mistakes]
            raise ConfigError(mistakes=mistakes.mistakes_of(error, merged)) from None
        if merged.mistakes:
            raise ConfigError(mistakes=mistakes.in_order([*no_input, *merged.mistakes]))
        self._no_input = no_input
        self._config_path = merged.config_path
        self._origins = merged.origins
        self._merged = merged

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        overrides: Mapping[str, Any] | Sequence[str] = (),
        **direct: Any,
    ) -> Settings:
        """Load the settings of a config file, and merge all other sources over them.

        `overrides` are `["limits.concurrency=8"]` or `{"limits.concurrency": 8}`, keywords are nested dicts.
        Keywords win over overrides, those over the environment, that over .env, that over the file.
        """
        settings = cls(_merged_config=_merge_layers(cls, Path(path) if path is not None else None, overrides, direct))
        settings._loaded = (overrides, direct)
        return settings

    def again(self, live: Sequence[str] = ()) -> Settings:
        """Load the settings again from their file and the other sources, with `live` over them like `--set`."""
        overrides, direct = self._loaded
        given = {key: dict(table) for key, table in direct.items()}
        for order in live:
            table, _, key = order.partition("=")[0].strip().partition(".")
            given.get(table, {}).pop(key, None)
        if isinstance(overrides, Mapping):
            orders = (order.partition("=") for order in live)
            merged = {**overrides, **{key.strip(): value for key, _, value in orders}}
            return type(self).load(self._config_path, merged, **given)
        return type(self).load(self._config_path, [*overrides, *live], **given)

    def ordered(self, orders: Sequence[str]) -> Settings:
        """Return these settings with orders such as `limits.concurrency=8` merged over all else. Reads no file."""
        merged = replace(
            self._merged, values=deepcopy(self._merged.values), origins=dict(self._merged.origins), mistakes=[]
        )
        overlay_overrides(merged, orders, "set")
        settings = type(self)(_merged_config=merged)
        settings._loaded = self._loaded
        return settings

    def overrides(self) -> tuple[list[str], list[str]]:
        """Return the overrides of the config file as for `--set`, without secrets, and the keys that are left out."""
        return replayable_overrides(type(self), *self._loaded)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only what `layers` has merged: the stock sources do not keep where a value came from."""
        return (init_settings,)

    @property
    def config_path(self) -> Path | None:
        """The config file, as the user named it."""
        return self._config_path

    def origins(self) -> dict[str, ValueOrigin]:
        """Return where each value that is not a default came from, by dotted key."""
        return {dotted(path): origin for path, origin in self._origins.items() if origin != DEFAULT}

    def find(self, path: str) -> Path:
        """Resolve a path of the config from the current directory or, if it is not there, from the config's folder."""
        plain = Path(path).expanduser() if path.startswith("~/") else Path(path)
        if not self._config_path or plain.is_absolute() or plain.exists():
            return plain
        beside = self._config_path.parent / plain
        return beside if beside.exists() else plain

    def need_input(self) -> None:
        """Raise ConfigError if no input is named. Only a program that supplies the records needs none."""
        if self._no_input:
            raise ConfigError(mistakes=self._no_input)

    def inputs(self) -> list[str]:
        """Return `input.path` as a list, each entry resolved by `find`, but for globs, addresses, and `-`."""
        paths = self.input.path
        return [self._input(path) for path in ([paths] if isinstance(paths, str) else paths or [])]

    def hidden_address(self) -> str | None:
        """Return the secret address in the variable `input.url_env`; None without that key. Raises ConfigError."""
        name = self.input.url_env
        if name is None:
            return None
        found = variable(name, self._config_path)
        text = f"{name} is not set: put {name}=... into the environment or .env"
        if found is not None:
            if checks.is_address(address := found[0].get_secret_value()):
                return self._input(address)
            # The value is not repeated: even if it is not an address, it may be a password.
            text = (
                f"{name} does not hold an address such as postgresql://user:password@host/name or https://host/file. "
                "Its value is not shown. A path without a secret goes into input.path"
            )
        path = ("input", "url_env")
        raise ConfigError(mistakes=(self._origins.get(path, PYTHON).mistake(dotted(path), text),))

    def _input(self, path: str) -> str:
        scheme, sign, place = path.partition("://")
        if sign:
            # A SQLite file is resolved like any other. The third slash is part of the address.
            rest, separator, options = place.removeprefix("/").partition("?")
            local = scheme.startswith("sqlite") and place.startswith("/") and not rest.startswith((":", "file:"))
            return f"{scheme}:///{self.find(rest)}{separator}{options}" if local and rest else path
        if path == "-" or (found := self.find(path)).exists():
            return path if path == "-" else str(found)
        if self._config_path and glob.has_magic(path) and not _matches(path):
            beside = os.path.join(glob.escape(str(self._config_path.parent)), path)  # noqa: PTH118 - a glob is no Path
            return beside if _matches(beside) else path
        return str(found)

    def json_schema(self, given: Mapping[str, Any] | str, key: Keys) -> dict[str, JSON]:
        """Return the JSON Schema under `key`, read from its file if it names one. Raises ConfigError."""
        if not isinstance(given, str):
            return dict(given)
        reason = f"{as_toml(given)} "
        try:
            schema = codec.loads(self.find(given).read_bytes())
        except OSError as error:
            reason += f"cannot be read: {error.strerror}"
        except codec.JSONDecodeError as error:
            reason += f"is not JSON: {error}"
        else:
            if isinstance(schema, dict):
                return schema
            reason += f"holds a {kind_of(schema)}; expected a JSON Schema, which is a table"
        origin = next(self._origins[key[:length]] for length in range(len(key), 0, -1) if key[:length] in self._origins)
        raise ConfigError(mistakes=(origin.mistake(dotted(key), reason),))

    def api_key(self) -> SecretStr | None:
        """Return the API key from the environment, else from .env; None if neither has it."""
        found = self._api_key()
        return found[0] if found else None

    def _api_key(self) -> tuple[SecretStr, str] | None:
        return variable(self.model.api_key_env, self._config_path)

    def secret_variables(self) -> frozenset[str]:
        """Return the environment variables that hold secrets of this run. No other program gets them."""
        sql = self.output.sql
        named = {self.model.api_key_env, self.input.url_env, None if sql is None else sql.url_env}
        secret = tuple(key.variable for key in keys(type(self)) if is_secret(key.path))
        return frozenset(name for name in os.environ if name in named or name.upper().startswith(secret))

    def sql_url(self) -> SecretStr | None:
        """Return the URL of `output.sql`: its own, else that of its variable; None if neither is set."""
        if self.output.sql is None:
            return None
        if self.output.sql.url is not None:
            return self.output.sql.url
        found = variable(self.output.sql.url_env, self._config_path)
        return found[0] if found else None


def variable(name: str, config_path: Path | None = None) -> tuple[SecretStr, str] | None:
    """Return a secret from the environment, else from .env, and where it was; None if neither has it."""
    if value := os.environ.get(name):
        return SecretStr(value), f"environment {name}"
    for file in dotenv_files(config_path):
        if value := DotEnvSettingsSource(Settings, env_file=file, case_sensitive=True).env_vars.get(name):
            return SecretStr(value), str(file)
    return None


def _no_input(merged: MergedConfig) -> tuple[Mistake, ...]:
    """Return the mistake of a config without an input. It is reported with the others, or when input is needed."""
    given = merged.values.get("input", {})
    named = not isinstance(given, dict) or any(given.get(name) is not None for name in ("path", "url_env"))
    return () if named else (mistakes.missing(merged, ("input", "path")),)


def _matches(pattern: str) -> bool:
    return next(globs.matching(pattern), None) is not None


def _merge_layers(
    root: type[Settings], path: Path | None, overrides: Mapping[str, Any] | Sequence[str], direct: Mapping[str, Any]
) -> MergedConfig:
    merged = MergedConfig(root, path)
    if path is not None:
        merged.overlay(("output", "dir"), f"runs/{path.stem}", lambda _: DEFAULT)
        _overlay_file(merged, path)
    overlay_dotenv(merged)
    overlay_environment(merged)
    overlay_overrides(merged, overrides)
    merged.overlay((), direct, lambda _: PYTHON)
    return merged


def _overlay_file(merged: MergedConfig, path: Path) -> None:
    text = _read(path)
    try:
        table = tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(mistakes=(mistakes.not_toml(path, text, error),)) from None
    merged.lines = key_lines(text)
    merged.overlay((), table, lambda keys: ValueOrigin(Kind.FILE, str(path), line_of(merged.lines, keys)))


def _read(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(mistakes=(mistakes.no_file(path),))
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: {error.reason} at byte {error.start}"
    raise ConfigError(mistakes=(Mistake(str(path), None, "", reason),))
