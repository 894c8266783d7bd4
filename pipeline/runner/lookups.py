"""Compares inputs with the ledger as they are read: those that change, and those that can be read only once."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from pipeline import codec
from pipeline.engine import Job, Lookups
from pipeline.errors import ChangedError, LabelpipeError, RenderError
from pipeline.labelfields import Rename
from pipeline.readers import ReadProgress, Source, Stamp
from pipeline.records import Outcome, Record, SavedAnswer, Status
from pipeline.runlog import log_event
from pipeline.runner.session_parts import SessionParts
from pipeline.stats import RunSummary
from pipeline.store import Ledger, RunDir, Selection, renames_of
from pipeline.task import Task, rename_answer
from pipeline.threads import in_daemon

#: How long remote inputs may take to report at the end whether they changed.
LAST_LOOK_S = 60.0


@dataclass(frozen=True, slots=True)
class ChangeDetector:
    """Handles records that have an outcome and have changed since; `stop` stops the run."""

    parts: SessionParts
    stop: Callable[[LabelpipeError], None]

    async def done(self, records: Sequence[Record]) -> set[str]:
        """Return the keys of those that need no answer; of all known ones if the run stops."""
        known = await self.parts.ledger.known([record.key for record in records])
        other = [record for record in records if record.key in known and known[record.key].digest != record.digest]
        return set(known) - await self._to_ask_again(other) if other else set(known)

    async def _to_ask_again(self, records: Sequence[Record]) -> set[str]:
        """Archive those that must be asked again. Return their keys."""
        ledger, options = self.parts.ledger, self.parts.options
        has_key = self.parts.settings.input.key is not None
        before = await ledger.outcomes_of([record.key for record in records])
        changed = [record for record in records if not self._is_same(record, before[record.key])]
        labelled = [record.key for record in changed if before[record.key].status is Status.LABELLED]
        again = {record.key for record in changed} - set(labelled)
        if labelled and options.relabel:
            again |= set(labelled)
        elif labelled and not (options.keep and has_key):
            self.stop(ChangedError(_changed_message(changed[0], len(labelled), has_key=has_key)))
            return set()
        await ledger.archive(Selection(keys=sorted(again)), "relabel")
        await ledger.refresh([record for record in records if record not in changed])
        return again

    def _is_same(self, record: Record, before: Outcome) -> bool:
        if record.problem is not None or before.record.problem is not None:
            return False
        if codec.canonical(record.fields) == codec.canonical(before.record.fields):
            return True
        return asks_the_same(self.parts.task, record, before)


def asks_the_same(task: Task, record: Record, before: Outcome) -> bool:
    """Whether this outcome answers the record's request."""
    try:
        return task.render(record).digest == before.request_digest
    except RenderError:
        return False


def _changed_message(record: Record, count: int, *, has_key: bool) -> str:
    keep = ", --keep to keep their labels" if has_key else ""
    why = "" if has_key else " (without input.key a record is named by its place)"
    return (
        f"{record.source} is not the input that this run has labelled: {count:,} of the records so far have "
        f"changed, the first at {record.key}{why}. Use --output for a separate run{keep}, or --relabel"
    )


async def build_lookups(
    parts: SessionParts,
    stop: Callable[[LabelpipeError], None],
    in_batches: Callable[[Sequence[Record]], Awaitable[set[str]]] | None,
) -> Lookups:
    """Return the producer's lookups in the ledger; `in_batches` finds the records whose answers come in batches.

    In the ledger from before sharding, only outcomes are looked up.
    """
    settings, task, ledger, base = parts.settings, parts.task, parts.ledger, parts.base

    async def known(records: Sequence[Record]) -> set[str]:
        keys = [record.key for record in records]
        return set(await ledger.known(keys)) | (set() if base is None else set(await base.known(keys)))

    async def repeated(records: Sequence[Record]) -> set[int]:
        return await find_repeated(ledger, records)

    async def saved(records: Sequence[Record]) -> Mapping[str, Sequence[SavedAnswer]]:
        return await ledger.answers_of([record.key for record in records])

    renames = renames_of(RunDir(ledger.path.parent).read_manifest())

    async def answered(digests: Sequence[bytes]) -> Mapping[bytes, Outcome]:
        outcomes = {} if base is None else dict(await base.find_request(digests))
        outcomes |= await ledger.find_request(digests)
        return {digest: _with_new_names(one, renames) for digest, one in outcomes.items()}

    # Sources that can be read again were compared before the session.
    once = any(source.single_pass for source in parts.sources)
    return Lookups(
        done=ChangeDetector(parts, stop).done if once else known,
        repeated=repeated if settings.input.key is not None else None,
        answered=answered if settings.task.dedupe and task.can_share_answers else None,
        elsewhere=in_batches,
        # The producer has already passed the records whose answers this session saves, except for those in batches.
        saved=saved if in_batches is not None or await ledger.has_answers() else None,
    )


