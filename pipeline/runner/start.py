"""Starts a session in any kind of program: compares it with the folder, builds the parts, and runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AsyncExitStack
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline import codec
from pipeline.control import send
from pipeline.engine import StopSwitch, under
from pipeline.errors import ConfigError
from pipeline.limits import NOTHING, Admission, Budget, DayMeter, SaveSpendBound, Spend
from pipeline.notify import Notifier
from pipeline.parts import (
    admission_of,
    budget_of,
    gold_of,
    has_bound,
    media_for,
    notify_targets,
    open_provider,
    panel_of,
    price_for,
    sources_of,
    task_of,
    validate_prompt,
    validate_selection,
    validate_settings,
)
from pipeline.providers import FunctionProvider
from pipeline.readers import RecordInput, Source, Stamp
from pipeline.records import RECORD_CODES, Provider, Status
from pipeline.runlog import log_event, run_log
from pipeline.runner.columns import validate_columns
from pipeline.runner.corrections import labelled_by_people, settle_corrections, write_late
from pipeline.runner.costs import paid_so_far, total_spend
from pipeline.runner.label_renames import refuse_half_renamed
from pipeline.runner.lanes import batch_api_of, choose_batch_api, first_part
from pipeline.runner.run_changes import accept_changes, find_changes, job_digest, manifest_of, stamps_of
from pipeline.runner.session import Session
from pipeline.runner.session_parts import RunOptions, SessionParts
from pipeline.settings import Settings
from pipeline.stats import RunSummary
from pipeline.store import BUDGET_KEY, Ledger, MovedFile, RunDir, Selection, clear_merged, move_changed_files
from pipeline.task import Task
from pipeline.telemetry import Telemetry, open_telemetry
from pipeline.threads import in_daemon

if TYPE_CHECKING:
    from pipeline.leases import LeaseClient

_T = TypeVar("_T")

#: How often a notebook's thread checks whether the run has ended, in seconds.
JOIN_S = 0.2


def run(settings: Settings, options: RunOptions | None = None, *, records: RecordInput | None = None) -> RunSummary:
    """Label the input of `settings`, or `records`; the same call resumes. Works in a notebook too. Raises SetupError.

    `records` are mappings in any iterable or asynchronous iterable, or a pandas or polars frame. In a program with its
    own event loop, use `await arun(settings)`.
    """
    switch = StopSwitch()
    return run_sync(_label(settings, _with_records(options, records), switch), switch)


def run_sync(work: Coroutine[Any, Any, _T], switch: StopSwitch | None = None) -> _T:
    """Return the result of `work`, even if a loop already runs in this thread (a notebook). `switch` stops it."""
    stopped_by = switch or StopSwitch()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work if switch is None else under(stopped_by, work))
    return _in_thread(under(stopped_by, work), stopped_by)


def _in_thread(work: Coroutine[Any, Any, _T], switch: StopSwitch) -> _T:
    """Return the result of `work` from a loop in its own thread. KeyboardInterrupt, a notebook's stop, is a Ctrl-C.

    It returns when the work ends: the first one lets calls in flight end, and the second one cancels them.
    """
    # A loop in this thread may handle signals in its own way, or not at all, so the switch receives them here.
    with switch.listening(), ThreadPoolExecutor(1, "labelpipe") as pool:
        future = pool.submit(asyncio.run, work)
        while not future.done():
            try:
                wait([future], JOIN_S)  # with a timeout: on some systems a wait cannot be interrupted
            except KeyboardInterrupt:
                switch.press("SIGINT")
    return future.result()


def _with_records(options: RunOptions | None, records: RecordInput | None) -> RunOptions:
    options = options or RunOptions()
    return options if records is None else replace(options, records=records)


async def arun(
    settings: Settings, options: RunOptions | None = None, *, records: RecordInput | None = None
) -> RunSummary:
    """Do what `run` does, in a running event loop."""
    switch = StopSwitch()
    return await under(switch, _label(settings, _with_records(options, records), switch))


async def _label(settings: Settings, options: RunOptions, switch: StopSwitch) -> RunSummary:
    """Run a session, and write what people answered at its end."""
    summary = await _in_session(settings, options, switch)
    await write_late(RunDir(Path(settings.output.dir)))
    return summary


async def _in_session(settings: Settings, options: RunOptions, switch: StopSwitch) -> RunSummary:
    """Build and run a session. Until it begins, a signal cancels it."""
    task = task_of(settings)
    validate_prompt(task)
    # Before anything is archived, because these may refuse the task.
    panel, gold = panel_of(settings, task), await gold_of(settings, task)
    # In a thread, so that an address that does not answer cannot delay a Ctrl-C.
    sources = await in_daemon(partial(sources_of, settings, options.records))
    validate_settings(settings)
    await validate_columns(settings, sources)
    await validate_selection(sources, settings)
    run_dir = RunDir(Path(settings.output.dir))
    async with AsyncExitStack() as stack:
        ledger = await _opened(run_dir, options, stack)
        base = await _base_of(options, stack)
        provider = await _provider_of(settings, options, stack)
        api = await batch_api_of(settings, task, provider, ledger, run_dir) if options.stop_first is None else None
        provider, telemetry = _with_telemetry(provider, settings, stack)
        was_simulated = await _holds_simulated(run_dir, ledger)
        stamps = await in_daemon(partial(stamps_of, sources))
        moved, notes = await _prepare(settings, options, task, sources, run_dir, ledger, stamps)
        batches, left, lane_notes = await choose_batch_api(
            settings, sources, ledger, api, asks=options.stop_first is None
        )
        notifier = Notifier(*notify_targets(settings), hidden=settings.secret_variables())
        stack.push_async_callback(notifier.close)
        # The lease server counts the requests of all shards.
        most_a_day = settings.limits.requests_per_day if options.lease is None else None
        day = DayMeter(most_a_day, used=ledger.requests_on, add=ledger.add_requests, wall=time.time)
        admission = await _admission_of(settings, task, ledger, day, options)
        run_id = await _begin_lease(options.lease, settings, task, sources, ledger, admission, stack)
        parts = SessionParts(
            settings=settings,
            options=options,
            task=task,
            sources=sources,
            run_dir=run_dir,
            ledger=ledger,
            base=base,
            provider=provider,
            day=day,
            admission=admission,
            notifier=notifier,
            switch=switch,
            telemetry=telemetry,
            prepare=await media_for(settings, task, stack),
            run_id=run_id,
            was_simulated=was_simulated,
            moved=moved,
            notes=[*notes, *lane_notes],
            stamps=stamps,
            gold=gold,
            panel=panel,
            batches=batches,
            left=left,
            first_part=await first_part(settings, base),
        )
        return await Session(parts).run()


async def _holds_simulated(run_dir: RunDir, ledger: Ledger) -> bool:
    """Whether there are simulated answers, written or only collected."""
    is_simulated = bool((run_dir.read_manifest() or {}).get("simulated"))
    return is_simulated and (await ledger.last_seq() > 0 or await ledger.has_answers())


async def _opened(run_dir: RunDir, options: RunOptions, stack: AsyncExitStack) -> Ledger:
    """Open the folder's ledger, and lock the folder for writing."""
    stack.enter_context(run_dir.open_for_writing())
    run_dir.refuse_leftovers()
    refuse_half_renamed(run_dir)
    if options.stop_first is None:
        run_dir.refuse_shards()
    clear_merged(run_dir)
    ledger = await stack.enter_async_context(await Ledger.open(run_dir.ledger))
    if not await ledger.last_seq():
        run_dir.refuse_rows()
    # After the ledger, so a log without a ledger is never a run that was killed in its first moment.
    stack.enter_context(run_log(run_dir.log))
    return ledger


