"""Runs one session: runs, watches, and controls the engine, finishes the files, and returns a summary."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from pipeline.control import Inbox
from pipeline.engine import (
    Asker,
    Beginning,
    Ending,
    InterviewContext,
    Job,
    Journal,
    Pool,
    PoolSizes,
    Producer,
    interruption,
)
from pipeline.errors import LabelpipeError
from pipeline.parts import (
    read,
    rules_of,
    tariff_of,
)
from pipeline.progress import Progress
from pipeline.readers import ReadProgress
from pipeline.records import Outcome, Record, Status
from pipeline.runlog import log_event
from pipeline.runner.canaries import Canaries, warn_of_shifts
from pipeline.runner.columns import check_columns_as_read
from pipeline.runner.lanes import lane_of, lane_updater
from pipeline.runner.live_controls import ControlLoop, Controls
from pipeline.runner.lookups import build_lookups, end_pass, read_changes, stop_before_asking, with_notes
from pipeline.runner.notifications import Notifications
from pipeline.runner.opening import print_opening
from pipeline.runner.outcome_writer import OutcomeWriter
from pipeline.runner.session_parts import SessionParts
from pipeline.runner.session_view import SessionView, background_tasks, report_reading
from pipeline.runner.summary import finish_summary, summarise
from pipeline.runner.supervisor import Supervisor
from pipeline.settings import Settings
from pipeline.stats import RunSummary, Stats


class Session:
    """One session, built from its parts."""

    def __init__(self, parts: SessionParts) -> None:
        settings = parts.settings
        self._parts = parts
        self._settings = settings
        self._ledger = parts.ledger
        self._admission = parts.admission
        self._stats = Stats(time.monotonic)
        self._reading = ReadProgress()
        tariff = tariff_of(settings)
        self._price = tariff.price
        # A lambda, because the asker does not exist yet.
        self._writer = OutcomeWriter(parts, self._stats, lambda *of: self._asker.error_handler.record(*of))  # noqa: PLW0108
        self._journal = Journal(self._writer.save_answers, parts.admission.gate)
        self._lane = lane_of(parts, self._stats)
        self._asker = Asker(
            parts.provider, InterviewContext(parts.task, run_id=parts.run_id, panel=parts.panel),
            parts.admission, self._stats,
            rules=rules_of(settings), journal=self._journal, tariff=tariff, prepare=parts.prepare,
            ping=parts.provider.ping, later=None if self._lane is None else self._lane.defer,
        )  # fmt: skip
        self._canaries = Canaries(parts, self._stats, lambda: self._writer.is_simulated)
        command = parts.options.command
        self._command = str(settings.config_path or "") if command is None else command
        self._notifications = Notifications(parts.notifier, self._command)
        # Mutable state, besides the parts: whether a second signal canceled the calls in flight, and the notes to
        # report at the end.
        self._cut_off = False
        self._notes = [*map(str, parts.moved), *parts.notes]

    async def run(self) -> RunSummary:
        """Run to an ending, and write and return the summary. Errors are also sent as notifications."""
        try:
            return await self._run()
        except Exception as error:
            await self._notifications.on_error(error, {"run_dir": str(self._parts.run_dir.path)})
            raise

    async def _run(self) -> RunSummary:
        before, sources = await self._ledger.count_by_status(), self._parts.sources
        log_event("session begins", outcomes=sum(before.values()), sources=[source.name for source in sources])
        self._asker.judge.proven = self._asker.first_records_breaker.is_off = before[Status.LABELLED] > 0
        await self._writer.open()
        try:
            try:
                ending = await self._run_engine(before)
            finally:
                self._asker.close()
                await self._journal.close()
            await self._admission.close()
            await end_pass(self._ledger, sources, self._reading, complete=ending is Ending.COMPLETE)
            self._notes += await self._writer.finish()
        finally:
            await self._writer.close()
        return await self._close(complete=ending is Ending.COMPLETE)

    async def _run_engine(self, before: Mapping[Status, int]) -> Ending:
        def stop(error: LabelpipeError) -> None:
            self._stop(pool, error)

        parts, asker = self._parts, self._asker
        in_parts = None if self._lane is None else self._lane.in_parts
        lookups = await build_lookups(parts, stop, in_parts)
        beginning = self._beginning(over=before[Status.LABELLED] > 0)
        producer = Producer(self._records(), parts.task.render, lookups, asker.error_handler, beginning, asker.prepare)
        live = self._live(before)
        progress = Progress(live.snapshot, quiet=parts.options.quiet, title=parts.options.title)
        self._reading.on_note = partial(report_reading, progress)
        live.supervisor = supervisor = Supervisor(
            self._stats,
            self._admission,
            self._reading,
            self._settings,
            stop=stop,
            fit=lambda calls: pool.fit(calls),  # noqa: PLW0108 - the pool is made below
            echo=progress.echo,
            on_stall=live.on_stall,
            is_waiting=lambda: self._lane is not None and self._lane.is_waiting,
            update_lane=(update_lane := lane_updater(self._lane, self._asker, self._settings)),
        )
        outputs = (progress.echo, self._notes.append)

        async def commit(outcomes: Sequence[Outcome]) -> None:
            producer.settled(await self._writer.commit(outcomes))

        pool: Pool = Pool(
            stop_before_asking(
                self._canaries.mixed_into(self._items(producer, lambda: pool.unfinished)),
                parts.options.stop_first,
                stop,
            ),
            asker,
            self._canaries.split_commit(warn_of_shifts(commit, parts.task.closed_columns, outputs)),
            sizes=PoolSizes.for_concurrency(self._admission.gate.concurrency, self._settings.limits.grace_s),
            on_trouble=stop,
            guard=supervisor.watch,
            put_off=None if self._lane is None else self._lane.on_deferred,
        )
        if self._lane is not None:
            await parts.day.refresh()
            await self._lane.begin(partial(self._stop, pool), progress.echo, proven=before[Status.LABELLED] > 0)
            update_lane(supervisor.ends_at)
        controls = self._controls(pool, supervisor, progress)
        supervisor.steering = ControlLoop(self._settings, controls, Inbox(parts.run_dir.path))
        for note in self._notes:
            progress.echo(f"labelpipe: {note}")
        await self._canaries.begin(stop, in_parts)
        return await self._run_pool(pool, progress, live, sum(before.values()))

    async def _run_pool(self, pool: Pool, progress: Progress, live: SessionView, done: int) -> Ending:
        """Run the pool, with the display and the signals, and return its ending. A hard stop is an ending too."""
        me = asyncio.current_task()
        assert me is not None
        self._turn_switch(pool, progress, me)
        try:
            async with background_tasks(progress.run(), live.watch(progress), self._open(progress, done)):
                try:
                    return await pool.run()
                except asyncio.CancelledError:
                    if not self._cut_off:
                        raise
                    me.uncancel()
                    return Ending.STOPPED  # what was answered is written
        finally:
            # The pool has ended, so further signals find nothing in flight.
            self._parts.switch.turn(lambda _: None)
            progress.close()
            if self._lane is not None:
                self._notes += await self._lane.close()

    def _beginning(self, *, over: bool) -> Beginning:
        names, lenient = [source.name for source in self._parts.sources], self._settings.limits.stop_rejected == 0
        if self._settings.input.shard is not None:  # the whole run was seen to have records before they were split
            names, over = [], True
        return Beginning(names, self._reading.describe_empty, over=over, lenient=lenient)

    def _live(self, before: Mapping[Status, int]) -> SessionView:
        return SessionView(
            self._parts,
            self._stats,
            self._reading,
            before=before,
            price=self._price,
            simulated=self._is_simulated,
            notifications=self._notifications,
            gold=self._canaries.text,
            waiting=self._waiting_text,
            batches=lambda: None if self._lane is None else asdict(self._lane.waiting),
        )

    def _is_simulated(self) -> bool:
        """Whether labels are simulated, either this session's or earlier ones."""
        return self._writer.is_simulated or self._writer.was_simulated

    def _waiting_text(self) -> str:
        """Return what the lane is waiting for."""
        now = asyncio.get_running_loop().time()
        return self._asker.judge.flex.text(now) if self._lane is None else self._lane.waiting.text

    def _items(self, producer: Producer, unfinished: Callable[[], int]) -> AsyncGenerator[Job | Outcome, None]:
        """Return the items from the input and from batches that have come back."""
        return producer.items() if self._lane is None else self._lane.items(producer, unfinished)

    async def _open(self, progress: Progress, done: int) -> None:
        """Print the opening lines. A pilot, a rehearsal, and a cancel have none."""
        parts = self._parts
        if not (parts.options.title or (self._lane is not None and self._lane.cancels_all)):
            await print_opening(progress.echo, parts.settings, parts.task, parts.sources, self._reading, done)

    def _turn_switch(self, pool: Pool, progress: Progress, me: asyncio.Task[Any]) -> None:
        """Set what the first and the second signal do while the engine runs."""

        def soft(name: str) -> None:
            in_flight = self._admission.gate.in_flight
            progress.echo(f"labelpipe: {name}: finishing {in_flight} calls in flight; repeat to cut them off.")
            self._stop(pool, interruption(name))

        def hard() -> None:
            self._cut_off = True
            me.cancel()

        self._parts.switch.turn(soft, hard)

    def _controls(self, pool: Pool, supervisor: Supervisor, progress: Progress) -> Controls:
        """Return what orders and edits may change."""

        def take_over(settings: Settings) -> None:
            supervisor.take_over(settings)
            self._stats.outcome_rate.restart()
            pool.set_grace(settings.limits.grace_s)

        return Controls(
            asker=self._asker,
            admission=self._admission,
            notifier=self._parts.notifier,
            stop=lambda error: self._stop(pool, error),
            echo=progress.echo,
            take_over=take_over,
            ends_at=lambda: supervisor.ends_at,
        )

    def _stop(self, pool: Pool, reason: LabelpipeError) -> None:
        if self._admission.gate.stopped is None:
            log_event("stopping", level=logging.WARNING, code=reason.code, reason=str(reason))
        self._admission.gate.set_paused(False)
        self._admission.gate.stop(reason)
        pool.stop()

    def _records(self) -> AsyncGenerator[list[Record], None]:
        sources = self._parts.sources
        records = read(sources, self._settings, progress=self._reading)
        once = self._settings.output.columns and any(source.single_pass for source in sources)
        return check_columns_as_read(records, self._settings, sources, self._reading) if once else records

    async def _close(self, *, complete: bool) -> RunSummary:
        parts = self._parts
        summary = await summarise(
            parts,
            self._stats,
            self._reading,
            complete=complete,
            price=self._price,
            simulated=self._is_simulated(),
            command=self._command,
        )
        changes = await read_changes(parts.sources, parts.stamps)
        summary = replace(with_notes(summary, self._notes, changes, self._command), gold=self._canaries.facts())
        summary = await finish_summary(summary, self._settings, parts.run_dir, parts.options.after)
        await self._notifications.on_end(self._admission.gate.stopped, summary)
        log_event("session ends", ended=summary.ended, reason=summary.reason, exit_code=summary.exit_code)
        return summary
