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

    input: float = Field(ge=0, description="US dollars for a million prompt tokens.")
    output: float = Field(ge=0, description="US dollars for a million completion tokens.")
    cached_input: float | None = Field(
        None, ge=0, description="US dollars for a million cached prompt tokens; unset: as `input`."
    )
    cache_write: float | None = Field(
        None,
        ge=0,
        description="US dollars for a million prompt tokens that are written to the cache; unset: 1.25 times `input` "
        "from gpt-5.6 on, else as `input`.",
    )


class ModelSettings(Section):
    """Who is asked, and how."""

    name: Text = Field(description="The model's name, as the server knows it.")
    base_url: (
        Annotated[str, AfterValidator(checks.base_url), Takes('an address that starts with http, or "rehearsal"')]
        | None
    ) = Field(
        None,
        description="Any OpenAI-compatible server; unset: OpenAI's own. `rehearsal` starts the built-in endpoint, "
        "which costs nothing and whose labels are simulated.",
    )
    api: Literal["chat", "responses"] = Field(
        "chat",
        description="The API that is called: `chat` (Chat Completions) is what nearly every server has, `responses` is "
        "OpenAI's and Azure's newer one. Parameters keep their Chat Completions names in both.",
    )
    api_key_env: Annotated[str, AfterValidator(checks.variable), Takes("the name of an environment variable")] = Field(
        "OPENAI_API_KEY", description="The variable, of the environment or of .env, that holds the API key."
    )
    tool_choice: Literal["forced", "required", "auto"] | None = Field(
        None,
        description="`forced` names the function, `required` asks for any call, `auto` leaves it to the model. Unset: "
        "`forced` at OpenAI and Azure, `required` at other servers, some of which take a name for `auto`.",
    )
    strict: bool = Field(True, description="Ask the server to hold the arguments to the schema (strict mode).")
    timeout_s: float = Field(60, gt=0, description="Seconds that one call may take.")
    parameters: Annotated[dict[str, Json], BeforeValidator(checks.as_plain), Takes("a table of what is sent along")] = (
        Field(
            default_factory=dict,
            description="Sent with each call as they stand: temperature, reasoning_effort, max_completion_tokens, "
            "seed, service_tier and the like. What is not set is not sent.",
        )
    )
    headers: Annotated[dict[str, Secret], AfterValidator(checks.headers), Takes("a table of texts")] = Field(
        default_factory=dict, description="HTTP headers of each call. Their values are never shown."
    )
    prompt_cache_key: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = Field(
        None,
        description="Names the prompt's constant part to the server's cache; `\"auto\"` makes one from the task. "
        "Unset: auto for OpenAI's own API, nothing for others.",
    )
    cache_breakpoint: bool = Field(
        False,
        description="Mark the end of the prompt's constant part, so that only that part is written to the cache: for "
        "gpt-5.6 and later on OpenAI's own API. Off, since it was not tried against the real service.",
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
    ] = Field(64, description="Calls in flight at once, at most; `auto` finds what the server takes.")
    concurrency_max: int = Field(512, ge=1, le=10_000, description="The most that `auto` goes up to.")
    requests_per_minute: int | None = Field(None, ge=1, description="Calls a minute, at most; unset: no such limit.")
    requests_per_day: int | None = Field(None, ge=1, description="Calls a day, at most, over all runs of the folder.")
    tokens_per_minute: int | None = Field(None, ge=1, description="Tokens a minute, at most, prompt and answer.")
    budget_usd: float | None = Field(
        None, gt=0, description="What the run may cost in US dollars, over all its sessions; never passed."
    )
    budget_tokens: int | None = Field(None, ge=1, description="The same in tokens, prompt and answer.")
    stop_at: Annotated[str, AfterValidator(checks.time_of_day), Takes('a time like "07:00"')] | None = Field(
        None, description="The time of day, local, at which the run stops, resumable."
    )
    run_between: Annotated[
        Annotated[list[str], Field(min_length=2, max_length=2)] | None,
        BeforeValidator(checks.as_plain),
        AfterValidator(checks.hours),
        Takes('two times like ["22:00", "07:00"]'),
    ] = Field(None, description="The hours, local, in which calls may leave; outside it waits.")
    max_attempts: int = Field(6, ge=1, description="Calls for one record's own failures. An outage does not count.")
    max_repairs: int = Field(2, ge=0, description="Times that an invalid answer is asked again with its fault shown.")
    stop_rejected: float = Field(
        1.0,
        ge=0,
        le=1,
        description="The share of the first 40 records without a label, for one reason, at which the run stops; 0: "
        "never.",
    )
    probe_max_s: float = Field(4, gt=0, description="Seconds between two probes in an outage, at most.")
    outage_limit_s: float = Field(
        21_600, gt=0, description="Seconds of outage, or of refusals alone, after which the run ends, resumable."
    )
    hedge_after_p: float | None = Field(
        None,
        ge=50,
        lt=100,
        description="At the end of a run, ask a second time where an answer takes longer than this percentile of all; "
        "the first answer wins. Unset: never.",
    )
    record_deadline_s: float | None = Field(
        None,
        gt=0,
        description="Seconds that one record may take over all its calls and waits while calls can leave; a failure "
        "after that is its last. Unset: `max_attempts` times `model.timeout_s` (times `task.max_turns`), and a minute.",
    )
    grace_s: float = Field(30, ge=0, description="Seconds that calls in flight get to end when the run is stopped.")
    on_day_limit: Literal["wait", "stop"] = Field(
        "wait", description="When a day's calls are used up: wait for the next day, or end the run, resumable."
    )


class NotifySettings(Section):
    """Who is told at the end, and when somebody is needed. Failures to tell never touch the run."""

    url: Secret | None = Field(None, description="A webhook that gets JSON by POST; Slack's take it as it is.")
    command: Secret | None = Field(
        None, description="A command that is run, without a shell, with the facts as JSON on its stdin."
    )
    on: Annotated[
        list[Literal["end", "attention"]], BeforeValidator(checks.as_plain), AfterValidator(checks.distinct)
    ] = Field(
        default_factory=_both,
        description="What is told: the run's end, and what needs somebody meanwhile.",
    )


class TelemetrySettings(Section):
    """OpenTelemetry, by the extra `otel`. `OTEL_*` variables say where it goes."""

    enabled: bool = Field(False, description="Send metrics and traces of the calls; never what is in a record.")


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
        description="The field with the right label (a text: of the first label field); unset: labels are made up.",
    )
    accuracy: float = Field(0.9, ge=0, le=1, description="The share of labels that are right, where gold is known.")
    seed: int = Field(0, ge=0, description="The same seed gives the same labels and faults.")
    latency_ms: float = Field(50, ge=0, description="Milliseconds that an answer takes, about.")
    requests_per_minute: int | None = Field(None, ge=1, description="The limit that the endpoint holds; unset: none.")
    tokens_per_minute: int | None = Field(None, ge=1, description="The limit that the endpoint holds; unset: none.")
    requests_per_day: int | None = Field(None, ge=1, description="The limit that the endpoint holds; unset: none.")
    faults: Annotated[
        dict[str, Share],
        AfterValidator(checks.faults),
        Takes("shares from 0 to 1 by kind of fault, 1 or less together"),
    ] = Field(default_factory=dict, description="The share of calls that go wrong, by kind of fault.")
