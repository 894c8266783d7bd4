"""Rehearses a plan: runs the same config against the built-in endpoint and compares the result with the plan."""

import math
import shutil
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError
from pipeline.facts import MACHINE, UNKNOWN, MachineLoad, Plan, RehearsedPlan, Tier, Workload
from pipeline.parts import REHEARSAL, hours_of, open_provider, override_settings, price_for, validate_settings
from pipeline.planner.estimate import latency_of, least
from pipeline.planner.pilot import asked_in, count_records, plan_with
from pipeline.planner.recorder import CallRecorder
from pipeline.planner.schedule import PacingLimits, simulate
from pipeline.runner import RunOptions, arun
from pipeline.settings import Settings
from pipeline.stats import RunSummary
from pipeline.store import RunDir

#: How long a sample should take in seconds, and its fewest records: fewer end before the pace is reached.
SAMPLE_S, SAMPLE_LEAST = 60.0, 20
#: The most records of a sample if its size is not requested: a fast endpoint would answer many in a minute.
SAMPLE_MOST = 5_000
#: The share of a day's requests that a sample may take. The rest is for records that are asked again.
DAY_SHARE = 0.8
#: If no limit was used by more than this share, and the sample took this many times as long as planned, something else
#: delayed it.
IDLE_SHARE, LATE_TIMES = 0.6, 1.5
#: This machine was the cause if the used share of a core, or the delay of answers, exceeds these values.
BUSY_SHARE, SLOW_TIMES = 0.7, 1.5


