"""One session of a run: the parts built, the engine run, the folder left in order, a summary given."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.control import Inbox
from pipeline.engine import (
    Asker,
    Ending,
    Feed,
    InterruptedRunError,
    Lookups,
    Pool,
    PoolSizes,
    Provider,
    StopSwitch,
)
from pipeline.errors import LabelpipeError
from pipeline.limits import DayMeter, Price, Spend
from pipeline.notify import Notifier
from pipeline.progress import Progress
from pipeline.readers import Progress as ReadProgress
from pipeline.readers import Source, peek, read_records
from pipeline.records import Outcome, Record, Status
from pipeline.runner.changes import accept_changes, find_changes, follow_moves, manifest_of
from pipeline.runner.keys import repeated_in
from pipeline.runner.live import Live
from pipeline.runner.marks import mark_simulated
from pipeline.runner.parts import (
    admission_of,
    budget_of,
    is_simulated,
    notified_of,
    open_provider,
    price_for,
    rules_of,
    sources_of,
    task_of,
)
from pipeline.runner.runlog import run_log, tell
from pipeline.runner.screens import closing_lines
from pipeline.runner.steering import Helm, Steering
from pipeline.runner.summary import summarise
from pipeline.settings import Settings
from pipeline.stats import RunSummary, Stats
from pipeline.store import Layout, Ledger, RunDir, Selection, Sinks
from pipeline.task import Task
from pipeline.telemetry import Telemetry, open_telemetry

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller may ask for beside the settings.

    `relabel`, `keep`  what to do when the folder's run was made otherwise; neither: ChangedError
    `retry`            ask again for records without a label; `retry_codes` names those meant, empty: all
    `quiet`            show nothing
    `provider`         a function that is called instead of the API; for tests and for models of your own
    """

    relabel: bool = False
    keep: bool = False
    retry: bool = False
    retry_codes: frozenset[str] = frozenset()
    quiet: bool = False
    provider: Provider | None = None


def run(settings: Settings, wishes: Wishes | None = None) -> RunSummary:
    """Label the input of `settings`; the same call resumes. Works in a notebook too. Raises SetupError.

    In a program that has an event loop of its own, `await arun(settings)`.
    """
    return in_loop(arun(settings, wishes))


