"""Runs producer, workers, and writer in two nested task groups.

The outer group holds the writer, the inner one the workers and the guard. The body of the inner one is the producer.
Two queues, no sentinel: `task_done()` on the second queue follows the commit, so `outcomes.join()` means *durable*. The
writer ends last. There are five endings, each with a test: complete, soft stop, a crash of a worker or the guard, a
crash of the writer, hard cancel.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from pipeline.engine.attempt import Asker
from pipeline.engine.producer import Job
from pipeline.engine.writer import Commit, Writer
from pipeline.errors import LabelpipeError, StoppedError
from pipeline.records import Outcome, Record, Status, Usage

#: Workers beyond the calls in flight, so that others are asked while some records back off.
SPARE_WORKERS = 64
#: Further workers, one for each record that waits for a retry, so that failing records cannot occupy all workers.
MOST_WAITING = 256
#: With more workers than this, the writer waits a moment to gather a batch, because a commit costs the same for any
#: batch. A kill loses what is in it, so the moment is short.
MANY, GATHER_S = 32, 0.005


class Ending(enum.Enum):
    """How the pool ended, if not by an error."""

    #: every record of the input has its outcome
    COMPLETE = "complete"
    #: no more calls were admitted; those in flight are written
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """The number of `workers`, and how long a soft stop waits for calls in flight (`grace_s`)."""

    workers: int
    grace_s: float = 30.0

    @classmethod
    def for_concurrency(cls, concurrency: int, grace_s: float) -> PoolSizes:
        """Return enough workers that only the gate limits the calls in flight."""
        return cls(workers=concurrency + min(concurrency, SPARE_WORKERS) + 2, grace_s=grace_s)


class Pool:
    """Runs a feed through workers into one writer.

    `put_off` receives each job whose answer comes later. `guard` enforces limits and commands while calls are made. If
    it dies, the run ends with that error, as with a worker's, because nothing could stop the run anymore.
    """

    def __init__(
        self,
        producer: AsyncGenerator[Job | Outcome, None],
        asker: Asker,
        commit: Commit,
        *,
        sizes: PoolSizes,
        on_trouble: Callable[[LabelpipeError], None] | None = None,
        guard: Callable[[], Coroutine[Any, Any, None]] | None = None,
        put_off: Callable[[Job], None] | None = None,
    ) -> None:
        self._producer = producer
        self._asker = asker
        self._sizes = sizes
        self._on_trouble = on_trouble
        self._guard = guard
        self._put_off = put_off
        self._jobs: asyncio.Queue[Job] = asyncio.Queue(maxsize=sizes.workers)
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue(maxsize=2 * sizes.workers)
        gather_s = GATHER_S if sizes.workers > MANY else 0.0
        self._writer = Writer(
            self._outcomes,
            self._counted(commit),
            gather_s=gather_s,
            on_trouble=on_trouble,
        )
        # Mutable state: whether a stop was requested, whether it left a record pending, and how many jobs have not
        # ended.
        self._stop = asyncio.Event()
        self._left_pending = False
        self._unfinished = 0
        self._inner: asyncio.TaskGroup | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._wanted = sizes.workers
        asker.at_wait = self._make_room

    @property
    def unfinished(self) -> int:
        """The number of the producer's jobs that have not ended."""
        return self._unfinished

    def stop(self) -> None:
        """Stop softly: read no more, and let calls in flight finish. The gate must be stopped as well."""
        self._stop.set()

    async def run(self) -> Ending:
        """Run to an ending. Raises an error of the feed, a worker, or the commit unchanged, after the last write."""
        try:
            async with asyncio.TaskGroup() as outer:
                writer = outer.create_task(self._writer.run(), name="writer")
                try:
                    await self._ask_all()
                finally:
                    await self._settle(writer)
        except BaseExceptionGroup as group:
            raise _first_error(group) from None
        return Ending.STOPPED if self._left_pending else Ending.COMPLETE

    def _counted(self, commit: Commit) -> Commit:
        """Wrap the commit, so that its answers then return their places at the gate."""

        async def counted(outcomes: Sequence[Outcome]) -> None:
            await commit(outcomes)
            self._asker.written(sum(outcome.attempts > 0 for outcome in outcomes))

        return counted

    async def _settle(self, writer: asyncio.Task[None]) -> None:
        """Let the writer write the queue, then end it. Waits only for the disk, and never for a dead writer."""
        join = asyncio.ensure_future(self._outcomes.join())
        try:
            await asyncio.wait({join, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            join.cancel()
            writer.cancel()

    async def _ask_all(self) -> None:
        async with asyncio.TaskGroup() as inner:
            self._inner = inner
            self._grow(self._sizes.workers)
            guards = [inner.create_task(self._guard(), name="guard")] if self._guard is not None else []
            await self._produce()
            self._asker.judge.tail.set()
            await self._drain()
            self._inner = None
            for task in (*self._workers, *guards):
                task.cancel()

    def fit(self, concurrency: int) -> None:
        """Add workers for a new limit of calls in flight."""
        self._wanted = max(self._wanted, PoolSizes.for_concurrency(concurrency, self._sizes.grace_s).workers)
        self._grow(self._wanted)

    def _make_room(self, waiting: int) -> None:
        """Add workers for others while `waiting` records wait for a retry."""
        self._grow(self._wanted + min(waiting, MOST_WAITING))

    def set_grace(self, grace_s: float) -> None:
        """Set how long calls in flight get after a stop. A stop in progress keeps its own time."""
        self._sizes = replace(self._sizes, grace_s=grace_s)

    def _grow(self, workers: int) -> None:
        if self._inner is None:
            return
        while len(self._workers) < workers:
            self._workers.append(self._inner.create_task(self._work(), name=f"worker-{len(self._workers)}"))

    async def _produce(self) -> None:
        """Feed the queues until the input ends or a stop is requested, even while a queue is full."""
        stop = asyncio.ensure_future(self._stop.wait())
        produce = asyncio.ensure_future(self._pump())
        try:
            await asyncio.wait({stop, produce}, return_when=asyncio.FIRST_COMPLETED)
            if not produce.done():
                self._left_pending = True
        finally:
            stop.cancel()
            produce.cancel()
            await asyncio.wait({produce})
        if not produce.cancelled():
            self._after_input(produce.exception())

    def _after_input(self, error: BaseException | None) -> None:
        """Stop if the input broke off: records that were read are still asked, and calls in flight are written."""
        if error is None:
            return
        if self._on_trouble is None or not isinstance(error, LabelpipeError):
            raise error
        self._left_pending = True
        self._on_trouble(error)

    async def _pump(self) -> None:
        async with aclosing(self._producer) as producer:
            async for item in producer:
                if isinstance(item, Outcome):
                    await self._hand_over(item)
                else:
                    self._unfinished += 1
                    await self._jobs.put(item)

    async def _drain(self) -> None:
        """Wait for every job; after a stop, for at most the grace."""
        join = asyncio.ensure_future(self._jobs.join())
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({join, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not join.done():
                await asyncio.wait({join}, timeout=self._sizes.grace_s)
            self._left_pending |= not join.done()
        finally:
            join.cancel()
            stop.cancel()

    async def _work(self) -> None:
        while True:
            job = await self._jobs.get()
            try:
                await self._do(job)
            except StoppedError:
                self._left_pending = True
                self.stop()
            self._jobs.task_done()
            self._unfinished -= 1

    async def _do(self, job: Job) -> None:
        if job.source is not None:
            await self._hand_over(await self._asker.finish(job.request.record, job.source))
            return
        outcome = await self._asker.ask(job.request, job.saved)
        if outcome is None:
            if self._put_off is not None:
                self._put_off(job)
            return
        job.outcome = outcome
        if outcome.attempts:  # unreadable media end a record without a call, and so without a place
            self._asker.handed_over()
        # Paid outcomes go first, so that a cancel during a follower's callback cannot lose them.
        await self._hand_over(outcome)
        for record in job.followers:
            await self._hand_over(await self._follow(record, outcome))

    async def _follow(self, record: Record, outcome: Outcome) -> Outcome:
        if outcome.answer is not None and outcome.status is not Status.FAILED:
            # Its own callback is called, whose result may differ from the first record's.
            return await self._asker.finish(record, outcome)
        return replace(
            outcome, record=record, copied_from=outcome.record.key, usage=Usage(), cost_usd=0.0, attempts=0, repairs=0
        )

    async def _hand_over(self, outcome: Outcome) -> None:
        """Pass an outcome to the writer. If a cancel prevents that, leave it where the writer finds it."""
        try:
            await self._outcomes.put(outcome)
        except asyncio.CancelledError:
            self._writer.rescued.append(outcome)
            raise


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error that matters: the groups are internal."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
