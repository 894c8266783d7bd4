"""The summary of a session: counts from the ledger, rates from this process, and what to do next."""

from __future__ import annotations

import asyncio

from pipeline.engine import InterruptedRunError, is_hopeless
from pipeline.limits import Admission
from pipeline.readers import Progress as ReadProgress
from pipeline.records import Status
from pipeline.stats import RunSummary, Stats
from pipeline.store import Ledger, RunDir

EXIT_COMPLETE, EXIT_UNLABELLED, EXIT_CANNOT_START, EXIT_STOPPED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


async def summarise(
    run_dir: RunDir,
    ledger: Ledger,
    stats: Stats,
    admission: Admission,
    reading: ReadProgress,
    *,
    complete: bool,
    price_known: bool,
    simulated: bool,
    outputs: dict[str, str],
    command: str,
) -> RunSummary:
    """What the run came to."""
    counts = await ledger.count_by_status()
    totals = await ledger.totals()
    unlabelled = counts[Status.REJECTED] + counts[Status.FAILED]
    reason = admission.gate.stopped
    ended, code = _ending(complete, reason, unlabelled, stats)
    outages = admission.gate.outages + ([admission.gate.outage] if admission.gate.outage else [])
    now = asyncio.get_running_loop().time()  # an outage that goes on has no end yet
    return RunSummary(
        run_dir=str(run_dir.path),
        ended=ended,
        exit_code=code,
        labelled=counts[Status.LABELLED],
        rejected=counts[Status.REJECTED],
        failed=counts[Status.FAILED],
        pending=_pending(complete, reading, sum(counts.values())),
        problems=await ledger.problem_counts(),
        session_records=stats.records,
        session_s=stats.elapsed_s,
        calls=admission.calls,
        refusals=admission.refusals,
        retries=dict(stats.retries),
        usage=totals.usage,
        cost_usd=totals.cost_usd if price_known or not totals.unpriced else None,
        latency_p50_s=stats.latencies.percentile_s(50),
        latency_p95_s=stats.latencies.percentile_s(95),
        outages=len(outages),
        outage_s=sum((outage.until or now) - outage.since for outage in outages),
        simulated=simulated,
        reason="" if reason is None else str(reason),
        next_step=_next_step(ended, code, unlabelled, command),
        learned=_learned(admission),
        files=outputs,
    )


def _ending(complete: bool, reason: Exception | None, unlabelled: int, stats: Stats) -> tuple[str, int]:
    if complete:
        return "complete", EXIT_UNLABELLED if unlabelled else EXIT_COMPLETE
    if isinstance(reason, InterruptedRunError):
        return "interrupted", EXIT_INTERRUPTED
    if is_hopeless(reason) and not stats.answers:
        return "stopped", EXIT_CANNOT_START
    return "stopped", EXIT_STOPPED


def _pending(complete: bool, reading: ReadProgress, done: int) -> int | None:
    if complete:
        return 0
    return None if reading.exact_total is None else max(0, reading.exact_total - done)


def _learned(admission: Admission) -> dict[str, float]:
    """Limits of the server that were below ours, or that it had to refuse calls for."""
    found = {"requests_per_minute": admission.request_pace, "tokens_per_minute": admission.token_pace}
    learned: dict[str, float] = {
        name: round(pace.learned)
        for name, pace in found.items()
        if pace.learned is not None and _is_news(pace.learned, pace.configured, admission.refusals)
    }
    if admission.tuner is not None:
        learned["concurrency"] = admission.tuner.limit
    return learned


def _is_news(learned: float, configured: float | None, refusals: int) -> bool:
    """Whether the config should say it: less than it says, or where it says nothing and calls were refused."""
    return refusals > 0 if configured is None else learned < 0.99 * configured


def _next_step(ended: str, code: int, unlabelled: int, command: str) -> str:
    if ended == "complete" and not unlabelled:
        return ""
    if ended == "complete":
        return f"labelpipe retry {command}".rstrip()
    if code == EXIT_CANNOT_START:
        return f"mend it, then: labelpipe run {command}".rstrip()
    return f"go on with: labelpipe run {command}".rstrip()
