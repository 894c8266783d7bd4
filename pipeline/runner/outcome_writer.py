"""Writes the outcomes of a session: to the ledger first, then to the output files.

An outcome that cannot become a row is replaced by one that reports it, before the ledger has it or after.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from pipeline.errors import ChangedError, LabelpipeError, StoreError
from pipeline.parts import is_simulated, layout_of, mark_simulated, open_sinks
from pipeline.records import Outcome, Problem, Record, SavedAnswer, Status, Usage
from pipeline.runner.costs import FlexTotals
from pipeline.runner.session_parts import SessionParts
from pipeline.stats import Stats
from pipeline.store import Layout, Sinks, row_problem

_T = TypeVar("_T")

#: Why an outcome was archived.
REASON = "internal_error"
#: Counts and logs an error of one record. Returns its problem.
ReportProblem = Callable[[Record, Exception], Problem]


class OutcomeWriter:
    """Writes outcomes, and answers of unfinished records. `report` receives the errors of single records."""

    def __init__(self, parts: SessionParts, stats: Stats, report: ReportProblem) -> None:
        self._parts = parts
        self._ledger = parts.ledger
        self._stats = stats
        self._report = report
        self._flex = FlexTotals(parts.ledger, stats)
        # Mutable state, besides the parts: whether the folder has simulated labels (which its manifest then records),
        # and the output files once they are open.
        self.was_simulated = parts.was_simulated
        self._sinks: Sinks | None = None

    @property
    def is_simulated(self) -> bool:
        """Whether the answers are simulated: by the built-in endpoint, by what they report, or else by saved ones."""
        reported = self._parts.provider.simulated
        return is_simulated(self._parts.settings) or (self.was_simulated if reported is None else reported)

    @property
    def sinks(self) -> Sinks:
        """The open output files."""
        assert self._sinks is not None
        return self._sinks

    async def open(self) -> None:
        """Open the output files. Raises StoreError, SetupError."""
        parts = self._parts
        self._sinks = await self._after_repair(
            lambda: open_sinks(parts.settings, parts.task, parts.run_dir, self._ledger, parts.moved)
        )

    async def finish(self) -> list[str]:
        """Write the rest of the ledger to the output files. Return messages about these files."""
        await self._flex.save()
        await self._after_repair(self.sinks.finish)
        return [*map(str, self.sinks.moved[len(self._parts.moved) :]), *self.sinks.unused]

    async def close(self) -> None:
        """Close the files."""
        if self._sinks is not None:
            await self._sinks.close()

    async def save_answers(self, answers: Sequence[SavedAnswer]) -> None:
        """Save answers of unfinished records. A later session may make rows of them without a call."""
        self._note_simulated()
        await self._ledger.keep_answers(answers)

    async def commit(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Write the outcomes. Return them as the ledger has them."""
        self._refuse_mixture()
        if self._note_simulated():
            outcomes = [mark_simulated(outcome) for outcome in outcomes]
        outcomes, seqs = await self._commit_valid(outcomes)
        try:
            await self._write_rows(outcomes, seqs)
        except StoreError as error:
            # The ledger has them: the end of the session, or the next session, completes the files.
            self._parts.admission.gate.stop(error)
        if self._parts.telemetry is not None:
            self._parts.telemetry.written(outcomes)
        for outcome in outcomes:
            self._stats.record_outcome(outcome)
        return outcomes

    async def _commit_valid(self, outcomes: Sequence[Outcome]) -> tuple[Sequence[Outcome], list[int]]:
        """Return the outcomes as the ledger has them, and their seqs. Raises errors that no outcome has caused."""
        try:
            return outcomes, await self._commit_to_ledger(outcomes)
        except LabelpipeError:
            raise
        except Exception:
            by_key = {outcome.record.key: outcome for outcome in self._replacements(outcomes, self.sinks.layout)}
            if not by_key:
                raise
            outcomes = [by_key.get(outcome.record.key, outcome) for outcome in outcomes]
            return outcomes, await self._commit_to_ledger(outcomes)

    async def _commit_to_ledger(self, outcomes: Sequence[Outcome]) -> list[int]:
        """Commit the outcomes, and the number of calls sent per day. Return the seqs."""
        day = self._parts.day
        requests, ok = day.take_uncounted(), False
        try:
            done_with, checkpoints = self._done_with(outcomes), self.sinks.checkpoints()
            seqs = await self._ledger.commit(outcomes, checkpoints, requests=requests, done_with=done_with)
            await self._flex.save()
            ok = True
        finally:
            day.on_written(requests, ok=ok)
        return seqs

    def _done_with(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Return the records whose saved answers the ledger no longer needs.

        The outcome contains the last answer. The answers of conversations, and votes, stay for a replay.
        """
        task = self._parts.task
        if task.max_turns > 1 or self._parts.settings.quality.size > 1:
            return []
        return [outcome.record.key for outcome in outcomes if task.has_callback or outcome.attempts > 1]

    async def _write_rows(self, outcomes: Sequence[Outcome], seqs: Sequence[int]) -> None:
        """Write rows that the ledger has. Outcomes that cannot be rows are replaced there. Raises StoreError."""
        try:
            await self.sinks.write(outcomes, seqs)
        except LabelpipeError:
            raise
        except Exception:
            if not await self._replace(outcomes, self.sinks.layout):
                raise

    # -- simulated labels ----------------------------------------------------------------------------------------

    def _refuse_mixture(self) -> None:
        """Stop the run before it mixes simulated and real labels. The first answer shows which kind these are."""
        if self.was_simulated and self._parts.provider.simulated is False:
            folder = self._parts.run_dir.path
            self._parts.admission.gate.stop(
                ChangedError(f"{folder} holds simulated labels, and these answers are real: use --fresh or --output")
            )

    def _note_simulated(self) -> bool:
        """Whether labels are simulated. The manifest records it before the first one, because of kills."""
        if self.is_simulated and not self.was_simulated:
            self.was_simulated = True
            self._parts.run_dir.note_simulated()
        return self.is_simulated

    # -- outcomes that cannot be rows ----------------------------------------------------------------------------

    async def _after_repair(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Return the result of work on the output files. If rows of the ledger prevent it, they are replaced first."""
        try:
            return await work()
        except LabelpipeError:
            raise
        except Exception:
            if not await self._repair_ledger():
                raise
            return await work()

    async def _repair_ledger(self) -> int:
        """Replace what the ledger contains and no file can. Return how many."""
        layout = layout_of(self._parts.settings, self._parts.task)
        seq, last, count = 0, await self._ledger.last_seq(), 0
        while seq < last and (block := await self._ledger.rows_after(seq)):
            seq = block[-1][0]
            count += await self._replace([outcome for at, outcome in block if at <= last], layout)
        return count

    async def _replace(self, outcomes: Sequence[Outcome], layout: Layout) -> int:
        if replaced := self._replacements(outcomes, layout):
            await self._ledger.replace(replaced, REASON)
        return len(replaced)

    def _replacements(self, outcomes: Sequence[Outcome], layout: Layout) -> list[Outcome]:
        """Return replacements for outcomes that cannot be rows."""
        flaws = ((outcome, row_problem(outcome, layout)) for outcome in outcomes)
        return [
            _fit(outcome, self._report(outcome.record, flaw), layout) for outcome, flaw in flaws if flaw is not None
        ]


def _fit(outcome: Outcome, problem: Problem, layout: Layout) -> Outcome:
    """Return as much of the outcome as can be a row."""
    return next(one for one in _less_and_less(outcome, problem) if row_problem(one, layout) is None)


def _less_and_less(outcome: Outcome, problem: Problem) -> Iterator[Outcome]:
    status = Status.FAILED if outcome.status is Status.FAILED else Status.REJECTED
    yield (left := replace(outcome, status=status, label=None, rows=None, problem=problem))
    yield (left := replace(left, answer=None))
    yield (left := replace(left, record=replace(left.record, fields={}, problem=None)))
    yield replace(left, model=None, request_id=None, copied_from=None, usage=Usage(), cost_usd=None, latency_s=0.0)
