"""Decides what to do about each record: nothing (the ledger has it), an outcome at once, or a job for a worker."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence, Set
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from pipeline.engine.beginning import Beginning
from pipeline.engine.health import Prepare
from pipeline.engine.record_errors import RecordErrorHandler
from pipeline.errors import MediaError, RenderError
from pipeline.readers import placeholder_key
from pipeline.records import Outcome, Problem, Record, Request, SavedAnswer, Status

#: The most followers of a request that is being asked; later records are asked themselves.
MAX_FOLLOWERS = 10_000


@dataclass(slots=True, eq=False)
class Job:
    """A request to ask. `followers` are records with the identical request; `source` is an existing answer.

    `saved` are the record's answers that an earlier session paid for and did not finish.
    """

    request: Request
    followers: list[Record] = field(default_factory=list)
    source: Outcome | None = None
    saved: Sequence[SavedAnswer] = ()
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Lookups:
    """What the feed asks the ledger. Each function takes a batch."""

    #: the keys that have an outcome
    done: Callable[[Sequence[Record]], Awaitable[set[str]]]
    #: the positions of records whose key occurred before in this pass; None if keys are places and cannot repeat
    repeated: Callable[[Sequence[Record]], Awaitable[set[int]]] | None = None
    #: labeled outcomes of identical requests; None if every record is asked
    answered: Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, Outcome]]] | None = None
    #: answers of records without an outcome, by key; None if there are none
    saved: Callable[[Sequence[Record]], Awaitable[Mapping[str, Sequence[SavedAnswer]]]] | None = None
    #: the keys of records whose answers come later, in batches; None if there are none
    elsewhere: Callable[[Sequence[Record]], Awaitable[set[str]]] | None = None


class Producer:
    """Turns batches of records into jobs and outcomes, in input order. What `beginning` holds back comes later."""

    def __init__(
        self,
        batches: AsyncGenerator[list[Record], None],
        render: Callable[[Record], Request],
        lookups: Lookups,
        error_handler: RecordErrorHandler,
        beginning: Beginning | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self._batches = batches
        self._render = render
        self._lookups = lookups
        self._error_handler = error_handler
        self._beginning = beginning or Beginning(over=True)
        self._prepare = prepare
        # Mutable state: jobs whose outcome is not in the ledger yet, by their request's digest.
        self._open: dict[bytes, Job] = {}
        self.skipped = 0

    async def items(self) -> AsyncGenerator[Job | Outcome, None]:
        """Yield jobs and outcomes in input order."""
        async with aclosing(self._batches) as batches:
            async for batch in batches:
                for item in self._beginning.passed(await self._considered(await self._pending(batch))):
                    yield item
        for outcome in self._beginning.ended(self.skipped):
            yield outcome

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        """Forget jobs whose outcomes are in the ledger now."""
        for outcome in outcomes:
            if outcome.request_digest is not None and outcome.copied_from is None:
                self._open.pop(outcome.request_digest, None)

    async def again(self, records: list[Record]) -> list[Job | Outcome]:
        """Return what to do about records that were put off, or that have answers in the ledger."""
        done = await self._lookups.done(records)
        return await self._considered([record for record in records if record.key not in done])

    def put_off(self, job: Job) -> list[Record]:
        """Put off the job. Return the records that have followed it so far; no others will."""
        if self._open.get(job.request.digest) is job:
            del self._open[job.request.digest]
        followers, job.followers = job.followers, []
        return followers

    async def _pending(self, batch: list[Record]) -> list[Record]:
        """Return the records without an outcome. If a key occurred before, the later record gets a problem."""
        if self._lookups.repeated is not None:
            batch = renamed(batch, await self._lookups.repeated(batch))
        done = await self._lookups.done(batch)
        if self._lookups.elsewhere is not None:
            done |= await self._lookups.elsewhere([record for record in batch if record.key not in done])
        self.skipped += len(done)
        return [record for record in batch if record.key not in done]

    async def _considered(self, records: list[Record]) -> list[Job | Outcome]:
        items = await self._reject_unreadable_media([self._rendered(record) for record in records])
        saved = {} if self._lookups.saved is None else await self._lookups.saved(records)
        if self._lookups.answered is None:
            return [
                Job(item, saved=saved.get(item.record.key, ())) if isinstance(item, Request) else item for item in items
            ]
        # Check the open jobs before the ledger, and join the whole batch before any of it goes on. A request that is
        # settled in between is then in one or the other, and is never asked twice.
        joined = [self._joined(item, saved) if isinstance(item, Request) else item for item in items]
        answered = await self._lookups.answered([item.digest for item in joined if isinstance(item, Request)])
        opened = [self._opened(item, answered) if isinstance(item, Request) else item for item in joined]
        return [item for item in opened if item is not None]

    def _rendered(self, record: Record) -> Outcome | Request:
        if record.problem is not None:
            return _rejected(record, record.problem)
        try:
            return self._render(record)
        except RenderError as error:
            return _rejected(record, Problem(error.code, str(error)))
        except Exception as error:
            return _rejected(record, self._error_handler.handle(record, error))

    async def _reject_unreadable_media(self, items: list[Outcome | Request]) -> list[Outcome | Request]:
        """Reject items whose local media cannot be read, but only those before the first record that can be asked."""
        for at, item in enumerate(items if self._prepare is not None and not self._beginning.is_over else ()):
            if isinstance(item, Outcome):
                continue
            problem = await self._problem_of(item)
            if problem is None:
                break
            items[at] = _rejected(item.record, problem)
        return items

    async def _problem_of(self, request: Request) -> Problem | None:
        """Return why the request's local media cannot be read, else None. Addresses are loaded when it is asked."""
        local = tuple(one for one in request.attachments if one.source[:4].lower() != "http")
        if not local or self._prepare is None:
            return None
        try:
            async with self._prepare(replace(request, attachments=local, messages=())):
                return None
        except MediaError as error:
            return Problem(error.code, str(error))
        except Exception as error:
            return self._error_handler.handle(request.record, error)

    def _joined(
        self, request: Request, saved: Mapping[str, Sequence[SavedAnswer]] = MappingProxyType({})
    ) -> Job | Request | None:
        """Return the request if nobody asks it yet, a job for it, or None if its record now follows another one."""
        job = self._open.get(request.digest)
        if answers := saved.get(request.record.key):  # it has begun, so it continues by itself
            own = Job(request, saved=answers)
            self._open.setdefault(request.digest, own)
            return own
        if job is None:
            return request
        if job.outcome is not None:
            return Job(request, source=job.outcome) if job.outcome.status is Status.LABELLED else Job(request)
        if len(job.followers) >= MAX_FOLLOWERS:
            return Job(request)
        job.followers.append(request.record)
        return None

    def _opened(self, request: Request, answered: Mapping[bytes, Outcome]) -> Job | None:
        """Return a job for a request that nobody asks yet; None if an earlier one in the batch does."""
        source = answered.get(request.digest)
        if source is not None:
            return Job(request, source=source)
        joined = self._joined(request)
        if isinstance(joined, Request):
            joined = self._open[request.digest] = Job(request)
        return joined


def renamed(batch: Sequence[Record], again: Set[int]) -> list[Record]:
    """Return the batch with new names for the records at the positions `again`, whose key occurred before."""
    return [_repeated(record) if at in again else record for at, record in enumerate(batch)]


def _repeated(record: Record) -> Record:
    """Return the record under a new name, with the reason why it is not asked."""
    message = f"{record.source}:{record.line}: the key {record.key!r} came before; keys must be unique"
    return Record(
        source=record.source,
        ordinal=record.ordinal,
        key=placeholder_key(f"{record.source}:{record.line}"),
        fields=record.fields,
        line=record.line,
        digest=record.digest,
        problem=Problem("duplicate_key", message),
    )


def _rejected(record: Record, problem: Problem) -> Outcome:
    return Outcome(record=record, status=Status.REJECTED, problem=problem, cost_usd=0.0, finished_at=time.time())
