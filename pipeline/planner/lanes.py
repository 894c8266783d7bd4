"""Compares the lanes, which are ways to send the same calls, by price and time."""

import math
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime

from pipeline.batches import LaneChoice, LaneInputs, choose_lane, open_spans, uses_flex
from pipeline.errors import LabelpipeError
from pipeline.facts import Check, Interval, LaneEstimate
from pipeline.limits import Price, count_midnights, price_of
from pipeline.parts import (
    batch_price,
    cache_text,
    fewest_for_batches,
    flex_patience_s,
    hours_of,
    is_azure,
    is_groq,
    is_openai,
    is_simulated,
    lane_price,
    open_provider,
    price_for,
    service_tier_of,
)
from pipeline.records import FLEX
from pipeline.settings import FLEX_TIMEOUT_S, Settings
from pipeline.task import Task
from pipeline.units import duration

#: The most requests in a file of the batch API, and the hours until it is answered (OpenAI's documents, November 2026).
BATCH_REQUESTS, BATCH_HOURS = 50_000, 24
_FLEX_NOTE = "or longer; calls that find no room cost as much as live"


def lanes_of(
    settings: Settings,
    records: int,
    seconds: float | None,
    cost_at: Callable[[Price], Interval],
    batches_took_s: Sequence[float],
    *,
    by_batch: bool,
) -> list[LaneEstimate]:
    """Estimate live, flex, and batch for `records` records.

    `seconds` is how long live calls take, or flex calls if these are chosen. `batches_took_s` is how long each batch of
    the run took so far. `by_batch` is whether lane "auto" would begin with batches.
    """

    def lane(
        name: str, price: Price | None, note: str, time_s: float | None = None, *, chosen: bool = False
    ) -> LaneEstimate:
        return LaneEstimate(name, None if price is None else cost_at(price), time_s, note, chosen=chosen)

    own, flex_by_tier = price_for(settings), service_tier_of(settings) == FLEX
    live = lane("live", own, "", seconds, chosen=True)
    flex, batch = (lane(name, None, "not known for this server") for name in ("flex", "batch"))
    if is_openai(settings) or is_simulated(settings):
        cheaper = _cheaper(settings, service_tier=FLEX)
        flex = lane("flex", cheaper, 'as long or longer: model.lane = "flex"')
        batch = lane("batch", _cheaper(settings, batch=True), _batch_note(records))
        if flex_by_tier:
            live = lane("live", _listed(settings), "as long or shorter: without service_tier")
            known = cheaper is not None or settings.model.price is not None
            flex = lane("flex", own, "" if known else "no flex price is known: this is live's", seconds, chosen=True)
    elif flex_by_tier:
        live, flex = replace(live, chosen=False), lane("flex", own, "", seconds, chosen=True)
    if settings.model.lane == "flex":
        live, flex = replace(live, chosen=False), lane("flex", lane_price(settings), _FLEX_NOTE, seconds, chosen=True)
    elif settings.model.lane == "batch" or by_batch:
        note = _batch_note(records)
        if batches_took_s:
            usual = duration(sorted(batches_took_s)[len(batches_took_s) // 2])
            note += f"; half of this run's {len(batches_took_s):,} took up to {usual}"
        live, flex = replace(live, chosen=False), replace(flex, chosen=False)
        batch = lane("batch", batch_price(settings), note, chosen=True)
    return [live, flex, batch]


def _listed(settings: Settings) -> Price | None:
    """Return the price list's price of an ordinary call; None if the config sets its own price."""
    return price_of(settings.model.name) if settings.model.price is None else None


def _cheaper(settings: Settings, *, service_tier: str | None = None, batch: bool = False) -> Price | None:
    """Return the price list's price of the lane; None if it is not lower than the live price, or unknown."""
    live = _listed(settings)
    price = price_of(settings.model.name, service_tier=service_tier, batch=batch)
    return None if live is None or price is None or price.input >= live.input else price


def _batch_note(records: int) -> str:
    files = math.ceil(records / BATCH_REQUESTS)
    each = "" if files <= 1 else f" a file, {files} files"
    return f"within {BATCH_HOURS} h{each}"


def cache_checks(settings: Settings, task: Task) -> list[Check]:
    """Report how the server's prompt cache is used, if there is enough to cache."""
    text = cache_text(settings, task)
    return [Check("cache", True, text)] if text else []


async def batch_checks(settings: Settings) -> list[Check]:
    """Check whether the server has batches, if the run may send some."""
    if settings.model.lane not in ("batch", "auto"):
        return []
    try:
        async with AsyncExitStack() as stack:
            await (await open_provider(settings, stack)).has_batches()
    except LabelpipeError as error:
        if settings.model.lane == "auto":
            return [Check("batches", None, f"lane auto can make live calls only: {error}")]
        return [Check("batches", False, f'{error}\nIf the server has no Batch API, set model.lane = "live"')]
    return [Check("batches", True, "the server has files and batches")]


def auto_choice(settings: Settings, inputs: LaneInputs, now: datetime, *, used_today: int = 0) -> LaneChoice | None:
    """Choose how lane "auto" would begin now; None for another lane. `live_s` of `inputs` counts the pace alone."""
    if settings.model.lane != "auto":
        return None
    hours = hours_of(settings)
    until = None if hours is None else hours.ends_at(now)
    until_s = None if until is None else (until - now).total_seconds()
    left, most, room, live_s = inputs.left or 0, settings.limits.requests_per_day, None, inputs.live_s
    if most is not None:
        room = max(0, most - used_today) + most * count_midnights(now, until_s or 0.0)
        live_s *= min(1.0, room / left) if left else 1.0
    times = open_spans(hours, now, until_s)
    inputs = replace(
        inputs, few=fewest_for_batches(settings), until_s=until_s, live_s=live_s, room=room, open_spans=times
    )
    choice = choose_lane(inputs)
    return replace(choice, flex=uses_flex(inputs, choice.route, flex_patience_s(settings)))


def flex_checks(settings: Settings) -> list[Check]:
    """Report what is known about the flex tier of the server and model, if the run asks for it.

    OpenAI and Azure answer 400 for models without it; other servers may not know the parameter.
    """
    if settings.model.lane != "flex":
        text = 'model.parameters.service_tier = "flex" fails where there is no room; model.lane = "flex" waits for it'
        return [Check("flex", None, text)] if service_tier_of(settings) == FLEX else []
    name, url = settings.model.name, settings.model.base_url
    if is_groq(settings):
        return [Check("flex", None, "Groq's flex tier has more room, but costs the same as its standard tier")]
    otherwise = 'If calls are refused, set model.lane = "live"'
    if is_openai(settings) and settings.model.price is None and _cheaper(settings, service_tier=FLEX) is None:
        text = f"the price list has no flex price for {name}; OpenAI refuses flex for some models"
        return [Check("flex", None, f"{text}. {otherwise}")]
    if not (is_openai(settings) or is_azure(settings) or is_simulated(settings)):
        return [Check("flex", None, f"whether {url} has a flex tier is not known. {otherwise}")]
    if settings.model.timeout_s < FLEX_TIMEOUT_S:
        text = f"model.timeout_s = {settings.model.timeout_s:g} is short for flex, whose answers can take minutes"
        return [Check("flex", None, f"{text}; OpenAI recommends {FLEX_TIMEOUT_S}, which is the default of this lane")]
    return [Check("flex", True, f"calls wait {settings.flex.patience_s:g} s for room, then they go out without flex")]
