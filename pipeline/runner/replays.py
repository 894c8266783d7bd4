"""Reading the kept answers again: a mended callback or other columns, and not one call."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from pipeline.errors import AnswerError, SetupError
from pipeline.records import Outcome, Problem, Status
from pipeline.runner.marks import is_marked, mark_simulated
from pipeline.runner.parts import task_of
from pipeline.runner.runlog import run_log, tell
from pipeline.runner.session import layout_of, outputs_of
from pipeline.settings import Settings
from pipeline.stats import RunSummary, Stats
from pipeline.store import Ledger, RunDir, Sinks
from pipeline.task import Task

BLOCK = 256


async def replay(settings: Settings) -> RunSummary:
    """Read every kept answer again, call the callback, write the files anew. Makes no call. Raises SetupError."""
    task, run_dir = task_of(settings), RunDir(Path(settings.output.dir))
    if not run_dir.ledger.exists():
        raise SetupError(f"{run_dir.path}: there is no run here to replay")
    stats = Stats(time.monotonic)
    async with AsyncExitStack() as stack:
        stack.enter_context(run_dir.open_for_writing())
        stack.enter_context(run_log(run_dir.log))
        ledger = await stack.enter_async_context(await Ledger.open(run_dir.ledger))
        tell("replay begins")
        # The last session's counts are not those of the ledger from here on, also if this is killed.
        run_dir.clear_summary()
        await _read_again(task, ledger, stats)
        sinks = await Sinks.start(run_dir, ledger, layout_of(settings, task))
        await sinks.finish(all_done=True)
        summary = await _summary(settings, run_dir, ledger, stats)
        run_dir.write_summary(summary.as_dict())
        tell("replay ends", records=stats.records)
    return summary


async def _summary(settings: Settings, run_dir: RunDir, ledger: Ledger, stats: Stats) -> RunSummary:
    counts, problems, totals = await ledger.count_by_status(), await ledger.problem_counts(), await ledger.totals()
    manifest = run_dir.read_manifest() or {}
    unlabelled = counts[Status.REJECTED] + counts[Status.FAILED]
    return RunSummary(
        run_dir=str(run_dir.path),
        ended="complete",
        exit_code=1 if unlabelled else 0,
        labelled=counts[Status.LABELLED],
        rejected=counts[Status.REJECTED],
        failed=counts[Status.FAILED],
        pending=None,
        problems=problems,
        session_records=stats.records,
        session_s=stats.elapsed_s,
        calls=0,
        refusals=0,
        retries={},
        usage=totals.usage,
        cost_usd=None if totals.unpriced else totals.cost_usd,
        latency_p50_s=None,
        latency_p95_s=None,
        outages=0,
        outage_s=0.0,
        simulated=bool(manifest.get("simulated")),
        reason=f"{stats.records:,} kept answers read again, no call made",
        files=outputs_of(settings, run_dir),
    )


async def _read_again(task: Task, ledger: Ledger, stats: Stats) -> None:
    """Outcomes that have an answer and come out otherwise than before are replaced, block by block."""
    last, seq = await ledger.last_seq(), 0
    while seq < last and (block := await ledger.rows_after(seq, BLOCK)):
        seq = block[-1][0]
        changed: list[Outcome] = []
        for at, old in block:
            if at > last or old.answer is None:
                continue
            new = await _again(old, task)
            new = mark_simulated(new) if is_marked(old) else new
            stats.written(new)
            if (new.status, new.label, new.problem) != (old.status, old.label, old.problem):
                changed.append(new)
        if changed:
            await ledger.replace(changed, "replay")


async def _again(old: Outcome, task: Task) -> Outcome:
    assert old.answer is not None
    try:
        label = task.read(old.answer, old.record)
        label = {**label, **await task.call_back(label, old.record)}
    except AnswerError as error:
        return replace(old, status=Status.REJECTED, label=None, problem=Problem(error.code, str(error)))
    return replace(old, status=Status.LABELLED, label=label, problem=None)