def _with_new_names(outcome: Outcome, renames: Sequence[Rename]) -> Outcome:
    """Return an outcome to copy the answer from, with the names of renames that came after the answer."""
    later = [one for one in renames if one.at > (outcome.finished_at or 0)]
    if outcome.answer is None or not later:
        return outcome
    return replace(outcome, answer=rename_answer(outcome.answer, later))


async def end_pass(ledger: Ledger, sources: Sequence[Source], reading: ReadProgress, *, complete: bool) -> None:
    """Archive never-asked outcomes of records that are missing from this pass: rows that were fixed or removed.

    This is for inputs that can be read only once, after all was read. Others are compared before a session.
    """
    if (
        complete
        and reading.limit is None
        and not reading.excluded_counts
        and any(source.single_pass for source in sources)
    ):
        await ledger.archive(Selection(keys=await ledger.absent_keys(reading.exact_total)), "fixed")


async def read_changes(sources: Sequence[Source], stamps: Sequence[Stamp | None]) -> list[str]:
    """Return a message about inputs that have changed since these stamps, which were taken before reading.

    If a server does not answer in time, nobody knows, and there is no message.
    """
    try:
        now = await asyncio.wait_for(in_daemon(lambda: list(_stamps_now(sources))), LAST_LOOK_S)
    except TimeoutError:
        log_event("the inputs were not compared at the end", reason=f"no answer within {LAST_LOOK_S:g} s")
        return []
    changed = [
        source.name
        for source, before, after in zip(sources, stamps, now, strict=False)
        if before is not None and before != after
    ]
    if not changed:
        return []
    names = ", ".join(changed[:3]) + " ..." * (len(changed) > 3)
    message = (
        f"The input has changed while it was read: {names}. Some records may have been missed or read from two "
        "versions. Run the same command again: it compares all of them with what was labelled, and continues there."
    )
    return [message]


def _stamps_now(sources: Sequence[Source]) -> Iterator[Stamp | None]:
    """Yield the current stamps. Each remote address is asked only once for all of its files."""
    stamps: dict[Callable[[], Mapping[str, Stamp | None]], Mapping[str, Stamp | None]] = {}
    for source in sources:
        again = source.restamp
        if again is None:
            yield _stamp_of(source)
            continue
        if again not in stamps:
            try:
                stamps[again] = again()
            except LabelpipeError as error:
                log_event("an input was not compared at the end", reason=str(error))
                stamps[again] = {one.name: one.stamp() for one in sources}
        yield stamps[again].get(source.name)


def with_notes(summary: RunSummary, notes: Sequence[str], changed: Sequence[str], command: str) -> RunSummary:
    """Return the summary with these notes. If the input has changed, it may not be complete."""
    summary = replace(summary, notes=(*notes, *changed))
    if not changed or summary.ended != "complete":
        return summary
    return replace(summary, exit_code=summary.exit_code or 1, next_step=f"labelpipe run {command}".rstrip())


def _stamp_of(source: Source) -> Stamp | None:
    try:
        return source.stamp()
    except OSError:
        return None  # the source no longer exists


async def find_repeated(ledger: Ledger, batch: Sequence[Record]) -> set[int]:
    """Return positions of records whose key came before in this pass. Generated names never repeat; all are noted."""
    return set(await ledger.find_duplicates([(record.key, f"{record.source}:{record.line}") for record in batch]))


async def stop_before_asking(
    items: AsyncGenerator[Job | Outcome, None], reason: LabelpipeError | None, stop: Callable[[LabelpipeError], None]
) -> AsyncGenerator[Job | Outcome, None]:
    """Yield what needs no call, and stop with this reason before anything else. None: yield all."""
    async with aclosing(items):
        async for item in items:
            if reason is not None and isinstance(item, Job):
                stop(reason)
                await asyncio.Event().wait()  # the pool would start whatever is yielded
            yield item
