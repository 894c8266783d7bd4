"""The settings of a run, from TOML, environment, .env, and --set. Errors name file, line, and key."""

from pipeline.settings.checks import TABLE_WANTED, is_table_name
from pipeline.settings.commandline import redacted_command
from pipeline.settings.fields import (
    FLEX_TIMEOUT_S,
    LimitsSettings,
    ModelSettings,
    NotifySettings,
    PriceSettings,
    RehearsalSettings,
    TelemetrySettings,
)
from pipeline.settings.inputs import InputSettings
from pipeline.settings.labeledit import renamed_config, renamed_example
from pipeline.settings.labelforms import label_field
from pipeline.settings.layers import ValueOrigin
from pipeline.settings.outputs import OutputSettings, SqlOutputSettings
from pipeline.settings.quality import QualitySettings, VoterSettings
from pipeline.settings.root import Settings, variable
from pipeline.settings.rows import Row, explain
from pipeline.settings.schema import Key, keys
from pipeline.settings.tasks import FunctionSettings, MediaSettings, TaskSettings, ToolSettings, ValidatorSettings
from pipeline.settings.toml import to_toml
