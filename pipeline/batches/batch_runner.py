"""Moves parts to the server and their results back, one step at a time. The ledger records each step before it is done.

    packed → uploaded → created → ended → fetched → read

After a lost response or a kill, the runner looks up what happened before it repeats a step. It adopts a batch of ours
and does not create it twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.batches.cancellation import Cancellation
from pipeline.batches.config import LaneConfig
from pipeline.batches.messages import empty_text, missing_text, stall_text
from pipeline.batches.part_progress import batch_metadata, stalled_s, to_recreate, with_server_facts
from pipeline.batches.queue import BatchQueue
from pipeline.batches.result_reader import ResultReader
from pipeline.engine import Verdict, backoff_s, verdict_of
from pipeline.errors import CallError, CredentialsError, LabelpipeError, RequestShapeError, UnavailableError
from pipeline.providers import NO_LIST, BatchApi, BatchFacts
from pipeline.runlog import log_event
from pipeline.store import BatchBook, ItemState, LineResult, Part, PartState

#: A batch without progress is polled less and less often, down to every `batch.poll_s` times this.
SLOWEST_POLL = 10
#: Seconds until a batch whose creation was not confirmed is certainly in the list. Until then none is created again.
SHOWS_AFTER_S = 20.0
#: After this many failures in a row, the user learns that a part waits, and a session that does not wait ends.
TRIES = 5
#: Seconds without progress that are reported, once.
STILL_S = 2 * 3600.0
#: The run stops after this many batches in a row without an answer, because the next one would do no better.
MOST_EMPTY = 10
#: The server's error if more is queued than it allows (developers.openai.com, the guide to the Batch API).
QUEUE_FULL = "token_limit_exceeded"


class BatchRunner:
    """Moves the parts of a run."""

    def __init__(
        self,
        api: BatchApi,
        book: BatchBook,
        reader: ResultReader,
        path_of: Callable[[int], Path],
        *,
        config: LaneConfig,
        queue: BatchQueue,
        run_id: str,
        may_send: Callable[[Part, Sequence[Part]], Awaitable[bool]],
        is_stopped: Callable[[], bool],
        at_change: Callable[[], None],
        stop: Callable[[LabelpipeError], None],
        echo: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._book = book
        self._reader = reader
        self._path_of = path_of
        self.config = config
        self.cancellation = Cancellation(api)
        self.queue = queue
        self._run_id = run_id
        self._may_send = may_send
        self._is_stopped = is_stopped
        self._at_change = at_change
        self._stop = stop
        self._echo = echo
        self._clock = clock
        # Mutable state: the parts that are not closed; when each is checked next, and how often that changed nothing;
        # how many batches in a row were refused, or had no answers; the seconds that batches took; which batches may
        # exist; and which were reported as stalled.
        self.parts: dict[int, Part] = {}
        self._next_at: dict[int, float] = {}
        self._idle: dict[int, int] = {}
        self._rejections = self._empty = 0
        self.took_s: list[float] = []
        self.unknown: dict[int, CallError] = {}
        self._stalls_reported: set[int] = set()
        self._wake = asyncio.Event()

    def recheck_unsent(self, apart_from: int | None = None) -> None:
        """Check unsent parts again, because there may be room now."""
        again = [one.number for one in self.parts.values() if one.is_unsent and one.number != apart_from]
        self._next_at = {number: at for number, at in self._next_at.items() if number not in again}
        if apart_from is None:
            self._wake.set()

    async def load(self) -> None:
        """Load what earlier sessions left."""
        for part in await self._book.parts():
            if part.took_s is not None:
                self.took_s.append(part.took_s)
            if part.state is not PartState.CLOSED:
                self.parts[part.number] = part

    def on_packed(self, part: Part) -> None:
        """Add a new part."""
        self.parts[part.number] = part
        self._wake.set()

    def cancel_all(self) -> None:
        """Cancel the batches at the server and send nothing more. Their answers so far are collected."""
        self.cancellation.all_of_them = True
        self._next_at.clear()
        self._wake.set()

    def shut(self, *, is_shut: bool) -> None:
        """Stop creating batches, or resume it. Parts that are not at the server are handed out and asked live."""
        if self.cancellation.shut(is_shut=is_shut):
            self._next_at.clear()
            self._wake.set()

    def cancel(self, parts: Sequence[Part]) -> list[Part]:
        """Cancel these parts. Returns those that were not canceled before."""
        news = self.cancellation.add(parts)
        for part in news:
            self._next_at.pop(part.number, None)
            self._wake.set()
        return news

    async def split(self, part: Part) -> Part:
        """Split a part that was not sent. Its records are packed again, into smaller parts, or asked live."""
        waiting = await self._book.waiting(part.number)
        apart = replace(part, state=PartState.READ, file_id="", books={**part.books, "split": True})
        await self._book.record_results(apart, [LineResult(place, ItemState.AGAIN) for place in waiting])
        self.parts[part.number] = apart
        self._at_change()
        await self._forget(part)
        return apart

    @property
    def is_idle(self) -> bool:
        """Whether everything possible was done. A step that has begun and failed is retried a few times first."""
        return all(
            part.number in self._next_at
            and (not part.begun or part.number in self.unknown or self._idle.get(part.number, 0) >= TRIES)
            for part in self.open
        )

    @property
    def open(self) -> list[Part]:
        """The parts whose answers are not all in the ledger."""
        return [part for part in self.parts.values() if part.is_open]

    @property
    def at_server(self) -> list[Part]:
        """The parts that the server is working on."""
        return [part for part in self.parts.values() if part.is_at_server]

    @property
    def polled(self) -> list[Part]:
        """The parts that the server was working on at their last poll in this session."""
        return [part for part in self.at_server if part.number in self._next_at]

    async def run(self) -> None:
        """Move parts until canceled."""
        while True:
            self._wake.clear()
            now = self._clock()
            for number in sorted(self.parts):
                if self._next_at.get(number, 0.0) <= now and self.parts[number].is_open:
                    await self._advance(self.parts[number])
            waits = [at for number, at in self._next_at.items() if number in self.parts and self.parts[number].is_open]
            pause_s = max(0.0, min(waits, default=now + self.config.poll_s) - self._clock())
            with suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it loses a cancel that arrives when the event is set.
                async with asyncio.timeout(min(pause_s, self.config.poll_s)):
                    await self._wake.wait()

    async def _advance(self, part: Part) -> None:
        """Take the next step of a part. If it fails, schedule a retry."""
        number = part.number
        self.cancellation.checked.add(number)
        self._next_at.pop(number, None)
        try:
            after = await self._run_step(part)
        except CallError as error:
            self._schedule_retry(part, error)
            return
        self.parts[number] = after
        if (after.state, after.begun, after.facts) != (part.state, part.begun, part.facts):
            self._idle.pop(number, None)
            self._stalls_reported.discard(number)
            self.recheck_unsent(apart_from=number)
            self._at_change()
        else:
            self._idle[number] = self._idle.get(number, 0) + 1
        if after.state is not part.state:
            self._wake.set()
            return
        is_asked = self.cancellation.includes(after) or (self.queue.is_shared and after.is_unsent)
        often = 1.0 if is_asked else min(SLOWEST_POLL, 1.5 ** min(20, self._idle.get(number, 0)))
        self._next_at.setdefault(number, self._clock() + self.config.poll_s * often)
        self._report_stall(after)

    def _schedule_retry(self, part: Part, error: CallError) -> None:
        if verdict_of(error) not in (Verdict.RETRY, Verdict.COOL_DOWN):
            self._stop(error)
            self._next_at[part.number] = float("inf")
            return
        failures = self._idle[part.number] = self._idle.get(part.number, 0) + 1
        wait_s = max(error.retry_after_s or 0.0, min(60.0, self.config.poll_s * backoff_s(failures, 0.5)))
        self._next_at[part.number] = self._clock() + wait_s
        log_event("a batch cannot be reached", part=part.number, state=part.state.value, error=str(error))
        if failures == TRIES:
            self._echo(f"labelpipe: part {part.number} of the batches waits: {error}")

    def _report_stall(self, part: Part) -> None:
        still = stalled_s(part, self._clock())
        if part.batch_id and still >= STILL_S and part.number not in self._stalls_reported:
            self._stalls_reported.add(part.number)
            log_event("a batch does not move", part=part.number, batch=part.batch_id, still_s=round(still))
            self._echo(f"labelpipe: {stall_text(part, still)}")

    # -- the steps -----------------------------------------------------------------------------------------------

    async def _run_step(self, part: Part) -> Part:
        acts = {
            PartState.PACKED: self._upload,
            PartState.UPLOADED: self._create,
            PartState.CREATED: self._poll,
            PartState.ENDED: self._fetch,
        }
        return await acts.get(part.state, self._read)(part)

    async def _upload(self, part: Part) -> Part:
        if self.cancellation.is_shut:
            return await self.split(part)
        if self.cancellation.all_of_them or self._is_stopped():
            return part
        # A part that has begun was admitted before, and is counted already.
        others = self._other_sent_parts(part)
        if not await (self.queue.take(part, others, counts=False) if part.begun else self._may_send(part, others)):
            return self.parts[part.number]  # it may have been split
        name = f"labelpipe-{self._run_id[:12]}-{part.number:06}-{part.sha256[:12]}.jsonl"
        file_id = await self._api.find_file(name) if part.begun else None
        if file_id is None:
            part = await self._save(replace(part, begun=True))
            file_id = await self._api.upload(self._path_of(part.number), name)
        return await self._save(replace(part, state=PartState.UPLOADED, file_id=file_id, begun=False))

    def _other_sent_parts(self, part: Part) -> list[Part]:
        """Return the other parts that were sent and are not collected."""
        return [one for one in self.parts.values() if one.number != part.number and one.is_sent]

    async def _create(self, part: Part) -> Part:
        if part.begun:
            return await self._adopt(part)
        if self.cancellation.is_shut:
            return await self.split(part)
        is_shut = self.cancellation.all_of_them or self._is_stopped()
        if is_shut or not await self.queue.take(part, self._other_sent_parts(part), counts=False):
            return part
        part = await self._save(replace(part, begun=True, sent_at=self._clock()))
        try:
            made = await self._api.create(part.file_id, batch_metadata(part, self._run_id))
        except CallError as error:
            # An error without a status means that the request did not arrive, unless it may be billed.
            if not error.billed and (error.status is None or verdict_of(error) is not Verdict.RETRY):
                await self._save(replace(part, begun=False))
            raise
        return await self._record_created(part, made)

    async def _record_created(self, part: Part, made: BatchFacts) -> Part:
        part = replace(part, state=PartState.CREATED, begun=False, batch_id=made.id)
        return await self._save(with_server_facts(made, part, self._clock()))

    async def _adopt(self, part: Part) -> Part:
        """Look for a batch whose creation was not confirmed. Create it again only if the server's list has none."""
        try:
            batch = await self._api.find(batch_metadata(part, self._run_id), part.file_id)
        except CallError as error:
            if error.status not in NO_LIST:
                raise
            return await self._mark_unknown(part, error)
        if batch is not None:
            log_event("a batch was taken over", part=part.number, batch=batch.id)
            return await self._record_created(part, batch)
        now = self._clock()
        shows_at = (part.sent_at or 0.0) + SHOWS_AFTER_S
        if now < shows_at:
            self._next_at[part.number] = min(shows_at, now + self.config.poll_s)
            return part
        self._next_at[part.number] = now
        return await self._save(replace(part, begun=False))

    async def _mark_unknown(self, part: Part, error: CallError) -> Part:
        """Record that the batch may exist: the server has no list to check. Canceling all batches gives it up."""
        if self.cancellation.all_of_them:
            return await self.split(part)
        self.unknown[part.number] = error
        self._next_at[part.number] = float("inf")
        log_event("a batch may have been made", part=part.number, file=part.file_id, error=str(error))
        self._at_change()
        return part

    async def _poll(self, part: Part) -> Part:
        try:
            facts = await self.cancellation.poll(part)
        except CallError as error:
            if error.status == 404:
                return await self._handle_missing(part, error)
            raise
        now = self._clock()
        after = with_server_facts(facts, part, now)
        if not facts.is_over:
            return part if after is part else await self._save(after)
        # The last poll may be hours ago, so the server knows better how long it took.
        worked_s = facts.worked_s if facts.worked_s is not None else now - (part.sent_at or now)
        part = replace(after, ended_at=min(now, (part.sent_at or now) + worked_s), begun=False)
        if facts.status == "failed":
            return await self._handle_rejection(part, facts)
        self._rejections = 0
        if part.took_s is not None:
            self.took_s.append(part.took_s)
        return await self._save(replace(part, state=PartState.ENDED))

    async def _handle_missing(self, part: Part, error: CallError) -> Part:
        """Handle a batch that the server does not know. Raises an error, unless it was canceled or simulated."""
        if not (self.cancellation.all_of_them or self.config.forgets):
            raise CredentialsError(missing_text(part, error))
        log_event("a batch is gone", part=part.number, batch=part.batch_id)
        return await self.split(part)

    async def _handle_rejection(self, part: Part, facts: BatchFacts) -> Part:
        """Handle a batch that the server refused, because too much is queued or something is wrong with the file."""
        codes = {code for code, _, _ in facts.errors}
        words = "; ".join(dict.fromkeys(message for _, _, message in facts.errors)) or "the server does not say why"
        log_event("a batch failed", part=part.number, batch=part.batch_id, codes=sorted(codes), error=words[:400])
        if QUEUE_FULL in codes:
            return await self._wait_for_queue(part, words)
        self._rejections += 1
        if self._rejections > 1 or not any(line is None for _, line, _ in facts.errors):
            self._stop(RequestShapeError(f"the server refuses the batch: {words[:400]}", certain=True))
        return await self._save(to_recreate(part))

    async def _wait_for_queue(self, part: Part, words: str) -> Part:
        """Wait because the server's queue is full. Try again when others come back, or in smaller parts."""
        if not self.queue.is_learned:
            self._echo(f"labelpipe: the server queues no more than this at once; further batches wait: {words[:200]}")
        others = self._other_sent_parts(part)
        if await self.queue.refused(part, others):
            return await self.split(part)
        # If no other part is at the server, somebody else may have filled the queue.
        often = 1 if self.queue.is_shared or any(one.is_at_server for one in others) else SLOWEST_POLL
        self._next_at[part.number] = self._clock() + self.config.poll_s * often
        # Only the batch is created again. Its metadata distinguishes it from the failed one.
        return await self._save(to_recreate(part))

    async def _fetch(self, part: Part) -> Part:
        await self._reader.fetch(part, partial(self._result_path, part))
        return await self._save(replace(part, state=PartState.FETCHED))

    async def _read(self, part: Part) -> Part:
        paths = [self._result_path(part, name) for name in ("output", "error")]
        there = [path for path in paths if path.exists()]
        if not there and part.facts.get("output_file_id"):
            return await self._save(replace(part, state=PartState.ENDED))  # the files were lost
        try:
            part, graver = await self._reader.read(part, there, give_up=self.cancellation.all_of_them)
        except RequestShapeError:
            await self._save(replace(part, state=PartState.ENDED))  # the next session fetches them again
            raise
        self._count_empty(part)
        for error in graver[:1]:
            self._stop(error)
        for path in there:
            path.unlink(missing_ok=True)
        await self._forget(part)
        return part

    def _count_empty(self, part: Part) -> None:
        """Stop the run after too many batches in a row without an answer."""
        is_empty = not any(part.books["lines"].get(end) for end in ("answered", "refused"))
        self._empty = self._empty + 1 if is_empty and not self.cancellation.includes(part) else 0
        if self._empty >= MOST_EMPTY:
            self._stop(UnavailableError(empty_text(part, self._empty)))

    async def _forget(self, part: Part) -> None:
        """Remove the input file of a part, locally and at the server."""
        self._path_of(part.number).unlink(missing_ok=True)
        if part.file_id:
            await self._api.forget(part.file_id)

    async def _save(self, part: Part) -> Part:
        self.parts[part.number] = part
        return await self._book.note(part)

    def _result_path(self, part: Part, name: str) -> Path:
        return self._path_of(part.number).with_suffix(f".{name}.jsonl")
