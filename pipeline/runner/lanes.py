"""Builds the batch lane of a session from the settings."""

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from functools import cache, partial

from pipeline.batches import (
    AutoLane,
    BatchLane,
    BatchMode,
    LaneConfig,
    LaneInputs,
    Route,
    choose_lane,
)
from pipeline.engine import Asker
from pipeline.errors import ConfigError, SetupError
from pipeline.limits import Price, TokenBound, price_of
from pipeline.parts import (
    batch_price,
    fewest_for_batches,
    flex_patience_s,
    form_of,
    is_simulated,
    read,
    rules_of,
    shard_of,
    standard_price,
)
from pipeline.providers import BatchApi, HttpProvider
from pipeline.readers import Source
from pipeline.records import BY_SCHEMA, Provider
from pipeline.runner.opening import is_local
from pipeline.runner.session_parts import SessionParts
from pipeline.settings import FLEX_TIMEOUT_S, Settings
from pipeline.stats import Stats
from pipeline.store import FOLDER, BatchBook, Ledger, RunDir
from pipeline.task import Task

#: The most parts of a shard: enough for a hundred million records in parts of a hundred.
SHARD_PARTS = 1_000_000
#: How long records are counted before a lane is chosen without the count.
COUNTING_S = 5.0


async def batch_api_of(
    settings: Settings, task: Task, provider: Provider, ledger: Ledger, run_dir: RunDir
) -> BatchApi | None:
    """Return the batch API if the lane is chosen, or if parts of an earlier session are open; otherwise None.

    Once it has collected simulated answers, the manifest records that, because another session may write the outcomes.
    Raises ConfigError if the calls go to a function, which has no batches.
    """
    is_left = any(part.is_open for part in await BatchBook(ledger).parts())
    if settings.model.lane not in ("batch", "auto") and not is_left:
        return None
    if not isinstance(provider, HttpProvider):
        if settings.model.lane == "auto" and not is_left:
            return None
        raise ConfigError(
            'model.lane = "batch" needs a server with an OpenAI-compatible Batch API; a function has none'
        )
    form = settings.model.tool_choice or form_of(settings)
    by_schema = task.fingerprint["tools"][0]["function"]["name"] if form == BY_SCHEMA else None
    return BatchApi(provider, by_schema=by_schema, at_simulated=run_dir.note_simulated)


async def first_part(settings: Settings, base: Ledger | None) -> int:
    """Return the number of a session's first part. No other shard, and no part from before sharding, has the same."""
    if settings.input.shard is None:
        return 1
    before = 0 if base is None else await BatchBook(base).next_number() - 1
    number = shard_of(settings.input.shard)[0] + before // SHARD_PARTS
    return number * SHARD_PARTS + 1


async def choose_batch_api(
    settings: Settings, sources: Sequence[Source], ledger: Ledger, api: BatchApi | None, *, asks: bool
) -> tuple[BatchApi | None, int | None, list[str]]:
    """Return what sends batches, how many records are left, and notes about a choice that is already final.

    `asks` is false for a session that stops before it asks: it sends nothing, and leaves open batches to the next one.
    With lane "auto" there are no batches if the server has none or if too few records are left.
    """
    if settings.model.lane != "auto" or not asks:
        return api, None, []
    left = await _count_left(settings, sources, ledger)
    choice = choose_lane(
        LaneInputs(left, fewest_for_batches(settings), has_batches=api is not None and await api.is_offered())
    )
    is_open = any(part.is_open for part in await BatchBook(ledger).parts())
    if choice.route is Route.LIVE and not is_open:
        return None, left, [str(choice)]
    return api, left, []


async def _count_left(settings: Settings, sources: Sequence[Source], ledger: Ledger) -> int | None:
    """Return how many records have no outcome; None if a source is not local, or counting takes too long."""
    if not all(is_local(source) for source in sources):
        return None
    began, count = time.monotonic(), 0
    async with aclosing(read(sources, settings)) as batches:
        async for batch in batches:
            count += len(batch)
            if time.monotonic() - began > COUNTING_S:
                return None
    return max(0, count - sum((await ledger.count_by_status()).values()))


