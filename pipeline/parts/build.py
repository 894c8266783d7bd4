"""Settings -> the parts of a run. The only place that knows both."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline import codec
from pipeline.engine import AskRules
from pipeline.errors import ConfigError, TaskError
from pipeline.limits import (
    CANARY_S,
    NOTHING,
    WARM_UP_S,
    Admission,
    Budget,
    DayMeter,
    Gate,
    Hours,
    KeepMark,
    Price,
    Spend,
    Tuner,
    price_of,
)
from pipeline.parts.marks import COLUMN
from pipeline.parts.media import show_options
from pipeline.records import JSON, Request
from pipeline.settings import Settings
from pipeline.task import (
    LEAST_TOKENS,
    FunctionOptions,
    Task,
    TaskOptions,
    ToolOptions,
    ValidatorOptions,
    build_task,
    takes_breakpoint,
)

if TYPE_CHECKING:
    from pipeline.providers import HttpProvider

REHEARSAL = "rehearsal"
#: The most that `limits.concurrency` may be. It can be set in mid-run, so connections are counted by the gate alone.
MOST_IN_FLIGHT = 10_000
#: What writing to the prompt cache costs beside input, from gpt-5.6 on (OpenAI's guide to prompt caching).
CACHE_WRITE_TIMES = 1.25


def task_of(settings: Settings) -> Task:
    """The task that the settings describe. Raises TaskError."""
    options, task = settings.model, settings.task
    made = build_task(
        TaskOptions(
            model=options.name,
            prompt=task.prompt,
            system=task.system,
            labels=task.labels,
            function=_function(settings),
            python=task.python,
            tools=_tools(settings),
            callback=task.callback,
            callback_timeout_s=task.callback_timeout_s,
            call=task.call,
            rows=task.rows,
            max_turns=task.max_turns,
            reply=task.reply,
            validators=[ValidatorOptions(**one.model_dump()) for one in task.validators],
            name=task.name,
            description=task.description,
            tool_choice=options.tool_choice or "forced",
            names_function=names_function(settings),
            strict=options.strict,
            strict_answers=task.strict_answers,
            parameters=options.parameters,
            examples=_examples(settings),
            examples_k=task.examples_k,
            media=show_options(settings),
            prompt_cache_key=options.prompt_cache_key or ("auto" if is_openai(settings) else None),
            cache_breakpoint=_breakpoint(settings),
            base=settings.config_path.parent if settings.config_path else Path(),
        )
    )
    if is_simulated(settings) and COLUMN in made.columns + made.extra_columns:
        raise TaskError(f"the task has a column {COLUMN!r}, which marks the rows of a rehearsal: give it another name")
    return made


def _breakpoint(settings: Settings) -> bool:
    """Whether the constant part's end is marked. Raises ConfigError where OpenAI's own API would refuse the mark."""
    model, wanted = settings.model.name, settings.model.cache_breakpoint
    if wanted and is_openai(settings) and not takes_breakpoint(model):
        raise ConfigError(
            f"model.cache_breakpoint = true, but {model} takes no mark: OpenAI's models do from gpt-5.6 on; take it out"
        )
    return wanted


def _function(settings: Settings) -> FunctionOptions | None:
    function = settings.task.function
    if function is None:
        return None
    parameters = settings.json_schema(function.parameters, ("task", "function", "parameters"))
    return FunctionOptions(name=function.name, parameters=parameters, description=function.description)


def _tools(settings: Settings) -> list[ToolOptions] | None:
    """The tools of [[task.tools]], their schemas read where they are files; None without that table."""
    if settings.task.tools is None:
        return None
    found = []
    for place, one in enumerate(settings.task.tools):
        key = ("task", "tools", place, "parameters")
        schema = None if one.parameters is None else settings.json_schema(one.parameters, key)
        found.append(ToolOptions(one.name, one.description, one.labels, schema, one.python, one.callback))
    return found


def _examples(settings: Settings) -> list[Mapping[str, JSON]]:
    """The config's examples, then those of the file."""
    found: list[Mapping[str, JSON]] = list(settings.task.examples)
    if settings.task.examples_file is None:
        return found
    path = settings.find(settings.task.examples_file)
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError as error:
        raise ConfigError(f"task.examples_file: {path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            found.append(_example(path, number, line))
    return found


def _example(path: Path, number: int, line: bytes) -> Mapping[str, JSON]:
    try:
        example = codec.loads_loosely(line)
    except ValueError as error:  # no JSON, or no UTF-8
        raise ConfigError(f"{path}:{number}: task.examples_file: not JSON: {error}") from error
    if not isinstance(example, dict):
        raise ConfigError(f"{path}:{number}: task.examples_file: expected an object, got {type(example).__name__}")
    return example


def is_openai(settings: Settings) -> bool:
    """Whether OpenAI's own API is called: it takes parameters that other servers may refuse."""
    url = settings.model.base_url
    return url is None or urlsplit(url).hostname == "api.openai.com"


def names_function(settings: Settings) -> bool:
    """Whether a call is forced by the function's name, not by "required".

    With one tool both say the same. Some servers take a name for "auto" in silence or refuse it (llama.cpp, LM Studio),
    so that without a word of the user's it is sent where it is known to be held: at OpenAI and Azure.
    """
    host = urlsplit(settings.model.base_url or "").hostname or ""
    known = is_openai(settings) or is_simulated(settings) or host.endswith(".azure.com")
    return settings.model.tool_choice == "forced" or (settings.model.tool_choice is None and known)


def price_for(settings: Settings) -> Price | None:
    """The config's price, or that of the price list for the service tier asked for; None where neither knows it."""
    given = settings.model.price
    if given is None:
        return price_of(settings.model.name, service_tier=service_tier_of(settings))
    cached = given.input if given.cached_input is None else given.cached_input
    written = given.cache_write
    if written is None and takes_breakpoint(settings.model.name):
        written = CACHE_WRITE_TIMES * given.input
    return Price(given.input, given.output, cached, origin="config", cache_write=written)


def service_tier_of(settings: Settings) -> str | None:
    """The service tier that each call asks for, like "flex"; None where it asks for none."""
    tier = settings.model.parameters.get("service_tier")
    return tier if isinstance(tier, str) else None


def is_simulated(settings: Settings) -> bool:
    """Whether the built-in endpoint answers instead of a model."""
    return settings.model.base_url == REHEARSAL


def admission_of(
    settings: Settings,
    *,
    constant_tokens: int = 0,
    day: DayMeter | None = None,
    budget: Budget | None = None,
    keep_mark: KeepMark | None = None,
) -> Admission:
    """The door with the limits of the settings, and those that need a ledger.

    `constant_tokens` is how long a beginning all prompts share: one that servers keep is worth waiting for.
    """
    limits = settings.limits
    tuner = tuner_of(settings)
    concurrency = tuner.limit if tuner is not None else int(limits.concurrency)
    return Admission(
        gate=Gate(
            concurrency,
            probe_max_s=limits.probe_max_s,
            alone_s=CANARY_S if constant_tokens < LEAST_TOKENS else WARM_UP_S,
        ),
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        stop_at_day_limit=limits.on_day_limit == "stop",
        tuner=tuner,
        hours=hours_of(settings),
        day=day,
        budget=budget,
        keep_mark=keep_mark,
    )


def tuner_of(settings: Settings, start: int | None = None) -> Tuner | None:
    """What finds the concurrency, where that is "auto"."""
    limits = settings.limits
    if limits.concurrency != "auto":
        return None
    begin = {} if start is None else {"start": start}
    return Tuner(
        lowest=limits.concurrency_min, highest=limits.concurrency_max, timeout_s=settings.model.timeout_s, **begin
    )


def hours_of(settings: Settings) -> Hours | None:
    """The hours in which calls may leave, and when the run stops. Raises ConfigError."""
    between, stop_at = settings.limits.run_between, settings.limits.stop_at
    if between is None and stop_at is None:
        return None
    return Hours((between[0], between[1]) if between is not None else None, stop_at)


def budget_of(settings: Settings, *, spent_usd: float, spent_tokens: int, maybe: Spend = NOTHING) -> Budget | None:
    """What counts the run's cost, with the caps that are set; one may be set in mid-run.

    None where a call's worst case has no bound: there nothing can be capped. Raises ConfigError where it is to be.
    `maybe` is the part of what is spent that no kept answer tells of.
    """
    limits = settings.limits
    is_capped = limits.budget_usd is not None or limits.budget_tokens is not None
    if not has_bound(settings):
        if not is_capped:
            return None
        raise ConfigError(
            "a budget needs a bound on what one answer can cost: set model.parameters.max_completion_tokens "
            "(64 is plenty for one label)"
        )
    return Budget(
        usd=limits.budget_usd,
        tokens=limits.budget_tokens,
        price=price_for(settings),
        spent_usd=spent_usd,
        spent_tokens=spent_tokens,
        maybe=maybe,
    )


def has_bound(settings: Settings) -> bool:
    """Whether the tokens of one answer are bounded."""
    parameters = settings.model.parameters
    bound = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    return isinstance(bound, int) and bound > 0


def notified_of(settings: Settings) -> tuple[str | None, str | None, frozenset[str]]:
    """Whom to tell: address, command, and of what kinds of events."""
    notify = settings.notify
    url = None if notify.url is None else notify.url.get_secret_value()
    command = None if notify.command is None else notify.command.get_secret_value()
    return url, command, frozenset(notify.on)


def rules_of(settings: Settings) -> AskRules:
    """How often and how long, from the settings."""
    return AskRules(
        max_attempts=settings.limits.max_attempts,
        max_repairs=settings.limits.max_repairs,
        timeout_s=settings.model.timeout_s,
        hedge_after_p=settings.limits.hedge_after_p,
        record_s=settings.limits.record_deadline_s,
        stop_rejected=settings.limits.stop_rejected,
    )


async def open_provider(settings: Settings, stack: AsyncExitStack) -> HttpProvider:
    """The provider of the settings, closed with the stack; starts the built-in endpoint where that is asked for."""
    from pipeline.providers import ClientOptions, HttpProvider

    options = settings.model
    base_url, key, annotate = options.base_url, settings.api_key(), None
    if is_simulated(settings):
        base_url, annotate = await _start_rehearsal(settings, stack)
    elif (told := missing_key(settings)) is not None:
        raise ConfigError(told)
    provider = HttpProvider(
        ClientOptions(
            base_url=base_url,
            # Servers of one's own often want none; one that does will say so at the first call.
            api_key="none" if key is None or is_simulated(settings) else key.get_secret_value(),
            organization=options.organization,
            project=options.project,
            headers=options.plain_headers(),
            timeout_s=options.timeout_s,
            max_connections=MOST_IN_FLIGHT,
        ),
        annotate=annotate,
    )
    stack.push_async_callback(provider.close)
    return provider


def missing_key(settings: Settings) -> str | None:
    """What to do where no call can be made for want of a key; None where one can."""
    if settings.model.base_url is not None or settings.api_key() is not None:
        return None
    name = settings.model.api_key_env
    return (
        f"{name} is not set. Put {name}=... into the environment or into .env, or set model.base_url: "
        'the address of a server of your own, or "rehearsal" to try without any'
    )


async def _start_rehearsal(
    settings: Settings, stack: AsyncExitStack
) -> tuple[str, Callable[[Request], Mapping[str, str]]]:
    from pipeline.rehearsal import Rehearsal, RehearsalOptions

    wanted = settings.rehearsal
    endpoint = Rehearsal(
        RehearsalOptions(
            seed=wanted.seed,
            latency_ms=wanted.latency_ms,
            latency_jitter=wanted.latency_jitter,
            slow_share=wanted.slow_share,
            slow_factor=wanted.slow_factor,
            requests_per_minute=wanted.requests_per_minute,
            tokens_per_minute=wanted.tokens_per_minute,
            requests_per_day=wanted.requests_per_day,
            burst_s=wanted.burst_s,
            max_in_flight=wanted.max_in_flight,
            headers=wanted.limit_headers,
            retry_after=wanted.retry_after,
            accuracy=wanted.accuracy,
            faults=wanted.faults,
            poison=wanted.poison,
            outages=[(begin, end) for begin, end in wanted.outages],
            quota_after=wanted.quota_after,
            context_tokens=wanted.context_tokens,
            models=(),
        )
    )
    await stack.enter_async_context(endpoint)
    return endpoint.base_url, _annotator(settings)


def _annotator(settings: Settings) -> Callable[[Request], Mapping[str, str]]:
    """What the built-in endpoint is told beside the request: the record's name, and its gold label."""
    gold = gold_fields(settings)

    def annotate(request: Request) -> dict[str, str]:
        told, fields = {"record": request.record.key}, request.record.fields
        right = {label: fields[name] for label, name in gold.items() if name in fields}
        if right:
            told["gold"] = codec.dumps(right).decode()
        return told

    return annotate


def gold_fields(settings: Settings) -> Mapping[str, str]:
    """The record's fields with the right labels, by label field."""
    gold = settings.rehearsal.gold
    if isinstance(gold, str):
        return {next(iter(settings.task.labels or ["label"])): gold}
    return gold or {}
