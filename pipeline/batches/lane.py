"""Runs the batch lane of one session: one stream for the pool, of new records and of those whose parts came back.

A record's first request is deferred (`defer`): its line goes into a part, and the record leaves the pool without an
outcome. When the part has come back, the record goes through the pool again with its saved answer, and is handled
like any other. So records are in the ledger and in files, and never all in memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from pathlib import Path

from pipeline.batches.batch_runner import BatchRunner
from pipeline.batches.config import BatchesCancelledError, BatchesOpenError, BatchMode, LaneConfig
from pipeline.batches.messages import (
    OpenBatches,
    cancelled_text,
    deadline_cancel_text,
    deadline_text,
    return_hint,
    unknown_text,
)
from pipeline.batches.packer import BatchLine, Packer
from pipeline.batches.part_admission import PartAdmission
from pipeline.batches.part_progress import CANCEL_S, MOST_LIVE_S, live_s, remaining_s
from pipeline.batches.queue import BatchQueue, LocalQueue
from pipeline.batches.result_reader import PricesOf, ResultReader
from pipeline.engine import Interview, Job, Over, Producer, most_of
from pipeline.errors import LabelpipeError
from pipeline.limits import Admission, DayMeter, TokenBound
from pipeline.providers import BatchApi
from pipeline.records import Outcome, Problem, Record, Response, Status
from pipeline.stats import Stats
from pipeline.store import BatchBook, Item, ItemState, Part, PartState

#: Records of a returned part that are handed out at a time.
BLOCK = 256
#: At most this many packed parts wait to be sent, so that the rest of the input is not copied to disk.
MOST_UNSENT = 2
#: The position before the first record of a part, in the order in which they are handed out.
_BEFORE_ALL = (-2, "")
#: Seconds between the stream's checks for changes that nothing reports.
LOOK_S = 0.5


class BatchLane:
    """The batches of a session."""

    #: No batches are created. A lane that chooses may set it.
    goes_live = False

    def __init__(
        self,
        api: BatchApi,
        book: BatchBook,
        folder: Path,
        config: LaneConfig,
        *,
        run_id: str,
        admission: Admission,
        day: DayMeter | None,
        stats: Stats,
        prices_of: PricesOf,
        usd_of: Callable[[TokenBound], float | None],
        queue: BatchQueue | None = None,
    ) -> None:
        #: These stop the run and print a line. The session sets both.
        self.stop: Callable[[LabelpipeError], None] = lambda _: None
        self.echo: Callable[[str], None] = lambda _: None
        self._api = api
        self._book = book
        self._folder = folder
        self._config = config
        self._queue = queue or LocalQueue(config.enqueued_tokens)
        self.part_admission = PartAdmission(
            config, self._queue, admission, day, lambda: self.batch_runner,
            is_busy=lambda: bool(self._unfinished()) or self._next_part() is not None,
            stop=lambda error: self.stop(error),  # noqa: PLW0108 - set later
        )  # fmt: skip
        self._budget = admission.budget
        self._admission = admission
        self._day = day
        self._stats = stats
        self.packer = Packer(
            folder,
            book,
            api.endpoint,
            size=self.part_admission.size,
            usd_of=usd_of,
            room=self.part_admission.leaves_room,
            at_packed=self._on_packed,
            model=config.model,
        )
        self.batch_runner = self._batch_runner(ResultReader(api, book, prices_of, self._on_landed), run_id)
        # Mutable state: details of records that are handed out, how far parts are handed out, the latest scan of the
        # parts, which parts were canceled, what wakes the stream, and the end for which batches are given up.
        self._items: dict[str, Item] = {}
        self._handed_out: set[int] = set()
        self._freed: list[int] = []
        self._scan: tuple[int | None, int] | None = None
        self._cancelled_parts: set[int] = set()
        self._cursors: dict[int, tuple[int, str]] = {}
        self._changed = asyncio.Event()
        self._deadline: datetime | None = None
        self._unfinished: Callable[[], int] = lambda: 0
        self._producer: Producer | None = None

    def _batch_runner(self, reader: ResultReader, run_id: str) -> BatchRunner:
        return BatchRunner(
            self._api, self._book, reader, self.packer.path, config=self._config, queue=self._queue,
            run_id=run_id,
            may_send=self.part_admission.may_send,
            is_stopped=lambda: self._admission.gate.stopped is not None,
            at_change=self._on_change,
            stop=lambda error: self.stop(error),  # noqa: PLW0108 - set later
            echo=lambda text: self.echo(text),  # noqa: PLW0108 - set later
        )  # fmt: skip

    # -- what the engine calls -----------------------------------------------------------------------------------

    async def defer(self, interview: Interview) -> bool:
        """Take over an interview's request, for a part. Raises Over if its line failed for good."""
        request, record = interview.request, interview.record
        assert request is not None
        item = self._items.pop(record.key, None)
        tries = 0
        if item is not None and item.number == interview.answers:
            tries = item.tries
            self._end_rejected(item, interview)
        asks_anew = not interview.repairs_here and not interview.turn
        goes_live = self._config.goes_live or self.batch_runner.cancellation.is_shut
        if goes_live or request.model != self._config.model or (self._config.repairs_live and not asks_anew):
            interview.calls += tries
            return False
        if self._config.mode is BatchMode.CANCEL:
            return True  # nothing is asked anymore, and the record stays pending
        if interview.answers == 0 and await self._is_in_part(interview.digest):
            self.packer.follow([record], interview.digest)
            return True
        most = None if self._budget is None else most_of(request)
        line = BatchLine(record, interview.answers, interview.digest, tries, request.size_tokens, most)
        await self.packer.add(line, lambda name: self._api.line(name, request))
        return True

    def _end_rejected(self, item: Item, interview: Interview) -> None:
        if item.state is ItemState.REFUSED and item.problem is not None:
            interview.calls += item.tries + 1
            raise Over(Status.REJECTED, item.problem)
        if item.tries >= self._config.max_attempts:
            interview.calls += item.tries
            raise Over(Status.FAILED, item.problem or Problem("unavailable", "no line of it was answered"))

    async def _is_in_part(self, digest: bytes) -> bool:
        if not self._config.shares:
            return False
        return self.packer.has(digest) or bool(await self._book.waiting_for([digest]))

    def on_deferred(self, job: Job) -> None:
        """Handle a job that left the pool without an outcome. Its followers wait for the same answer."""
        assert self._producer is not None
        if followers := self._producer.put_off(job):
            self.packer.follow(followers, job.request.digest)

    async def in_parts(self, records: Sequence[Record]) -> set[str]:
        """Return the keys of those input records that are in a part."""
        return await self._book.in_parts(records)

    # -- the stream ----------------------------------------------------------------------------------------------

    async def items(self, producer: Producer, unfinished: Callable[[], int]) -> AsyncGenerator[Job | Outcome, None]:
        """Yield the work: from the input, and from returned parts. `unfinished` returns the jobs in progress."""
        self._producer, self._unfinished = producer, unfinished
        runner = asyncio.create_task(self.batch_runner.run(), name="batches")
        runner.add_done_callback(lambda _: self._changed.set())
        try:
            async with aclosing(producer.items()) as fresh:
                more = self._config.mode is not BatchMode.CANCEL
                while True:
                    if runner.done():
                        runner.result()
                    returned = await self._next_returned(producer)
                    for item in returned:
                        yield item
                    if returned or self._next_part() is not None:
                        continue
                    if more and self._has_room():
                        item_or_none = await anext(fresh, None)
                        more = item_or_none is not None
                        if item_or_none is not None:
                            yield item_or_none
                        continue
                    if await self._is_over(more=more):
                        return
                    await self._pause()
        finally:
            runner.cancel()
            with suppress(asyncio.CancelledError):
                await runner

    async def begin(self, stop: Callable[[LabelpipeError], None], echo: Callable[[str], None], *, proven: bool) -> None:
        """Load what earlier sessions left. `proven`: the run has labels, so its requests are right."""
        self.stop, self.echo, self.part_admission.proven = stop, echo, proven
        await self.batch_runner.load()
        if self.batch_runner.open:
            self._folder.mkdir(exist_ok=True)  # only the ledger of a shard is saved, without this folder
        needed = {self.packer.path(part.number).name.partition(".")[0] for part in self.batch_runner.open}
        for left in self._folder.glob("*.jsonl"):
            if left.name.partition(".")[0] not in needed:
                left.unlink()  # a kill came before its part was packed, or after all its answers were read
        for part in self.batch_runner.open:
            if part.is_unsent:
                await self.batch_runner.split(part)  # the settings may have changed since it was packed
        self._freed = await self._book.follower_groups()
        if self._config.mode is BatchMode.CANCEL:
            self._cancelled_parts = {part.number for part in self.batch_runner.open if part.is_at_server}
            self.batch_runner.cancel_all()
        self._queue.begin(self.batch_runner.recheck_unsent)
        self.part_admission.count_queued()

    def check_deadline(self, ends_at: datetime | None) -> None:
        """Shortly before `ends_at`, ask live what no batch will answer by then. Call it about once a second.

        With `batch.finish = "batch"`, or if the day has no room for live calls, it is left for the next session.
        """
        now = time.time()
        room = None if self._day is None or ends_at is None else self._day.room(ends_at.timestamp() - now)
        if ends_at is None or room == 0 or not self._config.repairs_live or self._config.mode is not BatchMode.WAIT:
            self._deadline = None
            self.batch_runner.shut(is_shut=self.goes_live)
            return
        at = ends_at.timestamp()
        if ends_at != self._deadline:
            if at - now > CANCEL_S + self._reserve_s():
                self.batch_runner.shut(is_shut=self.goes_live)
                return
            self._deadline = ends_at
            self.batch_runner.shut(is_shut=True)
            if self.batch_runner.open or not self.goes_live:
                self.echo(f"labelpipe: {deadline_text(ends_at)}")
        waiting = self.batch_runner.at_server
        if all(part.number in self.batch_runner.cancellation.checked for part in waiting):
            back = [(part, remaining_s(part, now, self.batch_runner.took_s)) for part in waiting]
            if given_up := self.batch_runner.cancel([part for part, in_s in back if in_s is None or now + in_s > at]):
                self.echo(f"labelpipe: {deadline_cancel_text(given_up)}")

    def _reserve_s(self) -> float:
        """Return how long before the end live calls take over, in addition to the time that canceling takes."""
        return min(MOST_LIVE_S, self._live_s())

    def _live_s(self, records: int | None = None) -> float:
        """Return how long live calls would take for what is in batches, or for this many similar records."""
        state = self._admission.resource.state(asyncio.get_running_loop().time())
        latency_s = self._stats.latencies.percentile_s(50) or 1.0
        per_minute = 60 * self._admission.gate.concurrency / latency_s
        return live_s(self.batch_runner.open, state.requests, state.tokens, per_minute, records)

    def _has_room(self) -> bool:
        return self._config.goes_live or self.batch_runner.cancellation.is_shut or self._scan_parts()[1] < MOST_UNSENT

    def _scan_parts(self) -> tuple[int | None, int]:
        """Return a part that is read and not handed out, and how many parts wait to be sent.

        Each record needs this, and a run may have hundreds of parts, so they are scanned only after a change.
        """
        if self._scan is None:
            parts = self.batch_runner.parts.values()
            read = (
                part.number for part in parts if part.state is PartState.READ and part.number not in self._handed_out
            )
            self._scan = next(read, None), sum(part.state is PartState.PACKED for part in parts)
        return self._scan

    async def _next_returned(self, producer: Producer) -> list[Job | Outcome]:
        """Return the next records of a part that is read. Followers come once all parts are handed out."""
        if self.batch_runner.cancellation.is_shut and not self.packer.is_empty:
            await self.packer.flush()  # the batch runner hands it out
        part = self._next_part()
        if part is None:
            return []
        items = await self._book.next_answered(part, self._cursors.get(part, _BEFORE_ALL), BLOCK)
        if items:
            last = items[-1]
            self._cursors[part] = (last.place, last.record.key)
            self._items |= {item.record.key: item for item in items if item.tries or item.problem is not None}
            if self._config.mode is BatchMode.CANCEL:
                items = [item for item in items if item.state is not ItemState.AGAIN]
            return await producer.again([item.record for item in items])
        self._cursors.pop(part, None)
        if part < 0:
            self._freed.remove(part)
        else:
            self._handed_out.add(part)
            self._scan = None
        if self._next_part() is None:
            await self._free_followers()
        return []

    def _next_part(self) -> int | None:
        """Return a part that is read and not handed out, else a group of freed followers, else None."""
        read = self._scan_parts()[0]
        return next(iter(self._freed), None) if read is None else read

    async def _free_followers(self) -> bool:
        group = await self._book.free_followers(sorted(self._handed_out))
        if group is not None:
            self._freed.append(group)
        return group is not None

    async def _is_over(self, *, more: bool) -> bool:
        """Whether nothing is left to wait for. Records that wait to be packed are flushed first."""
        if isinstance(reason := self._admission.gate.stopped, LabelpipeError):
            self.stop(reason)  # the lease server may have stopped the run while no call waited
            return False
        if self._unfinished() or self._next_part() is not None:
            return False
        if not more and not self.packer.is_empty:
            await self.packer.flush()
            return False
        if self._config.mode is BatchMode.CANCEL:
            if not self.batch_runner.at_server:
                called_off = [part for part in await self._book.parts() if part.number in self._cancelled_parts]
                self.stop(BatchesCancelledError(cancelled_text(called_off)))
            return False
        if not more and not self.batch_runner.open:
            return not await self._free_followers()
        if lost := self.batch_runner.unknown:
            parts = [part for part in self.batch_runner.open if part.number in lost]
            if not self.part_admission.proven or len(parts) == len(self.batch_runner.open):
                self.stop(BatchesOpenError(unknown_text(parts, next(iter(lost.values())))))
        if self._config.mode is BatchMode.NO_WAIT and self.batch_runner.is_idle:
            self.stop(BatchesOpenError(f"{self.waiting.text}; {return_hint(self.batch_runner.took_s)}"))
        return False

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._changed.wait()
        self._changed.clear()

    @property
    def cancels_all(self) -> bool:
        """Whether the session cancels open batches and starts nothing."""
        return self._config.mode is BatchMode.CANCEL

    @property
    def is_waiting(self) -> bool:
        """Whether the run waits for batches and does nothing else."""
        return bool(self.batch_runner.open) and not self._unfinished()

    def _on_packed(self, part: Part) -> None:
        self._scan = None
        self.part_admission.on_packed(part)

    def _on_change(self) -> None:
        self._scan = None
        self.part_admission.count_queued()
        self._changed.set()

    async def close(self) -> list[str]:
        """Close the parts whose records have outcomes, and discard what is not packed. Returns messages to print."""
        self.packer.close()
        for number in await self._book.close_parts():
            self.batch_runner.parts.pop(number, None)
        text = self.waiting.text
        return [f"{text}. The same command continues with them."] if text else []

    def _on_landed(self, part: Part, responses: Sequence[Response]) -> None:
        self.part_admission.proven |= bool(responses)
        for response in responses:
            self._stats.record_answer(response.usage, None)
            if self._budget is not None:
                self._budget.add_batch_answer(response.usage, response.cost_usd)
        self.part_admission.count_queued()

    # -- for display ---------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> OpenBatches:
        """The open batches."""
        return OpenBatches.of(self.batch_runner.open)
