"""Settings -> the parts of a run. The only place that knows both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline import codec
from pipeline.errors import ConfigError
from pipeline.limits import Admission, DayMeter, Gate, Price, price_of
from pipeline.readers import Source, resolve_sources
from pipeline.records import JSON, Request
from pipeline.settings import Settings
from pipeline.task import FunctionOptions, Task, TaskOptions, build_task

if TYPE_CHECKING:
    from pipeline.providers import ChatProvider

REHEARSAL = "rehearsal"


def task_of(settings: Settings) -> Task:
    """The task that the settings describe. Raises TaskError."""
    options, task = settings.model, settings.task
    return build_task(
        TaskOptions(
            model=options.name,
            prompt=task.prompt,
            system=task.system,
            labels=task.labels,
            function=_function(settings),
            python=task.python,
            name=task.name,
            description=task.description,
            tool_choice=options.tool_choice,
            strict=options.strict,
            parameters=options.parameters,
            examples=_examples(settings),
            examples_k=task.examples_k,
            prompt_cache_key=options.prompt_cache_key or ("auto" if _is_openai(settings) else None),
            base=settings.config_path.parent if settings.config_path else Path(),
        )
    )


def _function(settings: Settings) -> FunctionOptions | None:
    function = settings.task.function
    if function is None:
        return None
    parameters = settings.function_parameters() or {}
    return FunctionOptions(name=function.name, parameters=parameters, description=function.description)


def _examples(settings: Settings) -> list[Mapping[str, JSON]]:
    """The config's examples, then those of the file."""
    found: list[Mapping[str, JSON]] = list(settings.task.examples)
    if settings.task.examples_file is None:
        return found
    path = settings.find(settings.task.examples_file)
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"task.examples_file: {path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            found.append(_example(path, number, line))
    return found


def _example(path: Path, number: int, line: bytes) -> Mapping[str, JSON]:
    try:
        example = codec.loads(line)
    except codec.JSONDecodeError as error:
        raise ConfigError(f"{path}:{number}: task.examples_file: not JSON: {error}") from error
    if not isinstance(example, dict):
        raise ConfigError(f"{path}:{number}: task.examples_file: expected an object, got {type(example).__name__}")
    return example


def _is_openai(settings: Settings) -> bool:
    """Whether OpenAI's own API is called: it takes parameters that other servers may refuse."""
    url = settings.model.base_url
    return url is None or urlsplit(url).hostname == "api.openai.com"


def sources_of(settings: Settings) -> list[Source]:
    """The inputs, found and numbered. Raises InputError."""
    return resolve_sources(settings.inputs(), format=settings.input.format, base=Path())


def price_for(settings: Settings) -> Price | None:
    """The config's price, or the one of the price list; None where neither knows it."""
    given = settings.model.price
    if given is None:
        return price_of(settings.model.name)
    cached = given.input if given.cached_input is None else given.cached_input
    return Price(given.input, given.output, cached, origin="config")


def is_simulated(settings: Settings) -> bool:
    """Whether the built-in endpoint answers instead of a model."""
    return settings.model.base_url == REHEARSAL


def admission_of(settings: Settings, day: DayMeter | None = None) -> Admission:
    """The door with the limits of the settings."""
    limits = settings.limits
    return Admission(
        gate=Gate(limits.concurrency, probe_max_s=limits.probe_max_s),
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        day=day,
        stop_at_day_limit=limits.on_day_limit == "stop",
    )


async def open_provider(settings: Settings, stack: AsyncExitStack) -> ChatProvider:
    """The provider of the settings, closed with the stack; starts the built-in endpoint where that is asked for."""
    from pipeline.providers import ChatProvider, ClientOptions

    options = settings.model
    base_url, key, annotate = options.base_url, settings.api_key(), None
    if is_simulated(settings):
        base_url, annotate = await _start_rehearsal(settings, stack)
    elif key is None and base_url is None:
        raise ConfigError(_no_key(settings))
    provider = ChatProvider(
        ClientOptions(
            base_url=base_url,
            # Servers of one's own often want none; one that does will say so at the first call.
            api_key="none" if key is None or is_simulated(settings) else key.get_secret_value(),
            organization=options.organization,
            project=options.project,
            headers=options.plain_headers(),
            timeout_s=options.timeout_s,
            max_connections=settings.limits.concurrency,
        ),
        annotate=annotate,
    )
    stack.push_async_callback(provider.close)
    return provider


def _no_key(settings: Settings) -> str:
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
            latency_jitter=0.3,
            requests_per_minute=wanted.requests_per_minute,
            tokens_per_minute=wanted.tokens_per_minute,
            requests_per_day=wanted.requests_per_day,
            accuracy=wanted.accuracy,
            faults=wanted.faults,
            quota_after=wanted.quota_after,
            models=(),
        )
    )
    await stack.enter_async_context(endpoint)
    return endpoint.base_url, _annotator(settings)


def _annotator(settings: Settings) -> Callable[[Request], Mapping[str, str]]:
    """What the built-in endpoint is told beside the request: the record's name, and its gold label."""
    gold = settings.rehearsal.gold
    names = list(settings.task.labels or {"label": []})

    def annotate(request: Request) -> dict[str, str]:
        told = {"record": request.record.key}
        if gold is not None and gold in request.record.fields:
            told["gold"] = codec.dumps(dict.fromkeys(names[:1], request.record.fields[gold])).decode()
        return told

    return annotate
