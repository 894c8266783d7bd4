"""Producer, workers and writer in two nested task groups.

The outer group holds the writer, the inner one the workers and the guard, and the body of the inner one is the
producer. Two queues, no sentinel: `task_done()` on the second queue follows the commit, so `outcomes.join()` means
*durable*. The writer ends last. Five endings, each a test: to the end, soft stop, a crash of a worker or of the guard,
the writer's crash, hard cancel.
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

#: Workers beyond the calls in flight: while some records back off, others are asked.
SPARE_WORKERS = 64
#: Workers beyond those, one for each record that waits to be asked again: records that fail must not take them all.
MOST_WAITING = 256
#: With more workers than these the writer waits a moment, so that a batch gathers: a commit costs the same for all of
#: it. What is in it when the process is killed would be asked again, so the moment is short.
MANY, GATHER_S = 32, 0.005


class Ending(enum.Enum):
    """How the pool ended, when it was not by an error."""

    #: every record of the input has its outcome
    COMPLETE = "complete"
    #: no further call was let through; what was in flight is written
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """`workers` ask at a time; `grace_s` is how long a soft stop waits for what is in flight."""

    workers: int
    grace_s: float = 30.0

    @classmethod
    def for_concurrency(cls, concurrency: int, grace_s: float) -> PoolSizes:
        """Enough workers that the gate, not their number, decides what is in flight."""
        return cls(workers=concurrency + min(concurrency, SPARE_WORKERS) + 2, grace_s=grace_s)


class Pool:
    """Runs a feed through workers into one writer.

    `put_off` hears of a job whose answer comes later. `guard` enforces what the run was told, for as long as it asks;
    if it dies, the run ends by that error, as by a worker's: nobody would stop it any more.
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
        # All state that changes: whether a stop was asked for, whether a record was left pending by one, and how many
        # jobs have not ended.
        self._stop = asyncio.Event()
        self._left_pending = False
        self._unfinished = 0
        self._inner: asyncio.TaskGroup | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._wanted = sizes.workers
        asker.at_wait = self._make_room

    @property
    def unfinished(self) -> int:
        """How many jobs were taken from the producer and have not ended."""
        return self._unfinished

    def stop(self) -> None:
        """Soft stop: read no more, let what is in flight finish. The gate must be stopped as well."""
        self._stop.set()

    async def run(self) -> Ending:
        """Run to an ending. An error of the feed, a worker or the commit comes out as it is, after the last write."""
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
        """The commit, after which the answers in it give their places at the gate back."""

        async def counted(outcomes: Sequence[Outcome]) -> None:
            await commit(outcomes)
            self._asker.written(sum(outcome.attempts > 0 for outcome in outcomes))

        return counted

    async def _settle(self, writer: asyncio.Task[None]) -> None:
        """Let the writer write what is queued, then end it. Waits for the disk only, and never for a dead writer."""
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
        """Have enough workers for another limit of calls in flight."""
        self._wanted = max(self._wanted, PoolSizes.for_concurrency(concurrency, self._sizes.grace_s).workers)
        self._grow(self._wanted)

    def _make_room(self, waiting: int) -> None:
        """So many records wait to be asked again: others are asked meanwhile."""
        self._grow(self._wanted + min(waiting, MOST_WAITING))

    def set_grace(self, grace_s: float) -> None:
        """Take over another time that calls in flight get to end after a stop; one under way keeps its own."""
        self._sizes = replace(self._sizes, grace_s=grace_s)

    def _grow(self, workers: int) -> None:
        if self._inner is None:
            return
        while len(self._workers) < workers:
            self._workers.append(self._inner.create_task(self._work(), name=f"worker-{len(self._workers)}"))

    async def _produce(self) -> None:
        """Feed the queues until the input ends or a stop is asked for, also while a queue is full."""
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
        """An input that breaks off is a stop: what was read before it is still asked, what is in flight written."""
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
        """Wait for every job; after a stop, for no longer than the grace."""
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
        if outcome.attempts:  # media that cannot be shown end a record without a call, and so without a place
            self._asker.handed_over()
        # What was paid for goes first: a cancel during a follower's callback must not lose it.
        await self._hand_over(outcome)
        for record in job.followers:
            await self._hand_over(await self._follow(record, outcome))

    async def _follow(self, record: Record, outcome: Outcome) -> Outcome:
        if outcome.answer is not None and outcome.status is not Status.FAILED:
            # Its own callback is called, and may do better or worse than the first record's.
            return await self._asker.finish(record, outcome)
        return replace(
            outcome, record=record, copied_from=outcome.record.key, usage=Usage(), cost_usd=0.0, attempts=0, repairs=0
        )

    async def _hand_over(self, outcome: Outcome) -> None:
        """To the writer; what cannot get into the queue because of a cancel is left where the writer finds it."""
        try:
            await self._outcomes.put(outcome)
        except asyncio.CancelledError:
            self._writer.rescued.append(outcome)
            raise


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that matters: the groups are ours, not the user's."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
