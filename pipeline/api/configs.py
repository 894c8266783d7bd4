"""The config that a function is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from pipeline.errors import SetupError
from pipeline.settings import Settings
from pipeline.targets import load_settings

#: The settings, or the path of a config.
Config: TypeAlias = Settings | str | Path


def settings_of(config: Config) -> Settings:
    """The settings. Raises SetupError."""
    if isinstance(config, Settings):
        return config
    if isinstance(config, Mapping):
        raise SetupError("the config is a dict; expected the path of one, or Settings: Settings.model_validate(config)")
    return load_settings(config)
