"""Builds the provider from [model] and [rehearsal]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from pipeline import codec
from pipeline.errors import ConfigError
from pipeline.parts.card import form_of
from pipeline.parts.server import api_of, is_simulated, missing_key
from pipeline.records import Request
from pipeline.settings import FLEX_TIMEOUT_S, Settings, label_field

if TYPE_CHECKING:
    from pipeline.providers import HttpProvider

#: The highest `limits.concurrency`. That may change during the run, so only the gate limits connections.
MOST_IN_FLIGHT = 10_000


#: How much the built-in endpoint's latency varies: from 70 to 130 %.
LATENCY_JITTER = 0.3


async def open_provider(settings: Settings, stack: AsyncExitStack) -> HttpProvider:
    """Return the provider, closed with the stack. Starts the built-in endpoint if the settings ask for it."""
    from pipeline.providers import APIS, ClientOptions, HttpProvider, entra_tokens

    options = settings.model
    base_url, key, annotate = options.base_url, settings.api_key(), None
    if is_simulated(settings):
        base_url, annotate = await _start_rehearsal(settings, stack)
    elif (message := missing_key(settings)) is not None:
        raise ConfigError(message)
    by_token = options.auth == "entra" and not is_simulated(settings)
    token = await stack.enter_async_context(entra_tokens()) if by_token else None
    form = form_of(settings)
    provider = HttpProvider(
        ClientOptions(
            base_url=base_url,
            # Local servers often need no key; one that does will report it at the first call.
            api_key="none" if key is None or by_token or is_simulated(settings) else key.get_secret_value(),
            token=token,
            headers=options.plain_headers(),
            # Lane "auto" also uses flex, which takes longer. The caller enforces each call's own timeout.
            timeout_s=max(options.timeout_s, FLEX_TIMEOUT_S) if options.lane == "auto" else options.timeout_s,
            max_connections=MOST_IN_FLIGHT,
        ),
        APIS[api_of(settings)],
        annotate=annotate,
        forms={} if form is None else {options.name: form},
    )
    stack.push_async_callback(provider.close)
    return provider


async def _start_rehearsal(
    settings: Settings, stack: AsyncExitStack
) -> tuple[str, Callable[[Request], Mapping[str, str]]]:
    from pipeline.rehearsal import Rehearsal, RehearsalOptions

    config = settings.rehearsal
    endpoint = Rehearsal(
        RehearsalOptions(
            latency_ms=config.latency_ms,
            latency_jitter=LATENCY_JITTER,
            requests_per_minute=config.requests_per_minute,
            tokens_per_minute=config.tokens_per_minute,
            accuracy=config.accuracy,
            faults=config.faults,
            models=(),
        )
    )
    await stack.enter_async_context(endpoint)
    return endpoint.base_url, _annotator(settings)


def _annotator(settings: Settings) -> Callable[[Request], Mapping[str, str]]:
    """Return a function for the built-in endpoint's notes: the record's name and its gold label."""
    gold = gold_fields(settings)

    def annotate(request: Request) -> dict[str, str]:
        notes, fields = {"record": request.record.key}, request.record.fields
        right = {label: fields[name] for label, name in gold.items() if name in fields}
        if right:
            notes["gold"] = codec.dumps(right).decode()
        return notes

    return annotate


def gold_fields(settings: Settings) -> Mapping[str, str]:
    """Return the record's fields with gold labels, by label field."""
    gold = settings.rehearsal.gold
    if isinstance(gold, str):
        # A reason or a confidence may come before the labels.
        forms = settings.task.labels or {}
        names = (name for name, form in forms.items() if label_field(form).kind in ("one", "several"))
        return {next(names, next(iter(forms), "label")): gold}
    return gold or {}