def _with_telemetry(provider: Provider, settings: Settings, stack: AsyncExitStack) -> tuple[Provider, Telemetry | None]:
    """Return the provider, wrapped in telemetry if that is enabled."""
    telemetry = open_telemetry(settings.telemetry.enabled, model=settings.model.name, server=settings.model.base_url)
    if telemetry is None:
        return provider, None
    stack.push_async_callback(telemetry.close)
    return telemetry.around(provider, timeout_s=settings.model.timeout_s), telemetry


async def _provider_of(settings: Settings, options: RunOptions, stack: AsyncExitStack) -> Provider:
    provider = options.provider
    if provider is None:
        return await open_provider(settings, stack)
    return provider if isinstance(provider, Provider) else FunctionProvider(provider)


async def _base_of(options: RunOptions, stack: AsyncExitStack) -> Ledger | None:
    if options.base is None or not options.base.exists():
        return None
    return await stack.enter_async_context(await Ledger.open(options.base, read_only=True))


async def _begin_lease(
    lease: LeaseClient | None,
    settings: Settings,
    task: Task,
    sources: Sequence[Source],
    ledger: Ledger,
    admission: Admission,
    stack: AsyncExitStack,
) -> str:
    """Start a lease, if there is a lease server. Return the run's id, which all shards share."""
    if lease is None:
        return await ledger.run_id()
    job = await stack.enter_async_context(lease.at_work())
    lease.refuse_other(job, job_digest(settings, task, sources))
    await ledger.meta_set("run_id", job.run_id)
    lease.order = partial(send, Path(settings.output.dir), "set")
    await lease.begin(admission.gate.stop, admission.budget)
    return job.run_id


