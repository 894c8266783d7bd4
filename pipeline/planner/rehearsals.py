"""A plan's rehearsal: the same config against the built-in endpoint, and what was planned beside what happened."""

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

#: How long a sample is to take, and its least records: fewer are over before any pace is reached.
SAMPLE_S, SAMPLE_LEAST = 60.0, 20
#: The most records of a sample that nobody asked for: on a fast endpoint a minute is a lot.
SAMPLE_MOST = 5_000
#: The share of a day's requests that a sample may take: the rest is for those that are asked again.
DAY_SHARE = 0.8
#: No limit was used by more than this, and it took so many times as long as planned: something else held it up.
IDLE_SHARE, LATE_TIMES = 0.6, 1.5
#: So much of a core in use, or answers so many times late: that was this machine.
BUSY_SHARE, SLOW_TIMES = 0.7, 1.5


async def rehearse_plan(
    settings: Settings, records: int | None = None, tier: Tier | None = None, *, pilot: int = 20, quiet: bool = True
) -> RehearsedPlan:
    """Run a sample of the input against the built-in endpoint and compare it with the plan. Nothing is paid.

    `records` is the sample's size beside the pilot; None: what fits into about a minute. `tier` are the limits of the
    endpoint, over those of the config. The run folder is not touched: the rehearsal has one of its own, made anew.
    Raises SetupError.
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
    """The endpoint's limits: as requested, else as the table [rehearsal] says, else as [limits] does."""

    def limit(name: str) -> int | None:
        # The table [rehearsal] has no limit a day.
        values = (getattr(place, name, None) for place in (requested, settings.rehearsal, settings.limits))
        return next((value for value in values if value is not None), None)

    return Tier(**{each.name: limit(each.name) for each in fields(Tier)})


async def _latency(settings: Settings) -> tuple[float, str]:
    """Seconds that the endpoint takes for an answer, and who says so: the config, or the run so far."""
    if "rehearsal.latency_ms" not in settings.origins():
        outcomes = await asked_in(settings)
        if outcomes:
            return latency_of(outcomes), "the run so far"
    return settings.rehearsal.latency_ms / 1000, "rehearsal.latency_ms"


def folder_of(settings: Settings) -> Path:
    """The rehearsal's own run folder, beside the run's."""
    folder = Path(settings.output.dir)
    return folder.parent / f"{folder.name or folder.resolve().name}-rehearsal"


def _clear(folder: Path) -> None:
    """Remove the last rehearsal. Raises SetupError where the folder holds anything else, or is in use."""
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
    """What is other than in the run: who answers, where to, and nothing that waits for the clock or tells anyone."""
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
    """How many records are rehearsed after the pilot. A day's requests are not used up: nobody waits for tomorrow."""
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
    """What the plan says of so many records, under the limits that a sample can feel."""
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
    """What the sample took, and the shares of the limits that were in use."""
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
    """What held the sample up: the limit that was used most, or, where none was used up and it was late, what else."""
    late = planned.seconds is not None and (happened.seconds or 0.0) > LATE_TIMES * planned.seconds
    # After a refusal it waits, and an answer is late for that: not the machine's doing.
    slow = effort.answered_in_s > SLOW_TIMES * latency_s and not happened.refused
    if happened.binding not in used or not late:
        return happened.binding
    if max(used.values()) > IDLE_SHARE and not (slow and happened.binding == "concurrency"):
        return happened.binding
    return MACHINE if effort.core_share > BUSY_SHARE or slow else UNKNOWN


def whole_of(settings: Settings, plan: Plan, happened: Workload) -> Workload:
    """All records of the plan, at what happened with some; the day's limit and the hours counted in."""
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
