"""Runs the lease server of a run, with limits from the settings and its database in the run folder."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.leases import Job, LeaseService, ShardBudgets, ShardOwners, SharedQueue, lease_server
from pipeline.limits import PICO_PER_USD, DayMeter, LocalResource
from pipeline.parts import price_for
from pipeline.records import Status
from pipeline.runner import background_tasks, total_spend, write_live
from pipeline.settings import Settings
from pipeline.shards.plan import BASE, BOOK, FOLDER, ShardPlan, write_plan
from pipeline.store import Ledger, RunDir

#: Seconds between saves of when each shard last reported.
HEARTBEAT_S = 2.0


@asynccontextmanager
async def coordinator(
    settings: Settings, plan: ShardPlan, *, host: str, port: int, token: str
) -> AsyncIterator[tuple[str, LeaseService]]:
    """Run the lease server during the block. Yields its address and the service. Raises SetupError, StoreError."""
    run, limits = Path(settings.output.dir), settings.limits
    async with await Ledger.open(run / FOLDER / BOOK) as book:
        before, base_days, proven = (0, 0), dict[str, int](), False
        today = time.strftime("%Y-%m-%d", time.gmtime())
        if (base := run / FOLDER / BASE).exists():
            async with await Ledger.open(base, read_only=True) as ledger:
                usd, tokens = await total_spend(ledger, price_for(settings))
                before = (math.ceil(usd * PICO_PER_USD), tokens)
                base_days = {today: await ledger.requests_on(today)}
                proven = (await ledger.count_by_status())[Status.LABELLED] > 0

        async def used(day: str) -> int:
            return await book.requests_on(day) + base_days.get(day, 0)

        day = DayMeter(limits.requests_per_day, used=used, add=book.add_requests, wall=time.time)
        budgets = ShardBudgets(book, caps_of(settings), before)
        await budgets.load()
        owners = ShardOwners(book)
        await owners.load()
        job = Job(plan.run_id, plan.shards, plan.digest, plan.dealing)
        queue = SharedQueue(book, settings.batch.enqueued_tokens, proven=proven)
        await queue.load()
        resource = LocalResource(limits.requests_per_minute, limits.tokens_per_minute)
        service = LeaseService(
            plan.shards,
            resource,
            day,
            budgets,
            queue,
            stop_at_day_limit=limits.on_day_limit == "stop",
            counted=lambda shards: write_plan(run, replace(plan, shards=shards)),
        )
        try:
            async with (
                lease_server(service, owners, job, host=host, port=port, token=token) as url,
                background_tasks(_write_heartbeats(RunDir(run / FOLDER), service)),
            ):
                yield url, service
        finally:
            await day.close()


async def _write_heartbeats(folder: RunDir, service: LeaseService) -> None:
    """Save when each shard last reported, for `status`. Shards may be on other machines."""
    while True:
        now = time.time()
        write_live(folder, {"heard_at": {str(number): now - ago_s for number, ago_s in service.silent_for_s.items()}})
        await asyncio.sleep(HEARTBEAT_S)


def caps_of(settings: Settings) -> tuple[int | None, int | None]:
    """Return the budget in picodollars and tokens."""
    usd = settings.limits.budget_usd
    return (None if usd is None else math.floor(usd * PICO_PER_USD), settings.limits.budget_tokens)
