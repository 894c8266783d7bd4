"""The tables of the config and what each key takes.

A description is the key's line in docs/config.md. Types are strict: text is not read as a number, nor 64.0 as 64.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
)

from pipeline.settings import checks
from pipeline.settings.checks import Takes
from pipeline.settings.section import Json, Section, Text

Secret = Annotated[SecretStr, Takes("text")]
Share = Annotated[float, Field(ge=0, le=1), Takes("a number from 0 to 1")]


def _both() -> list[Literal["end", "attention"]]:
    return ["end", "attention"]


class PriceSettings(Section):
    """What a million tokens cost, in US dollars."""

    input: float = Field(
        ge=0,
        description="US dollars per million prompt tokens. Set the price of a model that the price list does not have.",
    )
    output: float = Field(ge=0, description="US dollars per million completion tokens.")
    cached_input: float | None = Field(
        None, ge=0, description="US dollars per million cached prompt tokens. Unset: the same as `input`."
    )
    cache_write: float | None = Field(
        None,
        ge=0,
        description="US dollars per million prompt tokens that are written to the cache. Unset: 1.25 times "
        "`input` from gpt-5.6 on, otherwise the same as `input`.",
    )


class ModelSettings(Section):
    """Who is asked, and how."""

    name: Text = Field(description="The name of the model, as the server knows it.")
    base_url: (
        Annotated[str, AfterValidator(checks.base_url), Takes('an address that starts with http, or "rehearsal"')]
        | None
    ) = Field(
        None,
        description="The address of any OpenAI-compatible server. Unset: OpenAI's own. `rehearsal` starts the "
        "built-in endpoint, which costs nothing and whose labels are simulated.",
    )
    api: Literal["chat", "responses"] = Field(
        "chat",
        description="The API to call. `chat` (Chat Completions) is what nearly every server has; `responses` is "
        "the newer one of OpenAI and Azure. Parameters keep their Chat Completions names in both. Set "
        "it if `check` says that a model needs it.",
    )
    lane: Literal["live", "batch"] = Field(
        "live",
        description="How calls are made: `live` answers at once; `batch` sends files of requests, which OpenAI answers "
        "within a day at half the price. Set `batch` for runs that can wait.",
    )
    api_key_env: Annotated[str, AfterValidator(checks.variable), Takes("the name of an environment variable")] = Field(
        "OPENAI_API_KEY",
        description="The variable, in the environment or in .env, that holds the API key. Set it for other providers.",
    )
    tool_choice: Literal["forced", "required", "auto"] | None = Field(
        None,
        description="`forced` names the function, `required` requires any call, `auto` leaves it to the model. "
        "Unset: `forced` for OpenAI and Azure, `required` for other servers, some of which treat a "
        "name as `auto`. Set it if a server answers without calls.",
    )
    strict: bool = Field(
        True,
        description="Ask the server to enforce the schema (strict mode). Turn it off for schemas or servers that "
        "do not support it.",
    )
    timeout_s: float = Field(60, gt=0, description="Seconds that one call may take. Raise it for slow models.")
    parameters: Annotated[dict[str, Json], BeforeValidator(checks.as_plain), Takes("a table of what is sent along")] = (
        Field(
            default_factory=dict,
            description="Sent with each call as they are: temperature, reasoning_effort, max_completion_tokens, seed, "
            "service_tier, and so on. Parameters that you do not set are not sent.",
        )
    )
    headers: Annotated[dict[str, Secret], AfterValidator(checks.headers), Takes("a table of texts")] = Field(
        default_factory=dict,
        description="HTTP headers of each call, for gateways that need them. Their values are never shown.",
    )
    prompt_cache_key: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = Field(
        None,
        description='Names the constant part of the prompt to the server\'s cache; `"auto"` makes a name from the '
        "task. Unset: `auto` for OpenAI's own API, nothing for others. Set it if several runs share a "
        "prompt.",
    )
    cache_breakpoint: bool = Field(
        False,
        description="Mark the end of the constant part of the prompt, so that only this part is written to the "
        "cache. For gpt-5.6 and later on OpenAI's own API. It is off because it was not tested "
        "against the real service.",
    )
    price: PriceSettings | None = Field(None, description="What the model costs, where the price list does not know.")

    def plain_headers(self) -> dict[str, str]:
        """The headers with their values uncovered, for the client."""
        return {name: value.get_secret_value() for name, value in self.headers.items()}

    @field_validator("parameters")
    @classmethod
    def _parameters(cls, value: dict[str, Any]) -> dict[str, Any]:
        checks.parameters(value, cls.model_fields)
        return value


class LimitsSettings(Section):
    """How fast, and how often again."""

    concurrency: Annotated[
        Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"],
        Takes('a whole number from 1 to 10000, or "auto"'),
    ] = Field(
        64,
        description="The most calls in flight at once. `auto` finds what the server can take; use it for servers "
        "of your own.",
    )
    concurrency_max: int = Field(
        512,
        ge=1,
        le=10_000,
        description="The most calls in flight that `auto` tries. Raise it for a large fleet of servers.",
    )
    requests_per_minute: int | None = Field(
        None, ge=1, description="The most calls per minute. Set it to the limit of your tier. Unset: no such limit."
    )
    requests_per_day: int | None = Field(
        None,
        ge=1,
        description="The most calls per day, over all sessions of the folder. Set it if your tier has such a limit.",
    )
    tokens_per_minute: int | None = Field(
        None, ge=1, description="The most tokens per minute, prompt and answer. Set it to the limit of your tier."
    )
    budget_usd: float | None = Field(
        None,
        gt=0,
        description="What the run may cost in US dollars, over all of its sessions. It is never exceeded. Set it "
        "before every large run.",
    )
    budget_tokens: int | None = Field(
        None,
        ge=1,
        description="The most tokens that the run may use, prompt and answer. Set it if the price is unknown.",
    )
    stop_at: Annotated[str, AfterValidator(checks.time_of_day), Takes('a time like "07:00"')] | None = Field(
        None,
        description="The local time at which the run stops and can be resumed. Set it if others need the key in "
        "the morning.",
    )
    run_between: Annotated[
        Annotated[list[str], Field(min_length=2, max_length=2)] | None,
        BeforeValidator(checks.as_plain),
        AfterValidator(checks.hours),
        Takes('two times like ["22:00", "07:00"]'),
    ] = Field(
        None,
        description="The local hours in which calls may leave. Outside them the run waits. Set it to use quiet or "
        "cheap hours.",
    )
    max_attempts: int = Field(
        6,
        ge=1,
        description="The most calls for failures of one record. An outage does not count. Raise it for unreliable "
        "servers.",
    )
    max_repairs: int = Field(
        2,
        ge=0,
        description="How often an invalid answer is requested again with its fault shown. Lower it to save money, "
        "raise it for weak models.",
    )
    stop_rejected: float = Field(
        1.0,
        ge=0,
        le=1,
        description="The share of the first 40 records without a label, for one reason, at which the run stops. "
        "Set 0 (never) if your validators refuse nearly everything by design.",
    )
    probe_max_s: float = Field(
        4, gt=0, description="The most seconds between two probes in an outage. Raise it to disturb a server less."
    )
    outage_limit_s: float = Field(
        21_600,
        gt=0,
        description="Seconds of outage, or of refusals alone, after which the run ends and can be resumed. Lower "
        "it if you want to be told earlier.",
    )
    hedge_after_p: float | None = Field(
        None,
        ge=50,
        lt=100,
        description="At the end of a run, ask a second time if an answer takes longer than this percentile of all "
        "answers; the first answer counts. Unset: never. Set it if a few slow calls hold up the end.",
    )
    record_deadline_s: float | None = Field(
        None,
        gt=0,
        description="Seconds that one record may take over all its calls and waits while calls can leave. A "
        "failure after that is its last. Unset: `max_attempts` times `model.timeout_s` (times "
        "`task.max_turns`), plus a minute.",
    )
    grace_s: float = Field(
        30,
        ge=0,
        description="Seconds that the calls in flight have to finish when the run is stopped. Lower it if a "
        "supervisor kills the process earlier.",
    )
    on_day_limit: Literal["wait", "stop"] = Field(
        "wait",
        description="What to do when a day's calls are used up: wait for the next day, or end the run so that it "
        "can be resumed.",
    )


class NotifySettings(Section):
    """Who is told at the end, and when somebody is needed. Failures to tell never touch the run."""

    url: Secret | None = Field(None, description="A webhook that receives JSON by POST, such as one of Slack.")
    command: Secret | None = Field(
        None,
        description="A command to run, without a shell, with the facts as JSON on its stdin. Use it for mail or "
        "for a messenger.",
    )
    on: Annotated[
        list[Literal["end", "attention"]], BeforeValidator(checks.as_plain), AfterValidator(checks.distinct)
    ] = Field(
        default_factory=_both,
        description="When to notify: at the end of the run, and when the run needs somebody.",
    )


class TelemetrySettings(Section):
    """OpenTelemetry, by the extra `otel`. `OTEL_*` variables say where it goes."""

    enabled: bool = Field(
        False,
        description="Send metrics and traces of the calls, but never the contents of a record. Turn it on if you "
        "collect OpenTelemetry data.",
    )


class RehearsalSettings(Section):
    """How the built-in endpoint behaves (`model.base_url = "rehearsal"`)."""

    gold: (
        Annotated[
            Text | dict[str, Text],
            BeforeValidator(checks.as_plain),
            Takes('a field of the record, or such fields by label field, like { label = "gold" }'),
        ]
        | None
    ) = Field(
        None,
        description="The field with the correct label (a text: of the first field of labels). Unset: labels are made "
        "up.",
    )
    accuracy: float = Field(0.9, ge=0, le=1, description="The share of labels that are correct, if gold is known.")
    seed: int = Field(
        0, ge=0, description="The same seed gives the same labels and faults. Change it to see another run."
    )
    latency_ms: float = Field(
        50, ge=0, description="About how many milliseconds an answer takes. Set it to what your model takes."
    )
    requests_per_minute: int | None = Field(
        None,
        ge=1,
        description="The requests per minute that the endpoint allows. Unset: no limit. Set the limit of your tier.",
    )
    tokens_per_minute: int | None = Field(
        None, ge=1, description="The tokens per minute that the endpoint allows. Unset: no limit."
    )
    requests_per_day: int | None = Field(
        None, ge=1, description="The requests per day that the endpoint allows. Unset: no limit."
    )
    faults: Annotated[
        dict[str, Share],
        AfterValidator(checks.faults),
        Takes("shares from 0 to 1 by kind of fault, 1 or less together"),
    ] = Field(
        default_factory=dict,
        description="The share of calls that go wrong, by kind of fault. Set it to see how a run deals with them.",
    )
