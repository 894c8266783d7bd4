"""Estimates a full run: labels and stores a pilot, and computes a plan from it."""

import time
from collections import Counter
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import InputError, SetupError
from pipeline.facts import Plan, Tier
from pipeline.parts import (
    cache_text,
    gold_of,
    lane_price,
    open_provider,
    override_settings,
    price_for,
    read,
    sources_of,
    task_of,
    validate_prompt,
    validate_selection,
    validate_settings,
)
from pipeline.planner.estimate import PILOT_AT_ONCE, PilotFacts, make_plan
from pipeline.planner.recorder import CallRecorder, tier_from
from pipeline.progress import show_count
from pipeline.providers import BatchApi, HttpProvider
from pipeline.readers import ReadProgress
from pipeline.records import Outcome, Provider
from pipeline.runner import RunOptions, arun, refuse_open_batches, total_spend
from pipeline.settings import Settings
from pipeline.show import codes_text
from pipeline.store import BatchBook, Ledger, RunDir
from pipeline.task import Task
from pipeline.threads import in_daemon

#: The most outcomes of the run folder to read.
MOST_OUTCOMES = 2_000
#: The key in the ledger for the limits that the server reported in a pilot.
_SERVER_LIMITS_KEY = "told_limits"


async def plan(settings: Settings, pilot: int = 20, *, quiet: bool = False) -> Plan:
    """Label a sample of `pilot` records, save them in the run, and estimate the rest. Raises SetupError."""
    validate_settings(settings)
    validate_prompt(task_of(settings))
    await _refuse_open_batches(settings)
    async with AsyncExitStack() as stack:
        provider = await open_provider(settings, stack)
        records = await count_records(settings, quiet=quiet)
        return await plan_with(settings, provider, records, pilot, quiet=quiet)


async def _refuse_open_batches(settings: Settings) -> None:
    """Raise SetupError if batches are open, because a pilot might ask for their records again."""
    run_dir = RunDir(Path(settings.output.dir))
    if run_dir.ledger.exists():
        async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
            await refuse_open_batches(run_dir, ledger, "a pilot is labelled")


async def plan_with(
    settings: Settings,
    provider: Provider,
    records: int,
    pilot: int,
    *,
    quiet: bool,
    estimate_for: Settings | None = None,
) -> Plan:
    """Return the plan from a pilot with this provider. `estimate_for` has the run's settings if a pilot's differ."""
    recorder = CallRecorder(provider)
    options = RunOptions(quiet=quiet, title="pilot", provider=recorder, overrides=settings.overrides()[0])
    summary = await arun(_for_pilot(settings, pilot), options)
    facts = await _load_facts(settings, records, recorder)
    if settings.model.lane == "auto" and isinstance(provider, HttpProvider):
        facts = replace(facts, has_batches=await BatchApi(provider).is_offered())
    if not facts.outcomes:
        codes = f"{codes_text(facts.problems)}; see {facts.failed_path}"
        why = summary.reason or (codes if facts.problems else "the run ended before")
        raise SetupError(f"no record of the pilot was answered, so there is no estimate: {why}")
    run_settings = estimate_for or settings
    return make_plan(run_settings, facts, lane_price(run_settings))


def _for_pilot(settings: Settings, pilot: int) -> Settings:
    # The first records of a file may be unlike the rest. A larger sample, and the whole run, include this one. Somebody
    # waits for a pilot, so it waits neither for its hours nor for tomorrow.
    overrides: dict[str, Any] = {
        "input.sample": min(pilot, settings.input.sample or pilot),
        "limits.run_between": None,
        "limits.stop_at": None,
        "limits.on_day_limit": "stop",
        "model.lane": "live",
    }
    if settings.limits.concurrency != "auto":
        overrides["limits.concurrency"] = min(PILOT_AT_ONCE, settings.limits.concurrency)
    return override_settings(settings, overrides)


async def count_records(settings: Settings, *, quiet: bool = True) -> int:
    """Count the records of the input. Raises InputError if there are none, or if they can be read only once."""
    sources = await in_daemon(partial(sources_of, settings))
    if once := [source.name for source in sources if source.single_pass]:
        raise InputError(f"a plan reads the input twice, and {once[0]} can be read only once: write it to a file")
    await validate_selection(sources, settings)
    count, reading = 0, ReadProgress()
    async with aclosing(read(sources, settings, progress=reading)) as batches:
        with show_count("counting records", quiet=quiet) as add:
            async for batch in batches:
                count += len(batch)
                add(len(batch))
    if not count:
        raise InputError(reading.describe_empty([source.name for source in sources]))
    return count


async def _load_facts(settings: Settings, records: int, recorder: CallRecorder) -> PilotFacts:
    """Read the run folder after the pilot, and save the server's limits there for a plan without a call."""
    run_dir, task = RunDir(Path(settings.output.dir)), task_of(settings)
    tier = tier_from(recorder.limits)
    with run_dir.open_for_writing():
        async with await Ledger.open(run_dir.ledger) as ledger:
            if tier == Tier():
                tier = Tier(**codec.loads(await ledger.meta_get(_SERVER_LIMITS_KEY) or "{}"))
            else:
                await ledger.meta_set(_SERVER_LIMITS_KEY, codec.dumps(asdict(tier)).decode())
            outcomes = [outcome for _, outcome in await ledger.rows_after(0, MOST_OUTCOMES)]
            return PilotFacts(
                records=records,
                done=sum((await ledger.count_by_status()).values()),
                outcomes=[outcome for outcome in outcomes if outcome.attempts],
                looked_at=len(outcomes),
                problems=Counter(outcome.problem.code for outcome in outcomes if outcome.problem is not None),
                failed_path=str(run_dir.failed),
                used_today=await ledger.requests_on(datetime.fromtimestamp(time.time(), UTC).date().isoformat()),
                spent=await total_spend(ledger, price_for(settings)),
                tier=tier,
                cache=cache_text(settings, task),
                marks_constant=task.marks_prefix,
                gold=await _gold_ahead(settings, task, ledger, records),
                batches_took_s=[part.took_s for part in await BatchBook(ledger).parts() if part.took_s is not None],
            )


async def _gold_ahead(settings: Settings, task: Task, ledger: Ledger, records: int) -> int:
    """Count the gold records that are mixed into the rest of a run over `records` records."""
    gold = await gold_of(settings, task)
    if gold is None or not gold.mixed:
        return 0
    done = {outcome.record.key for outcome in await ledger.canaries()} & {record.key for record in gold.mixed}
    return max(0, min(len(gold.mixed), records // settings.quality.every) - len(done))


async def asked_in(settings: Settings) -> list[Outcome]:
    """Return the run's outcomes so far of records that a model was asked about; none if there is no run. Only reads."""
    run_dir = RunDir(Path(settings.output.dir))
    manifest = run_dir.read_manifest() if run_dir.ledger.exists() else None
    if manifest is None or manifest.get("simulated"):
        return []
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        return [outcome for _, outcome in await ledger.rows_after(0, MOST_OUTCOMES) if outcome.attempts]
