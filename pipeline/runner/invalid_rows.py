"""The net under a row's making: an outcome that cannot become a row is replaced by one that says so."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

from pipeline.errors import LabelpipeError
from pipeline.records import Outcome, Problem, Record, Status, Usage
from pipeline.store import Layout, Ledger, Sinks, row_problem

#: Why an outcome was archived.
REASON = "internal_error"
#: Counts and logs an error of one record; gives its problem.
ReportProblem = Callable[[Record, Exception], Problem]


async def commit_valid(
    keep: Callable[[Sequence[Outcome]], Awaitable[list[int]]],
    outcomes: Sequence[Outcome],
    layout: Layout,
    report: ReportProblem,
) -> tuple[Sequence[Outcome], list[int]]:
    """The outcomes as the ledger took them, and their seqs. Raises what `keep` raises where no outcome is to blame."""
    try:
        return outcomes, await keep(outcomes)
    except LabelpipeError:
        raise
    except Exception:
        by_key = {outcome.record.key: outcome for outcome in replacements(outcomes, layout, report)}
        if not by_key:
            raise
        outcomes = [by_key.get(outcome.record.key, outcome) for outcome in outcomes]
        return outcomes, await keep(outcomes)


async def write_valid(
    sinks: Sinks, ledger: Ledger, outcomes: Sequence[Outcome], seqs: Sequence[int], report: ReportProblem
) -> None:
    """Write rows that the ledger has; where one cannot be made its outcome is replaced there. Raises StoreError."""
    try:
        await sinks.write(outcomes, seqs)
    except LabelpipeError:
        raise
    except Exception:
        replaced = replacements(outcomes, sinks.layout, report)
        if not replaced:
            raise
        await ledger.replace(replaced, REASON)


def replacements(outcomes: Sequence[Outcome], layout: Layout, report: ReportProblem) -> list[Outcome]:
    """What stands for those of the outcomes that cannot be rows."""
    flaws = ((outcome, row_problem(outcome, layout)) for outcome in outcomes)
    return [_fit(outcome, report(outcome.record, flaw), layout) for outcome, flaw in flaws if flaw is not None]


async def replace_unwritable(ledger: Ledger, layout: Layout, report: ReportProblem) -> int:
    """Replace what the ledger holds and no file can; gives how many."""
    seq, last, count = 0, await ledger.last_seq(), 0
    while seq < last and (block := await ledger.rows_after(seq)):
        seq = block[-1][0]
        if replaced := replacements([outcome for at, outcome in block if at <= last], layout, report):
            await ledger.replace(replaced, REASON)
            count += len(replaced)
    return count


def _fit(outcome: Outcome, problem: Problem, layout: Layout) -> Outcome:
    """As much of the outcome as can be a row."""
    return next(one for one in _less_and_less(outcome, problem) if row_problem(one, layout) is None)


def _less_and_less(outcome: Outcome, problem: Problem) -> Iterator[Outcome]:
    status = Status.FAILED if outcome.status is Status.FAILED else Status.REJECTED
    yield (left := replace(outcome, status=status, label=None, rows=None, problem=problem))
    yield (left := replace(left, answer=None))
    yield (left := replace(left, record=replace(left.record, fields={}, problem=None)))
    yield replace(left, model=None, request_id=None, copied_from=None, usage=Usage(), cost_usd=None, latency_s=0.0)
