"""One session of a run: the engine run, watched and steered; the folder left in order, a summary given."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, TypeVar

from pipeline.control import Inbox
from pipeline.engine import (
    Asker,
    Beginning,
    Ending,
    Job,
    Journal,
    Lookups,
    Pool,
    PoolSizes,
    Producer,
    Terms,
    interruption,
)
from pipeline.errors import ChangedError, LabelpipeError, StoreError
from pipeline.parts import (
    advice_context,
    is_simulated,
    layout_of,
    mark_simulated,
    open_sinks,
    outputs_of,
    read,
    rules_of,
    tariff_of,
)
from pipeline.progress import Progress
from pipeline.readers import ReadProgress
from pipeline.records import Outcome, Record, SavedAnswer, Status
from pipeline.runlog import log_event
from pipeline.runner.canaries import Canaries, Commit, warn_of_shifts
from pipeline.runner.columns import check_columns_as_read
from pipeline.runner.costs import FlexTotals
from pipeline.runner.invalid_rows import commit_valid, replace_unwritable, write_valid
from pipeline.runner.lanes import lane_of, lane_updater
from pipeline.runner.live_controls import ControlLoop, Controls
from pipeline.runner.lookups import build_lookups, end_pass, read_changes, stop_before_asking, with_notes
from pipeline.runner.notifications import Notifications
from pipeline.runner.opening import print_opening
from pipeline.runner.session_parts import SessionParts
from pipeline.runner.session_view import SessionView, background_tasks, report_reading
from pipeline.runner.summary import finish_summary, summarise
from pipeline.runner.supervisor import Supervisor
from pipeline.settings import Settings
from pipeline.show import advise
from pipeline.stats import RunSummary, Stats
from pipeline.store import FOLDER, Checkpoints, Sinks

_T = TypeVar("_T")


class Session:
    """The parts of one session and how they hang together."""

    def __init__(self, parts: SessionParts) -> None:
        settings = parts.settings
        self._settings = settings
        self._title = parts.title
        self._notifier = parts.notifier
        self._switch = parts.switch
        self._telemetry = parts.telemetry
        self._task = parts.task
        self._sources = parts.sources
        self._run_dir = parts.run_dir
        self._after = parts.after
        self._ledger = parts.ledger
        self._base = parts.base
        self._stop_first = parts.stop_first
        self._stats = Stats(time.monotonic)
        self._reading = ReadProgress()
        tariff = tariff_of(settings)
        self._price = tariff.price
        self._flex = FlexTotals(parts.ledger, self._stats)
        self._day = parts.day
        self._admission = parts.admission
        self._journal = Journal(self._keep, self._admission.gate)
        self._lane = lane_of(
            parts.batches, settings, parts.task, parts.ledger, parts.admission, parts.day, self._stats, parts.mode,
            folder=parts.run_dir.path / FOLDER, run_id=parts.run_id, left=parts.left, queue=parts.queue,
            first=parts.first_part,
        )  # fmt: skip
        self._asker = Asker(
            parts.provider, Terms(parts.task, run_id=parts.run_id, panel=parts.panel), self._admission, self._stats,
            rules=rules_of(settings), journal=self._journal, tariff=tariff, prepare=parts.prepare,
            ping=parts.provider.ping, later=None if self._lane is None else self._lane.later,
        )  # fmt: skip
        self._provider = parts.provider
        self._canaries = Canaries(
            parts.gold, parts.task, settings.quality, parts.ledger, self._stats,
            simulated=lambda: self._simulated, base=parts.base, tally=parts.tally,
        )  # fmt: skip
        # All state that changes, beside the parts: whether the folder holds simulated labels (then its
        # manifest says so), whether a second signal cut the calls in flight off, and what is to be told at the end.
        self._was_simulated = parts.was_simulated
        self._cut_off = False
        self._stamps = parts.stamps
        self._choice = parts.choice
        self._moved = parts.moved
        self._notes = [*map(str, parts.moved), *parts.notes]

    @property
    def _simulated(self) -> bool:
        """Whether a rehearsal endpoint answers: the built-in one, or one whose answers say so, or those kept before."""
        reported = self._provider.simulated
        return is_simulated(self._settings) or (reported if reported is not None else self._was_simulated)

    async def run(self, *, quiet: bool, command: str | None) -> RunSummary:
        """Run to an ending; the summary is written and given. Who is to be told hears of an error too."""
        words = str(self._settings.config_path or "") if command is None else command
        self._notifications = Notifications(self._notifier, words)
        try:
            return await self._run(quiet=quiet, command=words)
        except Exception as error:
            await self._notifications.on_error(error, {"run_dir": str(self._run_dir.path)})
            raise

    async def _run(self, *, quiet: bool, command: str) -> RunSummary:
        before = await self._ledger.count_by_status()
        log_event("session begins", outcomes=sum(before.values()), sources=[source.name for source in self._sources])
        self._asker.judge.proven = self._asker.brake.is_off = before[Status.LABELLED] > 0
        sinks = await self._sinks()
        try:
            try:
                ending = await self._run_engine(sinks, before, quiet=quiet)
            finally:
                self._asker.close()
                await self._journal.close()
            await self._admission.close()
            await self._flex.save()
            await end_pass(self._ledger, self._sources, self._reading, complete=ending is Ending.COMPLETE)
            await self._soundly(sinks.finish)
            self._notes += [*map(str, sinks.moved[len(self._moved) :]), *sinks.unused]
        finally:
            await sinks.close()
        return await self._close(complete=ending is Ending.COMPLETE, command=command)

    async def _run_engine(self, sinks: Sinks, before: Mapping[Status, int], *, quiet: bool) -> Ending:
        def stop(error: LabelpipeError) -> None:
            self._stop(pool, error)

        lookups = await self._lookups(stop)
        asker = self._asker
        beginning = self._beginning(over=before[Status.LABELLED] > 0)
        producer = Producer(self._records(), self._task.render, lookups, asker.net, beginning, asker.prepare)
        live = self._live(before)
        progress = Progress(live.snapshot, quiet=quiet, title=self._title)
        self._reading.on_note = partial(report_reading, progress)
        live.supervisor = supervisor = Supervisor(
            self._stats,
            self._admission,
            self._reading,
            self._settings,
            stop=stop,
            fit=lambda calls: pool.fit(calls),  # noqa: PLW0108 - the pool is made below
            say=progress.say,
            on_stall=live.on_stall,
            is_waiting=lambda: self._lane is not None and self._lane.is_waiting,
            update_lane=(update_lane := lane_updater(self._lane, self._asker, self._settings)),
        )
        outputs = (progress.say, self._notes.append)
        pool: Pool = Pool(
            stop_before_asking(
                self._canaries.mixed_into(self._items(producer, lambda: pool.unfinished)), self._stop_first, stop
            ),
            asker,
            self._canaries.split_commit(
                warn_of_shifts(self._commit(sinks, producer), self._task.closed_columns, outputs)
            ),
            sizes=PoolSizes.for_concurrency(self._admission.gate.concurrency, self._settings.limits.grace_s),
            on_trouble=stop,
            guard=supervisor.watch,
            put_off=None if self._lane is None else self._lane.put_off,
        )
        if self._lane is not None:
            await self._day.refresh()
            await self._lane.begin(partial(self._stop, pool), progress.say, proven=before[Status.LABELLED] > 0)
            update_lane(supervisor.ends_at)
        supervisor.steering = ControlLoop(
            self._settings, self._controls(pool, supervisor, progress), Inbox(self._run_dir.path)
        )
        for note in self._notes:
            progress.say(f"labelpipe: {note}")
        await self._canaries.begin(stop, None if self._lane is None else self._lane.in_parts)
        me = asyncio.current_task()
        assert me is not None
        self._turn_switch(pool, progress, me)
        shows = (progress.run(), live.watch(progress), self._open(progress, sum(before.values())))
        try:
            async with background_tasks(*shows):
                return await self._to_an_ending(pool, me)
        finally:
            # What is over is over: the next signals find nothing in flight.
            self._switch.turn(lambda _: None)
            progress.close()
            if self._lane is not None:
                self._notes += await self._lane.close()

    def _beginning(self, *, over: bool) -> Beginning:
        names, lenient = [source.name for source in self._sources], self._settings.limits.stop_rejected == 0
        if self._settings.input.shard is not None:  # the others have records, as was seen before they were dealt out
            names, over = [], True
        return Beginning(names, self._reading.describe_empty, over=over, lenient=lenient)

    async def _lookups(self, stop: Callable[[LabelpipeError], None]) -> Lookups:
        in_parts = None if self._lane is None else self._lane.in_parts
        parts = (self._settings, self._task, self._sources, self._ledger)
        return await build_lookups(*parts, self._choice, stop, in_parts, self._base)

    def _live(self, before: Mapping[Status, int]) -> SessionView:
        return SessionView(
            self._run_dir,
            self._stats,
            self._admission,
            self._reading,
            before=before,
            price=self._price,
            simulated=lambda: self._simulated or self._was_simulated,
            notifications=self._notifications,
            gold=self._canaries.text,
            waiting=self._waiting_text,
            batches=lambda: None if self._lane is None else asdict(self._lane.waiting),
        )

    def _waiting_text(self) -> str:
        """What is waited for that a lane has to do with."""
        now = asyncio.get_running_loop().time()
        return self._asker.judge.flex.text(now) if self._lane is None else self._lane.text()

    def _items(self, producer: Producer, unfinished: Callable[[], int]) -> AsyncGenerator[Job | Outcome, None]:
        """What is to be done: of the input, and of batches that have come back."""
        return producer.items() if self._lane is None else self._lane.items(producer, unfinished)

    async def _open(self, progress: Progress, done: int) -> None:
        """The opening lines; a pilot, a rehearsal and a cancel have none of their own."""
        if not (self._title or (self._lane is not None and self._lane.calls_off)):
            await print_opening(progress.say, self._settings, self._task, self._sources, self._reading, done)

    def _turn_switch(self, pool: Pool, progress: Progress, me: asyncio.Task[Any]) -> None:
        """What the first and the second signal do while the engine runs."""

        def soft(name: str) -> None:
            progress.say(f"labelpipe: {name}: letting {self._admission.gate.in_flight} calls in flight end; "
                         "once more to cut them off.")  # fmt: skip
            self._stop(pool, interruption(name))

        def hard() -> None:
            self._cut_off = True
            me.cancel()

        self._switch.turn(soft, hard)

    async def _sinks(self) -> Sinks:
        """The files of rows."""
        return await self._soundly(
            lambda: open_sinks(self._settings, self._task, self._run_dir, self._ledger, self._moved)
        )

    async def _soundly(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """What work on the files of rows gives; a row of the ledger that keeps it from being done is replaced first."""
        try:
            return await work()
        except LabelpipeError:
            raise
        except Exception:
            if not await replace_unwritable(self._ledger, layout_of(self._settings, self._task), self._asker.net.told):
                raise
            return await work()

    def _controls(self, pool: Pool, supervisor: Supervisor, progress: Progress) -> Controls:
        """What orders and edits may change."""

        def take_over(settings: Settings) -> None:
            supervisor.take_over(settings)
            self._stats.outcome_rate.restart()
            pool.set_grace(settings.limits.grace_s)

        return Controls(
            asker=self._asker,
            admission=self._admission,
            notifier=self._notifier,
            stop=lambda error: self._stop(pool, error),
            say=progress.say,
            take_over=take_over,
            ends_at=lambda: supervisor.ends_at,
        )

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
        if self._admission.gate.stopped is None:
            log_event("stopping", level=logging.WARNING, code=reason.code, reason=str(reason))
        self._admission.gate.set_paused(False)
        self._admission.gate.stop(reason)
        pool.stop()

    def _records(self) -> AsyncGenerator[list[Record], None]:
        records = read(self._sources, self._settings, progress=self._reading)
        once = self._settings.output.columns and any(source.single_pass for source in self._sources)
        return check_columns_as_read(records, self._settings, self._sources, self._reading) if once else records

    def _commit(self, sinks: Sinks, producer: Producer) -> Commit:
        stats = self._stats

        async def commit(outcomes: Sequence[Outcome]) -> None:
            self._refuse_mixture()
            if self._note_simulated():
                outcomes = [mark_simulated(outcome) for outcome in outcomes]
            report = self._asker.net.told
            keep = partial(self._commit_to_ledger, checkpoints=sinks.checkpoints())
            outcomes, seqs = await commit_valid(keep, outcomes, sinks.layout, report)
            try:
                await write_valid(sinks, self._ledger, outcomes, seqs, report)
            except StoreError as error:
                # The ledger has them: the files are made up for at the end, or by the next session.
                self._admission.gate.stop(error)
            producer.settled(outcomes)
            if self._telemetry is not None:
                self._telemetry.written(outcomes)
            for outcome in outcomes:
                stats.record_outcome(outcome)

        return commit

    async def _keep(self, answers: Sequence[SavedAnswer]) -> None:
        """Write answers of records that are not at their end; a later session may make a row of them without a call."""
        self._note_simulated()
        await self._ledger.keep_answers(answers)

    async def _commit_to_ledger(self, outcomes: Sequence[Outcome], *, checkpoints: Checkpoints | None) -> list[int]:
        """The outcomes in the ledger, and with them the calls that were sent, by day."""
        requests, ok = self._day.take_uncounted(), False
        try:
            done_with = self._done_with(outcomes)
            seqs = await self._ledger.commit(outcomes, checkpoints, requests=requests, done_with=done_with)
            await self._flex.save()
            ok = True
        finally:
            self._day.on_written(requests, ok=ok)
        return seqs

    def _done_with(self, outcomes: Sequence[Outcome]) -> list[str]:
        """The records of which the ledger may keep answers that nobody needs any more.

        The outcome holds the last answer; those of a conversation, and votes, are kept for a replay.
        """
        if self._task.max_turns > 1 or self._settings.quality.size > 1:
            return []
        always = self._task.has_callback
        return [outcome.record.key for outcome in outcomes if always or outcome.attempts > 1]

    def _refuse_mixture(self) -> None:
        """Simulated labels and real ones in one file: nobody wants that. The first answer tells which these are."""
        if self._was_simulated and self._provider.simulated is False:
            message = (
                f"{self._run_dir.path} holds simulated labels, and these answers are real: give --fresh or --output"
            )
            self._admission.gate.stop(ChangedError(message))

    def _note_simulated(self) -> bool:
        """Whether labels are simulated; the manifest says so before the first one is there: a kill may come at once."""
        if self._simulated and not self._was_simulated:
            self._was_simulated = True
            self._run_dir.note_simulated()
        return self._simulated

    async def _close(self, *, complete: bool, command: str) -> RunSummary:
        summary = await summarise(
            self._run_dir,
            self._ledger,
            self._stats,
            self._admission,
            self._reading,
            complete=complete,
            price=self._price,
            simulated=self._simulated or self._was_simulated,
            outputs=outputs_of(self._settings, self._run_dir),
            columns=self._task.columns,
            command=command,
            advise=partial(advise, advice_context(self._settings)),
        )
        summary = with_notes(summary, self._notes, await read_changes(self._sources, self._stamps), command)
        summary = replace(summary, gold=self._canaries.facts())
        summary = await finish_summary(summary, self._settings, self._run_dir, self._after)
        await self._notifications.on_end(self._admission.gate.stopped, summary)
        log_event("session ends", ended=summary.ended, reason=summary.reason, exit_code=summary.exit_code)
        return summary
