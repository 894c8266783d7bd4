"""Takes parts to the server and their results back: one act after another, each noted in the ledger before it is done.

    packed → uploaded → created → ended → fetched → read

What a lost answer or a kill leaves unknown is looked up before it is done again: a batch of ours is taken over, not
made a second time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.batches.packing import MOST_LINES
from pipeline.batches.reading import Reader
from pipeline.engine import Verdict, backoff_s, verdict_of
from pipeline.errors import CallError, CredentialsError, LabelpipeError, RequestShapeError
from pipeline.providers import BatchApi, BatchFacts
from pipeline.records import JSON
from pipeline.runlog import tell
from pipeline.store import BatchBook, ItemState, Landed, Part, PartState, usage_list
from pipeline.units import duration

#: Where nothing moves, a batch is looked at ever more rarely, up to so many times `batch.poll_s`.
RAREST = 10
#: A batch whose making was not answered shows in the list after so long at the latest; until then none is made anew.
SHOWS_AFTER_S = 20.0
#: After so many failures in a row it is said that a part waits, and who does not wait for batches goes.
TRIES = 5
#: No progress for so long is said.
STILL_S = 2 * 3600.0
#: What a server says where more is queued than it allows (developers.openai.com, the guide to the Batch API).
QUEUE_FULL = "token_limit_exceeded"


@dataclass(frozen=True, slots=True)
class CourierRules:
    """`poll_s`: how often a batch is looked at. `enqueued_tokens`: how much may be queued; None: learned.

    `forgets`: the server loses its batches when it ends, as the built-in endpoint does.
    """

    poll_s: float
    enqueued_tokens: int | None
    forgets: bool = False


class Courier:
    """Moves the parts of a run."""

    def __init__(
        self,
        api: BatchApi,
        book: BatchBook,
        reader: Reader,
        path_of: Callable[[int], Path],
        *,
        rules: CourierRules,
        run_id: str,
        may_send: Callable[[Part, Sequence[Part]], Awaitable[bool]],
        is_stopped: Callable[[], bool],
        at_change: Callable[[], None],
        stop: Callable[[LabelpipeError], None],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._book = book
        self._reader = reader
        self._path_of = path_of
        self.rules = rules
        self._run_id = run_id
        self._may_send = may_send
        self._is_stopped = is_stopped
        self._at_change = at_change
        self._stop = stop
        self._say = say
        self._clock = clock
        # All state that changes: the parts that are not closed; when each is looked at next, how often that came to
        # nothing, and since when; what the server lets be queued, and how many lines a part may have for that; how many
        # batches in a row were refused; whether all is called off; and how long batches took, in seconds.
        self.parts: dict[int, Part] = {}
        self._next_at: dict[int, float] = {}
        self._idle: dict[int, int] = {}
        self._still_since: dict[int, float] = {}
        self._queue_most: int | None = None
        self.most_lines = MOST_LINES
        self._failed_alike = 0
        self.took_s: list[float] = []
        self.cancelling = False
        self._wake = asyncio.Event()

    async def begin(self) -> None:
        """Find out what earlier sessions have left."""
        for part in await self._book.parts():
            if part.sent_at is not None and part.ended_at is not None:
                self.took_s.append(part.ended_at - part.sent_at)
            if part.state is not PartState.CLOSED:
                self.parts[part.number] = part

    def packed(self, part: Part) -> None:
        """A new part is there."""
        self.parts[part.number] = part
        self._wake.set()

    def call_off(self) -> None:
        """Cancel what is at the server, and send nothing more. What was answered until then is collected."""
        self.cancelling = True
        self._next_at.clear()
        self._wake.set()

    async def split(self, part: Part) -> None:
        """Take apart a part that was not sent: its records are packed again, into smaller ones."""
        waiting = await self._book.waiting(part.number)
        part = replace(part, state=PartState.READ, file_id="", books={**part.books, "split": True})
        await self._book.land(part, [Landed(place, ItemState.AGAIN) for place in waiting])
        self.parts[part.number] = part
        self._path_of(part.number).unlink(missing_ok=True)
        self._at_change()

    @property
    def is_still(self) -> bool:
        """Whether each open part was looked at since it last moved: what can be done now was done.

        What has begun and failed is tried a few times more.
        """
        return all(
            part.number in self._next_at and not (part.begun and self._idle.get(part.number, 0) < TRIES)
            for part in self.open
        )

    @property
    def open(self) -> list[Part]:
        """The parts whose answers are not all in the ledger."""
        return [part for part in self.parts.values() if part.is_open]

    @property
    def at_server(self) -> list[Part]:
        """The parts that the server works on."""
        return [part for part in self.parts.values() if part.is_at_server]

    async def run(self) -> None:
        """Move parts until cancelled."""
        while True:
            self._wake.clear()
            now = self._clock()
            for number in sorted(self.parts):
                if self._next_at.get(number, 0.0) <= now and self.parts[number].is_open:
                    await self._moved(self.parts[number])
            waits = [at for number, at in self._next_at.items() if number in self.parts and self.parts[number].is_open]
            pause_s = max(0.0, min(waits, default=now + self.rules.poll_s) - self._clock())
            with suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it loses a cancel that comes as the event is set.
                async with asyncio.timeout(min(pause_s, self.rules.poll_s)):
                    await self._wake.wait()

    async def _moved(self, part: Part) -> None:
        """The next act on a part; where it fails, when it is tried again."""
        number = part.number
        self._next_at.pop(number, None)
        try:
            after = await self._acted(part)
        except CallError as error:
            self._failed(part, error)
            return
        self.parts[number] = after
        if (after.state, after.begun, after.facts) != (part.state, part.begun, part.facts):
            self._idle.pop(number, None)
            self._still_since.pop(number, None)
            for other, waiting in self.parts.items():
                if other != number and waiting.is_unsent:
                    self._next_at.pop(other, None)  # there may be room now
            self._at_change()
        else:
            self._idle[number] = self._idle.get(number, 0) + 1
        if after.state is not part.state:
            self._wake.set()
            return
        often = min(RAREST, 1.5 ** min(20, self._idle.get(number, 0)))
        self._next_at.setdefault(number, self._clock() + self.rules.poll_s * often)
        self._note_still(after)

    def _failed(self, part: Part, error: CallError) -> None:
        if verdict_of(error) not in (Verdict.RETRY, Verdict.COOL_DOWN):
            self._stop(error)
            self._next_at[part.number] = float("inf")
            return
        failures = self._idle[part.number] = self._idle.get(part.number, 0) + 1
        wait_s = max(error.retry_after_s or 0.0, min(60.0, self.rules.poll_s * backoff_s(failures, 0.5)))
        self._next_at[part.number] = self._clock() + wait_s
        tell("a batch cannot be reached", part=part.number, state=part.state.value, error=str(error))
        if failures == TRIES:
            self._say(f"labelpipe: part {part.number} of the batches waits: {error}")

    def _note_still(self, part: Part) -> None:
        since = self._still_since.setdefault(part.number, self._clock())
        if self._clock() - since >= STILL_S:
            self._still_since[part.number] = self._clock()
            self._say(
                f"labelpipe: batch {part.batch_id} has not moved for {duration(STILL_S)} "
                f"({part.facts.get('status', part.state.value)}); it is waited for"
            )

    # -- the acts ------------------------------------------------------------------------------------------------

    async def _acted(self, part: Part) -> Part:
        match part.state:
            case PartState.PACKED:
                return await self._upload(part)
            case PartState.UPLOADED:
                return await self._create(part)
            case PartState.CREATED:
                return await self._look(part)
            case PartState.ENDED:
                return await self._fetch(part)
            case _:
                return await self._read(part)

    async def _upload(self, part: Part) -> Part:
        if self.cancelling or self._is_stopped() or not self._fits_queue(part):
            return part
        # One that has begun was let through before, and counts already.
        if not part.begun and not await self._may_send(part, self._others(part)):
            return self.parts[part.number]  # it may have been taken apart
        name = f"labelpipe-{self._run_id[:12]}-{part.number:06}-{part.sha256[:12]}.jsonl"
        file_id = await self._api.find_file(name) if part.begun else None
        if file_id is None:
            part = await self._noted(replace(part, begun=True))
            file_id = await self._api.upload(self._path_of(part.number), name)
        return await self._noted(replace(part, state=PartState.UPLOADED, file_id=file_id, begun=False))

    def _others(self, part: Part) -> list[Part]:
        """The other parts that were sent, and are not collected."""
        return [one for one in self.parts.values() if one.number != part.number and one.is_sent]

    def _fits_queue(self, part: Part) -> bool:
        """Whether the server's limit on what is queued at once leaves room for the part."""
        most = self.rules.enqueued_tokens or self._queue_most
        queued = sum(one.tokens for one in self._others(part) if one.is_at_server)
        return most is None or not queued or queued + part.tokens <= most

    async def _create(self, part: Part) -> Part:
        found = await self._api.find(self._metadata(part)) if part.begun else None
        if found is None and part.begun and self._clock() - (part.sent_at or 0.0) < SHOWS_AFTER_S:
            # It may have been made, and not be in the list yet.
            self._next_at[part.number] = self._clock() + min(SHOWS_AFTER_S, self.rules.poll_s)
            return part
        if found is None:
            if self.cancelling or self._is_stopped() or not self._fits_queue(part):
                # What had begun is not in the server's list: no batch was made of it.
                return await self._noted(replace(part, begun=False)) if part.begun else part
            part = await self._noted(replace(part, begun=True, sent_at=self._clock()))
            try:
                found = await self._api.create(part.file_id, self._metadata(part))
            except CallError as error:
                if not error.billed and verdict_of(error) is not Verdict.RETRY:
                    part = self.parts[part.number] = await self._noted(replace(part, begun=False))
                raise
        else:
            tell("a batch was taken over", part=part.number, batch=found.id)
        return await self._noted(
            replace(part, state=PartState.CREATED, begun=False, batch_id=found.id, facts=_told(found))
        )

    async def _look(self, part: Part) -> Part:
        try:
            if self.cancelling and not part.begun:
                part = await self._noted(replace(part, begun=True))
                facts = await self._api.cancel(part.batch_id)
            else:
                facts = await self._api.look(part.batch_id)
        except CallError as error:
            if error.status == 409 and self.cancelling:
                return part  # it has ended by itself: the next look says how
            if error.status != 404:
                raise
            return await self._gone(part, error)
        told = _told(facts)
        if not facts.is_over:
            return part if told == part.facts else await self._noted(replace(part, facts=told))
        part = replace(part, facts=told, ended_at=self._clock(), begun=False)
        if facts.status == "failed":
            return await self._refused(part, facts)
        self._failed_alike = 0
        self.took_s.append(self._clock() - (part.sent_at or self._clock()))
        return await self._noted(replace(part, state=PartState.ENDED))

    async def _gone(self, part: Part, error: CallError) -> Part:
        """The server does not know the batch: the end of it where it was called off, or simulated."""
        if not (self.cancelling or self.rules.forgets):
            raise CredentialsError(
                f"the server knows no batch {part.batch_id}. Is the key one of the same project? If the batch is lost, "
                f"labelpipe cancel gives it up ({error})"
            )
        tell("a batch is gone", part=part.number, batch=part.batch_id)
        await self.split(part)
        return self.parts[part.number]

    async def _refused(self, part: Part, facts: BatchFacts) -> Part:
        """The server has not taken the batch: too much is queued, or something is wrong with the file."""
        codes = {code for code, _, _ in facts.errors}
        words = "; ".join(dict.fromkeys(message for _, _, message in facts.errors)) or "the server does not say why"
        tell("a batch failed", part=part.number, batch=part.batch_id, codes=sorted(codes), error=words[:400])
        if QUEUE_FULL in codes:
            return await self._wait_for_queue(part, words)
        self._failed_alike += 1
        if self._failed_alike > 1 or not any(line is None for _, line, _ in facts.errors):
            self._stop(RequestShapeError(f"the server refuses the batch: {words[:400]}", certain=True))
        return await self._noted(_made_again(part))

    async def _wait_for_queue(self, part: Part, words: str) -> Part:
        """More was queued than the server takes at once: by its own count, so only what was queued then is known."""
        others = sum(one.tokens for one in self._others(part) if one.is_at_server)
        if self._queue_most is None:
            self._say(f"labelpipe: the server queues no more than this at once; further batches wait: {words[:200]}")
        if others:
            self._queue_most = others
            self._next_at[part.number] = self._clock() + self.rules.poll_s
            # The file is there: only the batch is made again, under a name by which the failed one is not found.
            return await self._noted(_made_again(part))
        self._queue_most = max(1, part.tokens // 2)
        if part.lines > 1:
            self.most_lines = max(1, part.lines // 2)
            await self.split(part)
            return self.parts[part.number]
        # Others than this run may have filled the queue.
        self._next_at[part.number] = self._clock() + RAREST * self.rules.poll_s
        return await self._noted(_made_again(part))

    async def _fetch(self, part: Part) -> Part:
        for name in ("output", "error"):
            file_id = part.facts.get(f"{name}_file_id")
            path = self._result_path(part, name)
            path.unlink(missing_ok=True)
            if not file_id:
                continue
            try:
                await self._api.fetch(str(file_id), path)
            except CallError as error:
                if name == "output" or error.status != 404:
                    raise
        return await self._noted(replace(part, state=PartState.FETCHED))

    async def _read(self, part: Part) -> Part:
        paths = [self._result_path(part, name) for name in ("output", "error")]
        there = [path for path in paths if path.exists()]
        if not there and part.facts.get("output_file_id"):
            return await self._noted(replace(part, state=PartState.ENDED))  # the files were lost with a disk
        try:
            part, graver = await self._reader.read(part, there, give_up=self.cancelling)
        except RequestShapeError:
            await self._noted(replace(part, state=PartState.ENDED))  # the next session fetches them anew
            raise
        for error in graver[:1]:
            self._stop(error)
        for path in (*there, self._path_of(part.number)):
            path.unlink(missing_ok=True)
        if part.file_id:
            await self._api.forget(part.file_id)
        return part

    async def _noted(self, part: Part) -> Part:
        self.parts[part.number] = part
        return await self._book.note(part)

    def _metadata(self, part: Part) -> dict[str, str]:
        made = part.books.get("made") or 0
        return {
            "labelpipe_run": self._run_id,
            "labelpipe_part": f"{part.number}.{made}",
            "labelpipe_sha256": part.sha256,
        }

    def _result_path(self, part: Part, name: str) -> Path:
        return self._path_of(part.number).with_suffix(f".{name}.jsonl")


def _made_again(part: Part) -> Part:
    made = (part.books.get("made") or 0) + 1
    return replace(part, state=PartState.UPLOADED, batch_id="", begun=False, books={**part.books, "made": made})


def _told(facts: BatchFacts) -> dict[str, JSON]:
    """What the ledger keeps of what the server says."""
    return {
        "status": facts.status,
        "output_file_id": facts.output_file_id,
        "error_file_id": facts.error_file_id,
        "total": facts.total,
        "done": facts.done,
        "failed": facts.failed,
        "usage": None if facts.usage is None else usage_list(facts.usage),
        "expires_at": facts.expires_at,
    }
