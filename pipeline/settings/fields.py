"""The tables of the config and what each key takes. Their meaning is documented once, in docs/config.md.

Types are strict: text is not a number, and 64.0 is not a whole number.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.records import FLEX, SERVICE_TIER
from pipeline.settings import checks
from pipeline.settings.checks import Takes
from pipeline.settings.section import Json, Section, Text

Secret = Annotated[SecretStr, Takes("text")]
Share = Annotated[float, Field(ge=0, le=1), Takes("a number from 0 to 1")]

#: Seconds that a call at the flex tier may take (OpenAI's guide to flex processing: 10 minutes are too short).
FLEX_TIMEOUT_S = 900


def _both() -> list[Literal["end", "attention"]]:
    return ["end", "attention"]


class PriceSettings(Section):
    """The price of a million tokens, in US dollars."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0)
    cache_write: float | None = Field(None, ge=0)


class ModelSettings(Section):
    """The model, and how it is called."""

    name: Text
    base_url: (
        Annotated[str, AfterValidator(checks.base_url), Takes('an address that starts with http, or "rehearsal"')]
        | None
    ) = None
    api: Literal["chat", "responses", "auto"] = "chat"
    auth: Literal["key", "entra"] = "key"
    lane: Literal["live", "flex", "batch", "auto"] = "live"
    api_key_env: Annotated[str, AfterValidator(checks.variable), Takes("the name of an environment variable")] = (
        "OPENAI_API_KEY"
    )
    tool_choice: Literal["forced", "required", "auto", "schema"] | None = None
    strict: bool = True
    timeout_s: float = Field(60, gt=0)
    parameters: Annotated[dict[str, Json], BeforeValidator(checks.as_plain), Takes("a table of what is sent along")] = (
        Field(default_factory=dict)
    )
    headers: Annotated[dict[str, Secret], AfterValidator(checks.headers), Takes("a table of texts")] = Field(
        default_factory=dict
    )
    prompt_cache_key: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    cache_breakpoint: bool | None = None
    price: PriceSettings | None = None

    def plain_headers(self) -> dict[str, str]:
        """Return the headers with their secret values, for the client."""
        return {name: value.get_secret_value() for name, value in self.headers.items()}

    @model_validator(mode="before")
    @classmethod
    def _flex_takes_longer(cls, values: Any) -> Any:
        is_flex = isinstance(values, Mapping) and values.get("lane") == FLEX
        return {"timeout_s": FLEX_TIMEOUT_S, **values} if is_flex else values

    @field_validator("parameters")
    @classmethod
    def _parameters(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        checks.parameters(value, cls.model_fields)
        lane = info.data.get("lane")
        if lane in (FLEX, "auto") and SERVICE_TIER in value:
            advice = f'model.lane = "{lane}" sets it for each call; remove it, or set model.lane = "live"'
            checks.refuse({SERVICE_TIER: advice})
        return value


class LimitsSettings(Section):
    """Rates, budgets, and retries."""

    concurrency: Annotated[
        Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"], Takes('a whole number from 1 to 10000, or "auto"')
    ] = 64
    concurrency_max: int = Field(512, ge=1, le=10_000)
    requests_per_minute: int | None = Field(None, ge=1)
    requests_per_day: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    budget_usd: float | None = Field(None, gt=0)
    budget_tokens: int | None = Field(None, ge=1)
    stop_at: Annotated[str, AfterValidator(checks.time_of_day), Takes('a time like "07:00"')] | None = None
    run_between: Annotated[
        Annotated[list[str], Field(min_length=2, max_length=2)] | None,
        BeforeValidator(checks.as_plain),
        AfterValidator(checks.hours),
        Takes('two times like ["22:00", "07:00"]'),
    ] = None
    max_attempts: int = Field(6, ge=1)
    max_repairs: int = Field(2, ge=0)
    stop_rejected: float = Field(1.0, ge=0, le=1)
    probe_max_s: float = Field(4, gt=0)
    outage_limit_s: float = Field(21_600, gt=0)
    hedge_after_p: float | None = Field(None, ge=50, lt=100)
    grace_s: float = Field(30, ge=0)
    on_day_limit: Literal["wait", "stop"] = "wait"


class NotifySettings(Section):
    """Whom to notify at the end, and when the run needs somebody. A failed notification never affects the run."""

    url: Secret | None = None
    command: Secret | None = None
    on: Annotated[
        list[Literal["end", "attention"]], BeforeValidator(checks.as_plain), AfterValidator(checks.distinct)
    ] = Field(default_factory=_both)


class TelemetrySettings(Section):
    """OpenTelemetry (extra `otel`). The `OTEL_*` variables configure where it sends data."""

    enabled: bool = False


class RehearsalSettings(Section):
    """How the built-in endpoint behaves (`model.base_url = "rehearsal"`)."""

    gold: (
        Annotated[
            Text | dict[str, Text],
            BeforeValidator(checks.as_plain),
            Takes('a field of the record, or such fields by label field, like { label = "gold" }'),
        ]
        | None
    ) = None
    accuracy: float = Field(0.9, ge=0, le=1)
    latency_ms: float = Field(50, ge=0)
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    faults: Annotated[
        dict[str, Share],
        AfterValidator(checks.faults),
        Takes("shares from 0 to 1 by kind of fault, 1 or less together"),
    ] = Field(default_factory=dict)