async def _admission_of(
    settings: Settings, task: Task, ledger: Ledger, day: DayMeter, options: RunOptions
) -> Admission:
    budget, save_spend_bound = await _budget_of(settings, ledger)
    lease = options.lease
    return admission_of(
        settings,
        constant_tokens=task.constant_tokens,
        day=day,
        budget=budget,
        save_spend_bound=save_spend_bound,
        resource=options.resource if lease is None else lease,
        top_up=None if lease is None else lease.top_up,
    )


async def _budget_of(settings: Settings, ledger: Ledger) -> tuple[Budget | None, SaveSpendBound]:
    """Return the budget, reduced by all that the run has cost so far, and a function that saves its use."""
    # Also counted without a cap: one may be set during the run.
    spent_usd, spent_tokens, maybe = 0.0, 0, NOTHING
    if has_bound(settings):
        price = price_for(settings)
        spent_usd, spent_tokens = await total_spend(ledger, price)
        totals = await paid_so_far(ledger, price)
        usd, tokens = spent_usd - totals.cost_usd, spent_tokens - totals.usage.total
        # Less than the cost of any token is a rounding error.
        maybe = Spend(usd if usd > 1e-9 else 0.0, tokens)
    budget = budget_of(settings, spent_usd=spent_usd, spent_tokens=spent_tokens, maybe=maybe)

    async def keep(spend: Spend) -> None:
        await ledger.meta_set(BUDGET_KEY, codec.dumps({"usd": spend.usd, "tokens": spend.tokens}).decode())

    return budget, keep


async def _prepare(
    settings: Settings,
    options: RunOptions,
    task: Task,
    sources: Sequence[Source],
    run_dir: RunDir,
    ledger: Ledger,
    stamps: Sequence[Stamp | None],
) -> tuple[list[MovedFile], list[str]]:
    """Compare with the folder, archive what must be asked again, and write the manifest.

    Return the files that were moved aside because they are not the run's, and notes to report.
    """
    manifest = run_dir.read_manifest()
    _refuse_unknown(options.retry_codes)
    changes = None
    if manifest is not None:
        changes = await find_changes(settings, task, sources, manifest, ledger, stamps)
        changes.refuse(run_dir, relabel=options.relabel, keep=options.keep)
        await settle_corrections(run_dir, changes, options.corrections, relabel=options.relabel)
    # While the ledger is as the last session left it, it shows what a file may contain.
    moved = await move_changed_files(run_dir, ledger)
    for one in moved:
        log_event("moved aside", level=logging.WARNING, file=one.name, to=str(one.to), why=one.why)
    if changes is not None:
        await accept_changes(changes, ledger, relabel=options.relabel, keep=options.keep)
    if options.retry:
        await ledger.reject_damaged()
        by_people = await labelled_by_people(run_dir, ledger)
        unlabelled = frozenset({Status.REJECTED, Status.FAILED})
        again = await ledger.archive(Selection(unlabelled, options.retry_codes or None, without=by_people), "retry")
        log_event("retry", records=again, codes=sorted(options.retry_codes))
    run_dir.write_manifest(
        manifest_of(settings, task, sources, before=manifest, overrides=options.overrides, stamps=stamps)
    )
    run_dir.clear_summary()
    return moved, changes.notes() if changes is not None else []


def _refuse_unknown(codes: Iterable[str]) -> None:
    """Raise ConfigError for a code that no record can have."""
    for code in sorted(codes):
        if code not in RECORD_CODES:
            near = get_close_matches(code, RECORD_CODES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(RECORD_CODES))}"
            raise ConfigError(f"--only {code}: no record can fail with this code; {hint}")
