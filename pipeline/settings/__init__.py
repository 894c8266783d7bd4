"""What the user may say about a run: TOML, environment, .env, --set; frozen; errors name file, line and key."""

from __future__ import annotations

from pipeline.settings.fields import (
    FunctionSettings,
    InputSettings,
    LimitsSettings,
    ModelSettings,
    NotifySettings,
    OutputSettings,
    PriceSettings,
    RehearsalSettings,
    TaskSettings,
    TelemetrySettings,
)
from pipeline.settings.layers import Origin
from pipeline.settings.root import Settings
from pipeline.settings.rows import Row, explain
from pipeline.settings.schema import Key, keys

__all__ = [
    "FunctionSettings",
    "InputSettings",
    "Key",
    "LimitsSettings",
    "ModelSettings",
    "NotifySettings",
    "Origin",
    "OutputSettings",
    "PriceSettings",
    "RehearsalSettings",
    "Row",
    "Settings",
    "TaskSettings",
    "TelemetrySettings",
    "explain",
    "keys",
]