async def refuse_open_batches(run_dir: RunDir, ledger: Ledger, what: str) -> None:
    """Raise SetupError if batches are open: their answers would still have the old terms."""
    if left := await BatchBook(ledger).count_left():
        raise SetupError(
            f"{run_dir.path}: {left:,} {'batch is' if left == 1 else 'batches are'} open. Before {what}, collect them "
            f"(labelpipe run) or cancel them: labelpipe cancel {run_dir.path}"
        )


def lane_of(parts: SessionParts, stats: Stats) -> BatchLane | None:
    """Return the lane of a session; None if nothing is batched."""
    if parts.batches is None:
        return None
    settings, left, lease = parts.settings, parts.left, parts.options.lease
    price, standard = batch_price(settings), standard_price(settings)
    lane_class: Callable[..., BatchLane] = BatchLane
    if settings.model.lane == "auto":
        lane_class = partial(
            AutoLane,
            patience_s=flex_patience_s(settings),
            left=lambda: None if left is None else max(0, left - stats.records),
        )
    return lane_class(
        parts.batches,
        BatchBook(parts.ledger, parts.first_part),
        parts.run_dir.path / FOLDER,
        _config_of(settings, parts.task, BatchMode(parts.options.batches)),
        run_id=parts.run_id,
        admission=parts.admission,
        day=parts.day,
        stats=stats,
        prices_of=lambda model: (price, standard) if model == settings.model.name else _listed(model),
        usd_of=partial(_most_usd, price),
        # Other shards fill the server's queue too.
        queue=None if lease is None else lease.queue,
    )


def lane_updater(lane: BatchLane | None, asker: Asker, settings: Settings) -> Callable[[datetime | None], None]:
    """Return a function to call about once a second with the end of the run. It updates lane and rules."""
    live = rules_of(settings)
    flex = replace(live, flex_patience_s=settings.flex.patience_s, timeout_s=max(live.timeout_s, FLEX_TIMEOUT_S))
    # A record that waited for flex must not time out once calls are live.
    record_s = flex.deadline_of(settings.task.max_turns * settings.quality.size)

    def update(ends_at: datetime | None) -> None:
        if lane is None:
            return
        lane.check_deadline(ends_at)
        if isinstance(lane, AutoLane) and lane.choice is not None:
            now = flex if lane.choice.flex else live
            rules, patience_s = asker.judge.rules, now.flex_patience_s
            asker.judge.rules = replace(rules, timeout_s=now.timeout_s, flex_patience_s=patience_s, record_s=record_s)

    return update


def _config_of(settings: Settings, task: Task, mode: BatchMode) -> LaneConfig:
    batch, most = settings.batch, settings.limits.requests_per_day
    return LaneConfig(
        model=settings.model.name,
        poll_s=batch.poll_s,
        enqueued_tokens=batch.enqueued_tokens,
        forgets=is_simulated(settings),
        first_part=batch.first_part,
        part_records=batch.part_records if most is None else min(most, batch.part_records),
        repairs_live=batch.finish == "live",
        max_attempts=settings.limits.max_attempts,
        shares=settings.task.dedupe and task.can_share_answers,
        stops_at_day_limit=settings.limits.on_day_limit == "stop",
        goes_live=settings.model.lane not in ("batch", "auto"),
        mode=mode,
    )


@cache
def _listed(model: str) -> tuple[Price | None, Price | None]:
    """Return the list prices for batches and live calls of a model that an earlier session used."""
    return price_of(model, batch=True), price_of(model)


def _most_usd(price: Price | None, most: TokenBound) -> float | None:
    if price is None:
        return None
    return (most.prompt * max(price.input, price.cached_input, price.written) + most.output * price.output) / 1e6