def in_loop(work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` gives, also where a loop runs in this thread already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    done: list[_T] = []
    failed: list[BaseException] = []

    def target() -> None:
        try:
            done.append(asyncio.run(work))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=target, name="labelpipe")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


async def arun(settings: Settings, wishes: Wishes | None = None) -> RunSummary:
    """`run`, for a program that has an event loop."""
    wishes = wishes or Wishes()
    task, sources = task_of(settings), sources_of(settings)
    for source in sources:
        if source.path is not None:
            # A bad header or encoding is told now, not in mid-run.
            await peek(source, encoding=settings.input.encoding, n=1)
    run_dir = RunDir(Path(settings.output.dir))
    async with AsyncExitStack() as stack:
        stack.enter_context(run_dir.open_for_writing())
        stack.enter_context(run_log(run_dir.log))
        ledger = await stack.enter_async_context(await Ledger.open(run_dir.ledger))
        provider = wishes.provider or await open_provider(settings, stack)
        telemetry = _open_telemetry(settings, stack)
        if telemetry is not None:
            provider = telemetry.around(provider, timeout_s=settings.model.timeout_s)
        await _prepare(settings, wishes, task, sources, run_dir, ledger)
        notifier = Notifier(*notified_of(settings))
        stack.push_async_callback(notifier.close)
        parts = await _limits_of(settings, ledger)
        session = _Session(settings, task, sources, run_dir, ledger, provider, parts, notifier, telemetry)
        return await session.run(quiet=wishes.quiet)


def _open_telemetry(settings: Settings, stack: AsyncExitStack) -> Telemetry | None:
    telemetry = open_telemetry(settings.telemetry.enabled, model=settings.model.name, server=settings.model.base_url)
    if telemetry is not None:
        stack.push_async_callback(telemetry.close)
    return telemetry


#: Where the ledger keeps what the run has cost at most, for the budget of the next session.
_MARK = "budget"


async def _limits_of(settings: Settings, ledger: Ledger) -> dict[str, Any]:
    """The limits that last over sessions: the day's requests and the budget."""
    budget = None
    if settings.limits.budget_usd is not None or settings.limits.budget_tokens is not None:
        totals = await ledger.totals()
        mark = codec.loads(await ledger.meta_get(_MARK) or "{}")
        budget = budget_of(
            settings,
            spent_usd=max(totals.cost_usd, mark.get("usd") or 0.0),
            spent_tokens=max(totals.usage.total, mark.get("tokens") or 0),
        )

    async def keep(spend: Spend) -> None:
        await ledger.meta_set(_MARK, codec.dumps({"usd": spend.usd, "tokens": spend.tokens}).decode())

    return {"day": day_meter(settings, ledger), "budget": budget, "keep_mark": keep}


def day_meter(settings: Settings, ledger: Ledger) -> DayMeter | None:
    """The requests a day, counted in the ledger."""
    limit = settings.limits.requests_per_day
    if limit is None:
        return None
    return DayMeter(limit, used=ledger.requests_on, add=ledger.add_requests, wall=time.time)


async def _prepare(
    settings: Settings, wishes: Wishes, task: Task, sources: Sequence[Source], run_dir: RunDir, ledger: Ledger
) -> None:
    """Compare with what is there, set aside what is to be asked again, write the manifest."""
    manifest = run_dir.read_manifest()
    if manifest is not None:
        changes = await find_changes(settings, task, sources, manifest, ledger)
        await accept_changes(changes, run_dir, ledger, relabel=wishes.relabel, keep=wishes.keep)
        if changes.moved:
            await follow_moves(settings, sources, ledger)
    if wishes.retry:
        moved = await ledger.supersede(_without_label(wishes.retry_codes), "retry")
        tell("retry", records=moved, codes=sorted(wishes.retry_codes))
    run_dir.write_manifest(manifest_of(settings, task, sources, before=manifest))
    run_dir.clear_summary()


def _without_label(codes: frozenset[str]) -> Selection:
    return Selection(statuses=frozenset({Status.REJECTED, Status.FAILED}), codes=codes or None)


class _Session:
    """The parts of one session and how they hang together."""

    def __init__(
        self,
        settings: Settings,
        task: Task,
        sources: Sequence[Source],
        run_dir: RunDir,
        ledger: Ledger,
        provider: Provider,
        limits: dict[str, Any],
        notifier: Notifier,
        telemetry: Telemetry | None,
    ) -> None:
        self._settings = settings
        self._notifier = notifier
        self._telemetry = telemetry
        self._task = task
        self._sources = sources
        self._run_dir = run_dir
        self._ledger = ledger
        self._stats = Stats(time.monotonic)
        self._reading = ReadProgress()
        self._price: Price | None = price_for(settings)
        self._admission = admission_of(settings, **limits)
        self._asker = Asker(provider, task, self._admission, self._stats, rules=rules_of(settings), price=self._price)
        self._provider = provider
        # All state that changes, beside the parts: whether a second signal cut the calls in flight off.
        self._cut_off = False

    @property
    def _simulated(self) -> bool:
        """Whether a rehearsal endpoint answers: the built-in one, or another one whose answers say so."""
        return is_simulated(self._settings) or getattr(self._provider, "simulated", None) is True

    async def run(self, *, quiet: bool) -> RunSummary:
        """Run to an ending; the summary is written and given."""
        before = await self._ledger.count_by_status()
        tell("session begins", outcomes=sum(before.values()), sources=[source.name for source in self._sources])
        sinks = await Sinks.start(self._run_dir, self._ledger, layout_of(self._settings, self._task))
        try:
            ending = await self._run_engine(sinks, before, quiet=quiet)
            await self._admission.close()
            await sinks.finish(all_done=ending is Ending.COMPLETE)
        finally:
            await sinks.close()
        return await self._close(complete=ending is Ending.COMPLETE)

    async def _run_engine(self, sinks: Sinks, before: Mapping[Status, int], *, quiet: bool) -> Ending:
        feed = Feed(self._records(), self._task.render, self._lookups())
        pool = Pool(feed.items(), self._asker, self._commit(sinks, feed), sizes=self._sizes())
        live = Live(
            self._run_dir,
            self._stats,
            self._admission,
            self._reading,
            before=before,
            price_known=self._price is not None,
            simulated=lambda: self._simulated,
            settings=self._settings,
            stop=lambda error: self._stop(pool, error),
            notifier=self._notifier,
            fit=pool.fit,
        )
        progress = Progress(live.snapshot, quiet=quiet)
        helm = Helm(
            asker=self._asker,
            admission=self._admission,
            notifier=self._notifier,
            make_day=lambda settings: day_meter(settings, self._ledger),
            stop=lambda error: self._stop(pool, error),
            say=progress.say,
            take_over=live.take_over,
        )
        live.steering = Steering(self._settings, helm, Inbox(self._run_dir.path))
        me = asyncio.current_task()
        assert me is not None

        def soft(signal_name: str) -> None:
            progress.say(f"labelpipe: {signal_name}: letting {self._admission.gate.in_flight} calls in flight end; "
                         "once more to cut them off.")  # fmt: skip
            self._stop(pool, InterruptedRunError(f"by {signal_name}"))

        watchers = [
            asyncio.create_task(progress.run(), name="progress"),
            asyncio.create_task(live.watch(progress), name="live"),
        ]

        def hard() -> None:
            self._cut_off = True
            me.cancel()

        try:
            with StopSwitch(soft, hard):
                return await self._to_an_ending(pool, me)
        finally:
            for watcher in watchers:
                watcher.cancel()
            for ended in await asyncio.gather(*watchers, return_exceptions=True):
                if not isinstance(ended, asyncio.CancelledError):
                    tell("watching broke off", level=logging.ERROR, error=repr(ended))
                    progress.say(f"labelpipe: the progress display broke off: {ended!r}. The run itself went on.")
            progress.close()

    async def _to_an_ending(self, pool: Pool, me: asyncio.Task[Any]) -> Ending:
        """A hard stop after a soft one is an ending too: what was answered is written."""
        try:
            return await pool.run()
        except asyncio.CancelledError:
            if not self._cut_off:
                raise
            me.uncancel()
            return Ending.STOPPED

    def _stop(self, pool: Pool, reason: LabelpipeError) -> None:
        tell("stopping", level=logging.WARNING, code=reason.code, reason=str(reason))
        self._admission.gate.set_paused(False)
        self._admission.gate.stop(reason)
        pool.stop()

    def _records(self) -> AsyncGenerator[list[Record], None]:
        wanted = self._settings.input
        return read_records(
            self._sources, key=wanted.key, encoding=wanted.encoding, limit=wanted.limit, progress=self._reading
        )

    def _lookups(self) -> Lookups:
        ledger = self._ledger

        in_order = self._settings.output.order == "input"

        async def done(records: Sequence[Record]) -> set[str]:
            known = await ledger.known([record.key for record in records])
            if in_order and known:
                # An input that grew in the middle moves what comes after.
                moved = [one for one in records if one.key in known and known[one.key].ordinal != one.ordinal]
                if moved:
                    await ledger.update_places(moved)
            return set(known)

        async def repeated(records: Sequence[Record]) -> set[int]:
            return await repeated_in(ledger, records)

        return Lookups(
            done=done,
            repeated=repeated if self._settings.input.key is not None else None,
            answered=ledger.find_request if self._settings.task.dedupe else None,
        )

    def _sizes(self) -> PoolSizes:
        return PoolSizes.for_concurrency(self._admission.gate.concurrency, self._settings.limits.grace_s)

    def _commit(self, sinks: Sinks, feed: Feed) -> Callable[[Sequence[Outcome]], Coroutine[Any, Any, None]]:
        ledger, stats = self._ledger, self._stats

        async def commit(outcomes: Sequence[Outcome]) -> None:
            if self._simulated:
                outcomes = [mark_simulated(outcome) for outcome in outcomes]
            seqs = await ledger.commit(outcomes, sinks.marks())
            await sinks.write(outcomes, seqs)
            feed.settled(outcomes)
            if self._telemetry is not None:
                self._telemetry.written(outcomes)
            for outcome in outcomes:
                stats.written(outcome)

        return commit

    async def _close(self, *, complete: bool) -> RunSummary:
        manifest = self._run_dir.read_manifest() or {}
        summary = await summarise(
            self._run_dir,
            self._ledger,
            self._stats,
            self._admission,
            self._reading,
            complete=complete,
            price_known=self._price is not None,
            simulated=self._simulated or bool(manifest.get("simulated")),
            outputs=outputs_of(self._settings, self._run_dir),
            command=str(self._settings.config_path or ""),
        )
        self._run_dir.write_summary(summary.as_dict())
        if self._simulated and manifest and not manifest.get("simulated"):
            self._run_dir.write_manifest({**manifest, "simulated": True})
        await self._notifier.tell("end", "\n".join(closing_lines(summary)), summary.as_dict())
        tell("session ends", ended=summary.ended, reason=summary.reason, exit_code=summary.exit_code)
        return summary


def layout_of(settings: Settings, task: Task) -> Layout:
    """How the files of rows look."""
    columns = settings.output.columns
    extra = (*task.extra_columns, *(("simulated",) if is_simulated(settings) else ()))
    return Layout(
        labels=(*task.columns, *extra),
        columns=tuple(columns or ()),
        fixed=columns is not None,
        formats=tuple(settings.output.formats),
        order=settings.output.order,
        escape_formulas=settings.output.escape_formulas,
    )


def outputs_of(settings: Settings, run_dir: RunDir) -> dict[str, str]:
    """The files a person will look for."""
    found = {"labels": str(run_dir.labels(settings.output.formats[0])), "failed": str(run_dir.failed)}
    return {**found, "log": str(run_dir.log)}
