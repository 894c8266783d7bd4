"""Reads the stored answers again, with a fixed callback or other columns, without a call."""

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from pipeline.engine import InterviewContext, Panel, read_again
from pipeline.errors import SetupError
from pipeline.labelfields import Rename
from pipeline.parts import is_marked_simulated, mark_simulated, open_sinks, outputs_of, panel_of, price_for, task_of
from pipeline.records import Outcome
from pipeline.runlog import log_event, run_log
from pipeline.runner.corrections import write_late
from pipeline.runner.costs import ledger_facts
from pipeline.runner.label_renames import refuse_half_renamed
from pipeline.runner.session_parts import ReportWriter
from pipeline.runner.summary import finish_summary
from pipeline.runner.verification import count_pending
from pipeline.settings import Settings
from pipeline.stats import RunSummary, Stats
from pipeline.store import Ledger, RunDir, move_changed_files, renames_of
from pipeline.task import Task

BLOCK = 256


async def replay(settings: Settings, *, after: ReportWriter | None = None) -> RunSummary:
    """Read every stored answer again, call the callback, and rewrite the files. Makes no call. Raises SetupError.

    `after` makes a file from the summary.
    """
    task, run_dir = task_of(settings), RunDir(Path(settings.output.dir))
    if not run_dir.ledger.exists():
        raise SetupError(f"{run_dir.path}: there is no run here to replay")
    stats = Stats(time.monotonic)
    async with AsyncExitStack() as stack:
        stack.enter_context(run_dir.open_for_writing())
        run_dir.refuse_leftovers()
        run_dir.refuse_shards()
        refuse_half_renamed(run_dir)
        stack.enter_context(run_log(run_dir.log))
        ledger = await stack.enter_async_context(await Ledger.open(run_dir.ledger))
        log_event("replay begins")
        moved = await move_changed_files(run_dir, ledger)
        # From here on, the last session's counts are not the ledger's, even after a kill.
        run_dir.clear_summary()
        panel = panel_of(settings, task)
        context = _context(task, panel, await ledger.run_id(), renames_of(run_dir.read_manifest()))
        keeps = task.max_turns > 1 or panel is not None
        await _read_again(context, ledger, stats, settings.limits.max_repairs, keeps_answers=keeps)
        sinks = await open_sinks(settings, task, run_dir, ledger, moved)
        try:
            await sinks.finish()
        finally:
            await sinks.close()
        summary = await _summary(settings, run_dir, ledger, stats, [*map(str, sinks.moved), *sinks.unused])
        summary = await finish_summary(summary, settings, run_dir, after)
        log_event("replay ends", records=stats.records)
    await write_late(run_dir)
    return summary


async def _summary(
    settings: Settings, run_dir: RunDir, ledger: Ledger, stats: Stats, notes: Sequence[str]
) -> RunSummary:
    facts, totals = await ledger_facts(ledger, price_for(settings))
    manifest = run_dir.read_manifest() or {}
    pending = await count_pending(run_dir)
    line = f"{stats.records:,} stored answers read again, no call made"
    return RunSummary(
        run_dir=str(run_dir.path),
        ended="complete" if pending == 0 else "replayed",
        exit_code=1 if facts["rejected"] + facts["failed"] else 0,
        **facts,
        pending=pending,
        session_records=stats.records,
        session_s=stats.elapsed_s,
        calls=0,
        refusals=0,
        retries={},
        usage=totals.usage,
        latency_p50_s=None,
        latency_p95_s=None,
        outages=0,
        outage_s=0.0,
        simulated=bool(manifest.get("simulated")),
        reason=line if pending is not None else f"{line}; pending records were not counted: the input cannot be read",
        next_step=f"to continue: labelpipe run {settings.config_path or ''}".rstrip() if pending else "",
        files=outputs_of(settings, run_dir),
        notes=notes,
    )


def _context(
    task: Task, panel: Panel | None, run_id: str, renames: Sequence[Rename]
) -> Callable[[Outcome], InterviewContext]:
    """Return how to read each outcome's answer. Answers from before a rename of labels may have the old names."""
    tasks = [task.with_renames(renames[first:]) for first in range(len(renames) + 1)]
    later = [InterviewContext(one, run_id=run_id, panel=panel) for one in tasks]
    return lambda outcome: later[sum(one.at <= (outcome.finished_at or 0) for one in renames)]


async def _read_again(
    context: Callable[[Outcome], InterviewContext],
    ledger: Ledger,
    stats: Stats,
    max_repairs: int,
    *,
    keeps_answers: bool,
) -> None:
    """Read answers again, block by block, and replace the outcomes that differ from before."""
    last, seq = await ledger.last_seq(), 0
    while seq < last and (block := await ledger.rows_after(seq, BLOCK)):
        seq = block[-1][0]
        # Otherwise, the outcome has the only answer that counts.
        saved = await ledger.answers_of([old.record.key for _, old in block]) if keeps_answers else {}
        changed: list[Outcome] = []
        for at, old in block:
            if at > last or old.answer is None:
                continue
            new = await read_again(context(old), old, saved.get(old.record.key, ()), max_repairs)
            new = mark_simulated(new) if is_marked_simulated(old) and new is not old else new
            stats.record_outcome(new)
            if (new.status, new.label, new.rows, new.problem) != (old.status, old.label, old.rows, old.problem):
                changed.append(new)
        if changed:
            await ledger.replace(changed, "replay")