async def rehearse_plan(
    settings: Settings, records: int | None = None, tier: Tier | None = None, *, pilot: int = 20, quiet: bool = True
) -> RehearsedPlan:
    """Run a sample of the input against the built-in endpoint and compare it with the plan. Nothing is paid.

    `records` is the size of the sample after the pilot; None means as many as fit into about a minute. `tier` are the
    endpoint's limits, which override those of the config. The run folder does not change: the rehearsal has its own,
    which is created anew. Raises SetupError.
    """
    validate_settings(settings)
    total = await count_records(settings, quiet=quiet)
    if total < 2:
        raise SetupError(f"a rehearsal needs at least two records, and the input has {total}")
    pilot = min(pilot, max(1, total // 4))
    limits = tier_of(settings, tier or Tier())
    latency_s, latency_from = await _latency(settings)
    folder = folder_of(settings)
    _clear(folder)
    ready = override_settings(settings, _overrides(folder, limits, latency_s))
    async with AsyncExitStack() as stack:
        provider = await open_provider(ready, stack)
        plan = await plan_with(ready, provider, total, pilot, quiet=quiet, estimate_for=settings)
        sample = sample_of(plan, limits, records)
        recorder = CallRecorder(provider)
        options = RunOptions(quiet=quiet, title="rehearsal", provider=recorder)
        began, cpu_began = time.monotonic(), time.process_time()
        summary = await arun(override_settings(ready, {"input.sample": plan.done + sample}), options)
        core_share = (time.process_time() - cpu_began) / max(time.monotonic() - began, 1e-9)
    planned = part_of(plan, sample)
    happened, used = _measure_sample(ready, limits, recorder, summary)
    effort = MachineLoad(recorder.busy_s / max(1, recorder.calls), round(core_share, 3))
    happened = replace(happened, binding=bound_by(planned, happened, used, effort, latency_s))
    return RehearsedPlan(
        plan=plan,
        tier=limits,
        latency_s=latency_s,
        latency_from=latency_from,
        planned=planned,
        happened=happened,
        whole=whole_of(settings, plan, happened),
        used=used,
        effort=effort,
        labelled=summary.labelled,
        rejected=summary.rejected,
        failed=summary.failed,
        ended=summary.ended,
        reason=summary.reason,
        folder=str(folder),
    )


# -- before ------------------------------------------------------------------------------------------------------------


def tier_of(settings: Settings, requested: Tier) -> Tier:
    """Return the endpoint's limits: as requested, else from the table [rehearsal], else from [limits]."""

    def limit(name: str) -> int | None:
        # The table [rehearsal] has no daily limit.
        values = (getattr(place, name, None) for place in (requested, settings.rehearsal, settings.limits))
        return next((value for value in values if value is not None), None)

    return Tier(**{each.name: limit(each.name) for each in fields(Tier)})


async def _latency(settings: Settings) -> tuple[float, str]:
    """Return the endpoint's latency in seconds, and its source: the config, or the run so far."""
    if "rehearsal.latency_ms" not in settings.origins():
        outcomes = await asked_in(settings)
        if outcomes:
            return latency_of(outcomes), "the run so far"
    return settings.rehearsal.latency_ms / 1000, "rehearsal.latency_ms"


def folder_of(settings: Settings) -> Path:
    """Return the rehearsal's own run folder, next to the run's."""
    folder = Path(settings.output.dir)
    return folder.parent / f"{folder.name or folder.resolve().name}-rehearsal"


def _clear(folder: Path) -> None:
    """Remove the last rehearsal. Raises SetupError if the folder holds anything else or is in use."""
    if not folder.exists():
        return
    run_dir = RunDir(folder)
    manifest = run_dir.read_manifest() if folder.is_dir() else None
    if manifest is None and (not folder.is_dir() or any(folder.iterdir())):
        raise SetupError(f"{folder}: the rehearsal needs this folder, but it contains something else. Move it away")
    if manifest is not None and not manifest.get("simulated"):
        raise SetupError(f"{folder}: the rehearsal needs this folder, but it contains labels of a model. Move it away")
    run_dir.open_for_writing().close()
    shutil.rmtree(folder)


def _overrides(folder: Path, tier: Tier, latency_s: float) -> dict[str, Any]:
    """Return the settings that differ from the run's: endpoint, folder, no waiting for hours, no notifications."""
    return {
        "model.base_url": REHEARSAL,
        "model.lane": "live",
        "output.dir": str(folder),
        "limits.run_between": None,
        "limits.stop_at": None,
        "limits.on_day_limit": "stop",
        "notify.url": None,
        "notify.command": None,
        "telemetry.enabled": False,
        "rehearsal.latency_ms": round(latency_s * 1000, 3),
        # A sample never uses up a day's requests, so the endpoint need not count them.
        "rehearsal.requests_per_minute": tier.requests_per_minute,
        "rehearsal.tokens_per_minute": tier.tokens_per_minute,
    }


def sample_of(plan: Plan, tier: Tier, requested: int | None) -> int:
    """Return how many records to rehearse after the pilot, within a day's requests: nobody waits for tomorrow."""
    per_record = max(plan.calls_per_record, 1e-9)
    pace = plan.per_s / per_record
    fitting = SAMPLE_MOST if math.isinf(pace) else min(SAMPLE_MOST, math.ceil(pace * SAMPLE_S))
    sample = max(SAMPLE_LEAST, fitting) if requested is None else requested
    days = [day for day in (plan.requests_per_day, tier.requests_per_day) if day is not None]
    if days:
        sample = min(sample, math.floor(DAY_SHARE * min(days) / per_record) - plan.done)
    if sample < 1:
        raise SetupError(
            f"a day's {min(days):,} requests leave no room for a rehearsal after its pilot; try a smaller --pilot"
        )
    return min(sample, plan.left)


# -- after -------------------------------------------------------------------------------------------------------------


def part_of(plan: Plan, records: int) -> Workload:
    """Return the plan's share for `records` records, under the limits that affect a sample."""
    share = records / plan.left if plan.left else 0.0
    calls = records * plan.calls_per_record
    seconds = None if math.isinf(plan.per_s) else calls / plan.per_s + plan.latency_s
    within = {name: seconds for name, seconds in plan.durations_s.items() if name != "requests a day"}
    return Workload(
        records=records,
        calls=calls,
        tokens=plan.tokens.middle * share,
        seconds=seconds,
        requests_per_minute=calls / seconds * 60 if seconds else None,
        refused=0,
        cost_usd=None if plan.cost is None else plan.cost.middle * share,
        binding=max(within, key=lambda name: within[name], default="nothing"),
    )


def _measure_sample(
    settings: Settings, tier: Tier, recorder: CallRecorder, summary: RunSummary
) -> tuple[Workload, dict[str, float]]:
    """Measure the sample, and the share of each limit that was in use."""
    seconds, price = recorder.seconds, price_for(settings)
    a_minute = 60 / seconds if seconds else 0.0
    used = _limit_shares(settings, tier, recorder, summary)
    bound = max(used, key=lambda name: used[name], default="nothing")
    workload = Workload(
        records=summary.session_records,
        calls=recorder.calls,
        tokens=recorder.usage.total,
        seconds=seconds,
        requests_per_minute=recorder.calls * a_minute,
        refused=recorder.refused,
        cost_usd=None if price is None else price.cost_usd(recorder.usage),
        binding=bound if summary.ended == "complete" else "stopped early",
    )
    return workload, used


def bound_by(
    planned: Workload, happened: Workload, used: Mapping[str, float], effort: MachineLoad, latency_s: float
) -> str:
    """Name what bound the sample: the most used limit or, if it was late with no limit used up, another cause."""
    late = planned.seconds is not None and (happened.seconds or 0.0) > LATE_TIMES * planned.seconds
    # A call waits after a refusal, and its answer is then late. That is not the machine's fault.
    slow = effort.answered_in_s > SLOW_TIMES * latency_s and not happened.refused
    if happened.binding not in used or not late:
        return happened.binding
    if max(used.values()) > IDLE_SHARE and not (slow and happened.binding == "concurrency"):
        return happened.binding
    return MACHINE if effort.core_share > BUSY_SHARE or slow else UNKNOWN


def whole_of(settings: Settings, plan: Plan, happened: Workload) -> Workload:
    """Extrapolate the sample to all records of the plan, with the daily limit and the hours."""
    times = plan.left / happened.records if happened.records else 0.0
    calls = happened.calls * times
    seconds = None
    if happened.seconds and happened.calls:
        pacing = PacingLimits(happened.calls / happened.seconds, plan.requests_per_day, hours=hours_of(settings))
        seconds = simulate(calls, datetime.now().astimezone(), pacing).seconds
    return replace(
        happened,
        records=plan.left,
        calls=calls,
        tokens=happened.tokens * times,
        seconds=seconds,
        refused=round(happened.refused * times),
        cost_usd=None if happened.cost_usd is None else happened.cost_usd * times,
    )


def _limit_shares(settings: Settings, tier: Tier, recorder: CallRecorder, summary: RunSummary) -> dict[str, float]:
    if not recorder.seconds:
        return {}
    limits, minutes = settings.limits, recorder.seconds / 60
    shares: dict[str, float] = {}
    at_once = summary.learned.get("concurrency") if limits.concurrency == "auto" else limits.concurrency
    if at_once:
        shares["concurrency"] = recorder.busy_s / recorder.seconds / at_once
    requests = least(limits.requests_per_minute, tier.requests_per_minute)
    if requests:
        shares["requests a minute"] = recorder.calls / minutes / requests
    tokens = least(limits.tokens_per_minute, tier.tokens_per_minute)
    if tokens:
        shares["tokens a minute"] = recorder.usage.total / minutes / tokens
    return {name: round(share, 3) for name, share in shares.items()}
