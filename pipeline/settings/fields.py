"""The tables of the config and what each key takes.

A description is the key's line in docs/config.md. Types are strict: text is not read as a number, nor 64.0 as 64.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from pipeline.settings import checks
from pipeline.settings.checks import Takes

Text = Annotated[str, StringConstraints(min_length=1), Takes("text that is not empty")]
Path = Annotated[Text, BeforeValidator(checks.as_plain), Takes("the path of a folder")]
Texts = Annotated[list[str], BeforeValidator(checks.as_plain), AfterValidator(checks.distinct)]
Secret = Annotated[SecretStr, Takes("text")]
FunctionName = Annotated[str, AfterValidator(checks.function_name), Takes("a name of 1 to 64 letters, digits, _ and -")]
LabelValues = Annotated[
    list[str | int | float | bool],
    BeforeValidator(checks.as_plain),
    AfterValidator(checks.label_values),
    Takes('a list of values, like ["yes", "no"]'),
]
Json = Annotated[JsonValue, Takes("a value that JSON has too")]
Share = Annotated[float, Field(ge=0, le=1), Takes("a number from 0 to 1")]
Format = Literal["csv", "jsonl", "parquet"]


def _both() -> list[Literal["end", "attention"]]:
    return ["end", "attention"]


def _csv() -> list[Format]:
    return ["csv"]


class Section(BaseModel):
    """A table of the config: frozen, strict, closed to unknown keys."""

    # Errors are told by `mistakes`; pydantic's own would repeat the value, which may be a secret.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class InputSettings(Section):
    """What is labelled."""

    path: Annotated[
        str | list[str],
        BeforeValidator(checks.as_plain),
        AfterValidator(checks.paths),
        Takes('a path, a list of paths, a glob, or "-" for stdin'),
        Field(description="The records: files of one format, plain or compressed. Globs are read in a stable order."),
    ]
    format: Literal["auto", "jsonl", "csv", "tsv", "parquet", "text"] = Field(
        "auto", description="How they are written; `text` is one record a line. `auto` goes by the file's name."
    )
    key: Text | None = Field(
        None, description="The field that names a record. Without it, its place in the input is its name."
    )
    encoding: Annotated[str, AfterValidator(checks.encoding), Takes("the name of an encoding")] = Field(
        "utf-8", description="The encoding of text files. `utf-8` takes a byte order mark too."
    )
    limit: int | None = Field(None, ge=1, description="Take only the first so many records; short: `--limit`.")


class FunctionSettings(Section):
    """A function whose arguments are the label."""

    name: FunctionName = Field(description="The function's name, as the model sees it.")
    description: str | None = Field(None, description="What it is for, as the model sees it.")
    parameters: Annotated[
        dict[str, Json] | Text,
        BeforeValidator(checks.as_plain),
        Takes("a table that is a JSON Schema, or the path of a .json file with one"),
        Field(description="The label's fields: a JSON Schema of an object."),
    ]


class TaskSettings(Section):
    """What is asked about a record. One of `labels`, `function` and `python` says what a label is."""

    name: FunctionName | None = Field(
        None, description="The function's name, as the model sees it; unset: its own, or `set_label`."
    )
    description: str | None = Field(
        None, description="What the function is for, as the model sees it; unset: its own, or made from its fields."
    )
    system: str | None = Field(None, description="The system message: the same for all records.")
    prompt: Text = Field(
        description="The user message: a Jinja2 template. The record's fields are its variables, and "
        '`record["any name"]` is one whose name is no identifier.'
    )
    labels: (
        Annotated[
            dict[str, LabelValues],
            BeforeValidator(checks.as_plain),
            AfterValidator(checks.labels),
            Takes('lists of values by label field, like label = ["yes", "no"]'),
        ]
        | None
    ) = Field(None, description="The short way: a function with one field a key, each with these values only.")
    python: (
        Annotated[str, AfterValidator(checks.place_in_python), Takes('"module:name", like "my_labels:Sentiment"')]
        | None
    ) = Field(None, description="A Pydantic model, or a tool with a schema and a callback, in Python.")
    examples: Annotated[
        list[dict[str, Json]],
        BeforeValidator(checks.as_plain),
        Takes("tables with a record's fields and its `label`"),
    ] = Field(
        default_factory=list,
        description="Worked examples, shown to the model before each record: `[[task.examples]]`.",
    )
    examples_file: Text | None = Field(None, description="A JSONL file with more of them, one object a line.")
    examples_k: int | None = Field(
        None, ge=1, description="Show only the so many examples that are nearest to the record; unset: all, always."
    )
    dedupe: bool = Field(True, description="Ask only once for records whose requests are identical.")
    function: FunctionSettings | None = Field(None, description="The long way: a function with a JSON Schema.")

    @model_validator(mode="after")
    def _one_way(self) -> TaskSettings:
        ways = ["labels", "function", "python"]
        found = [f"task.{way}" for way in ways if getattr(self, way) is not None]
        if len(found) != 1:
            seen = " and ".join(found) or "none of them"
            checks.refuse(f"got {seen}; expected exactly one of task.labels, task.function and task.python")
        return self


class PriceSettings(Section):
    """What a million tokens cost, in US dollars."""

    input: float = Field(ge=0, description="US dollars for a million prompt tokens.")
    output: float = Field(ge=0, description="US dollars for a million completion tokens.")
    cached_input: float | None = Field(
        None, ge=0, description="US dollars for a million cached prompt tokens; unset: as `input`."
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
    api_key_env: Annotated[str, AfterValidator(checks.variable), Takes("the name of an environment variable")] = Field(
        "OPENAI_API_KEY", description="The variable, of the environment or of .env, that holds the API key."
    )
    organization: Text | None = Field(None, description="The organization that is billed, where the key has several.")
    project: Text | None = Field(None, description="The project that is billed, where the key has several.")
    tool_choice: Literal["forced", "required", "auto"] = Field(
        "forced",
        description="`forced` names the function, `required` asks for any call, `auto` leaves it to the model; "
        "for servers that refuse the stricter ones.",
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
    concurrency_min: int = Field(1, ge=1, le=10_000, description="The least that `auto` goes down to.")
    concurrency_max: int = Field(512, ge=1, le=10_000, description="The most that `auto` goes up to.")
    requests_per_minute: int | None = Field(None, ge=1, description="Calls a minute, at most; unset: no such limit.")
    requests_per_day: int | None = Field(None, ge=1, description="Calls a day, at most, over all runs of the folder.")
    tokens_per_minute: int | None = Field(None, ge=1, description="Tokens a minute, at most, prompt and answer.")
    budget_usd: float | None = Field(
        None, gt=0, description="What the run may cost in US dollars, over all its sessions; never passed."
    )
    budget_tokens: int | None = Field(None, ge=1, description="The same in tokens, prompt and answer.")
    stop_at: Annotated[str, Takes('a time like "07:00"')] | None = Field(
        None, description="The time of day, local, at which the run stops, resumable."
    )
    run_between: Annotated[list[str], Takes('two times like ["22:00", "07:00"]')] | None = Field(
        None, min_length=2, max_length=2, description="The hours, local, in which calls may leave; outside it waits."
    )
    max_attempts: int = Field(6, ge=1, description="Calls for one record's own failures. An outage does not count.")
    max_repairs: int = Field(2, ge=0, description="Times that an invalid answer is asked again with its fault shown.")
    probe_max_s: float = Field(4, gt=0, description="Seconds between two probes in an outage, at most.")
    outage_limit_s: float = Field(21_600, gt=0, description="Seconds of outage after which the run ends, resumable.")
    stall_s: float = Field(
        120, gt=0, description="Seconds without any movement after which run.log says what each worker waits for."
    )
    hedge_after_p: float | None = Field(
        None,
        ge=50,
        lt=100,
        description="At the end of a run, ask a second time where an answer takes longer than this percentile of all; "
        "the first answer wins. Unset: never.",
    )
    grace_s: float = Field(30, ge=0, description="Seconds that calls in flight get to end when the run is stopped.")
    on_day_limit: Literal["wait", "stop"] = Field(
        "wait", description="When a day's calls are used up: wait for the next day, or end the run, resumable."
    )


class OutputSettings(Section):
    """Where the labels go."""

    dir: Path = Field(
        "runs/labels", description="The run folder. With a config file, the default is `runs/` and that file's name."
    )
    columns: Annotated[Texts, Takes('a list of fields, like ["id", "text"]')] | None = Field(
        None, description="The input's fields that are carried along, in this order; unset: all of them."
    )
    formats: Annotated[list[Format], BeforeValidator(checks.as_plain), AfterValidator(checks.distinct)] = Field(
        default_factory=_csv,
        min_length=1,
        description="The files that are written: labels.csv and the like.",
    )
    order: Literal["completion", "input"] = Field(
        "completion", description="The order of the rows: as they were answered, or as they were read."
    )
    escape_formulas: bool = Field(
        False,
        description="Put an apostrophe before cells that a spreadsheet would run as a formula. Training data wants "
        "them as they are.",
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

    gold: Text | None = Field(None, description="The field with the right label; unset: labels are made up.")
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
    quota_after: int | None = Field(None, ge=0, description="Answers after which the quota is used up; unset: never.")
