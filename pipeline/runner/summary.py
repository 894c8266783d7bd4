"""Builds the summary of a session: counts from the ledger, rates from this process, and the next step."""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline import codec
from pipeline.batches import BatchesCancelledError
from pipeline.engine import VOTE_COLUMNS, is_hopeless
from pipeline.errors import (
    CallbackError,
    ChangedError,
    HungUpError,
    InputError,
    InterruptedRunError,
    LabelpipeError,
    NoLabelError,
    QuotaError,
)
from pipeline.limits import Admission, BudgetReachedError, Price
from pipeline.parts import advice_context, outputs_of
from pipeline.quality import Coincidences
from pipeline.readers import ReadProgress
from pipeline.records import UNASKED_CODES
from pipeline.runlog import log_event
from pipeline.runner.canaries import LowAccuracyError
from pipeline.runner.costs import ledger_facts, left_facts
from pipeline.runner.session_parts import ReportWriter, SessionParts
from pipeline.runner.sql_export import export_at_end
from pipeline.settings import Settings
from pipeline.show import SYSTEMATIC, advise
from pipeline.stats import RunSummary, Stats
from pipeline.store import Layout, Ledger, RunDir

EXIT_COMPLETE, EXIT_UNLABELLED, EXIT_CANNOT_START, EXIT_STOPPED = 0, 1, 2, 3
EXIT_HUNG_UP, EXIT_INTERRUPTED = 129, 130
#: Options of `labelpipe run` that retry and replay lack.
_WORDS_OF_RUN = re.compile(r" ?--(shards|engine)[= ]\S+")


async def summarise(
    parts: SessionParts,
    stats: Stats,
    reading: ReadProgress,
    *,
    complete: bool,
    price: Price | None,
    simulated: bool,
    command: str,
) -> RunSummary:
    """Return the summary of the run."""
    run_dir, ledger, admission = parts.run_dir, parts.ledger, parts.admission
    facts, totals = await ledger_facts(ledger, price)
    unlabelled, problems, reason = facts["rejected"] + facts["failed"], facts["problems"], admission.gate.stopped
    done = facts["labelled"] + unlabelled
    ended, code = _ending(complete, reason, unlabelled, stats)
    # What to change in the config, by messages and codes.
    advice = advise(advice_context(parts.settings), _advice_topics(reason, problems, done))
    return RunSummary(
        run_dir=str(run_dir.path),
        ended=ended,
        exit_code=code,
        **facts,
        pending=_pending(complete, reading, done),
        session_records=stats.records,
        session_s=stats.elapsed_s,
        calls=admission.calls,
        refusals=admission.refusals,
        retries=dict(stats.retries),
        usage=totals.usage,
        left=None if complete else left_facts(reading.estimate(), done, totals, exact=reading.exact_total is not None),
        latency_p50_s=stats.latencies.percentile_s(50),
        latency_p95_s=stats.latencies.percentile_s(95),
        **_outages(admission),
        simulated=simulated,
        reason="" if reason is None else str(reason),
        next_step=_next_step(ended, code, problems, reason, command, advice) or f"labelpipe verify {run_dir.path}",
        readings=dict(stats.readings),
        **learned_of(admission),
        files=outputs_of(parts.settings, run_dir),
        labels=await ledger.label_counts(parts.task.columns),
        copied=await ledger.copied(),
        votes=await _votes_of(ledger),
        **_left_out(reading),
    )


def _outages(admission: Admission) -> dict[str, Any]:
    """Return how many outages there were, and their seconds in total."""
    outages = admission.gate.outages + ([admission.gate.outage] if admission.gate.outage else [])
    now = asyncio.get_running_loop().time()  # an ongoing outage has no end yet
    return {"outages": len(outages), "outage_s": sum((outage.until or now) - outage.since for outage in outages)}


def _left_out(reading: ReadProgress) -> dict[str, Any]:
    """Return how many records were left out, and why."""
    unclear = {"unclear": reading.unclear_count} if reading.unclear_count else {}
    return {"left_out": reading.excluded_counts.total(), "left_out_by": {**reading.excluded_counts, **unclear}}


async def recount_summary(run_dir: RunDir, ledger: Ledger, columns: Sequence[str]) -> None:
    """Recount the labels and the votes in summary.json. Its other figures do not change."""
    summary = run_dir.read_summary()
    if summary is None:
        return
    labels = await ledger.label_counts(columns) if summary.get("labels") else summary.get("labels")
    run_dir.write_summary({**summary, "labels": labels, "votes": await _votes_of(ledger)})


async def _votes_of(ledger: Ledger) -> dict[str, Any] | None:
    """Return statistics of the votes; None if one answer is enough."""
    layout = await ledger.meta_get("layout")
    if layout is None or not set(VOTE_COLUMNS) <= set(Layout.from_text(layout).labels):
        return None
    counts, agreement = await ledger.vote_counts(), Coincidences()
    for values, records in counts.pairs.items():
        agreement.add(values, records)
    alpha = agreement.alpha()
    return {
        "records": counts.records,
        "votes": counts.votes,
        "needs_review": counts.needs_review,
        "alpha": None if alpha is None else round(alpha, 4),
    }


def _ending(complete: bool, reason: Exception | None, unlabelled: int, stats: Stats) -> tuple[str, int]:
    if complete:
        return "complete", EXIT_UNLABELLED if unlabelled else EXIT_COMPLETE
    if isinstance(reason, InterruptedRunError):
        return "interrupted", EXIT_HUNG_UP if isinstance(reason, HungUpError) else EXIT_INTERRUPTED
    if isinstance(reason, BatchesCancelledError):
        return "stopped", EXIT_COMPLETE
    if isinstance(reason, NoLabelError):
        return "stopped", EXIT_STOPPED if reason.is_late else EXIT_CANNOT_START
    if (is_hopeless(reason) or isinstance(reason, ChangedError | InputError)) and not stats.answers:
        return "stopped", EXIT_CANNOT_START
    return "stopped", EXIT_STOPPED


def _pending(complete: bool, reading: ReadProgress, done: int) -> int | None:
    if complete:
        return 0
    return None if reading.exact_total is None else max(0, reading.exact_total - done)


def learned_of(admission: Admission) -> dict[str, Any]:
    """Return the server's limits that are below the config's or led to refusals, and which of them are estimates."""
    known = admission.resource.state(asyncio.get_running_loop().time())
    rates = {"requests_per_minute": known.requests, "tokens_per_minute": known.tokens}
    learned: dict[str, float] = {
        name: round(rate.learned)
        for name, rate in rates.items()
        if rate.learned is not None and _is_news(rate.learned, rate.configured, admission.refusals)
    }
    estimated = [name for name in learned if rates[name].is_estimate]
    if admission.tuner is not None:
        learned["concurrency"] = admission.tuner.limit
    return {"learned": learned, "estimated": estimated}


def _is_news(learned: float, configured: float | None, refusals: int) -> bool:
    """Whether the config should have the limit: it has a higher one, or none and calls were refused."""
    return refusals > 0 if configured is None else learned < 0.99 * configured


def _advice_topics(reason: Exception | None, problems: Mapping[str, int], records: int) -> list[str]:
    """Return why the run stopped, else the problem of most records, if the config may have caused it.

    A code replaces words that quote a model.
    """
    if reason is not None:
        return [reason.reason if isinstance(reason, NoLabelError) else str(reason)]
    return [code for code, count in problems.items() if code in SYSTEMATIC and count > records / 2]


def _next_step(
    ended: str, code: int, problems: Mapping[str, int], reason: Exception | None, command: str, advice: str | None
) -> str:
    again = _WORDS_OF_RUN.sub("", command)
    if ended == "complete":
        first = f"{advice}, then: " if advice else ""
        return first + _after_the_end(frozenset(problems), again)
    if isinstance(reason, NoLabelError):
        if reason.reason == CallbackError.code:
            return f"fix the callback, then: labelpipe replay {again}, and: labelpipe run {command}".rstrip()
        if reason.is_late:
            return f"{advice or 'look at the server'}, then: labelpipe retry {again}".rstrip()
        return f"{advice or 'change it'}, then: labelpipe retry {again} --relabel"
    if isinstance(reason, LowAccuracyError):
        again = f"labelpipe run {command} --relabel".replace("  ", " ")
        return f"change the prompt, then: {again}; or lower quality.stop_below to continue as it is"
    if isinstance(reason, QuotaError):
        return f"top up or raise the quota, then: labelpipe run {command}".rstrip()
    if isinstance(reason, BudgetReachedError):
        return f"raise {reason.key} first, then: labelpipe run {command}".rstrip()
    if advice or code == EXIT_CANNOT_START:
        return f"{advice or 'fix it'}, then: labelpipe run {command}".rstrip()
    return f"to continue: labelpipe run {command}".rstrip()


def _after_the_end(codes: frozenset[str], command: str) -> str:
    """Return what helps records without a label. Asking again does not if nothing was asked."""
    if not codes:
        return ""
    if codes <= UNASKED_CODES:
        return f"fix these records (failed.csv says what is wrong), then: labelpipe retry {command}".rstrip()
    if codes == {CallbackError.code}:
        return f"fix the callback, then: labelpipe replay {command}".rstrip()
    return f"labelpipe retry {command}".rstrip()


# -- the latest evaluation ---------------------------------------------------------------------------------------------


#: What the screen shows of a column: shares from 0 to 1, and the number of gold records.
_SUMMARY_KEYS = ("accuracy", "accuracy_low", "accuracy_high", "n")


def latest_evaluation(run_dir: RunDir) -> dict[str, Any] | None:
    """Return the last readable line of evaluations.jsonl; None if labels and gold were never compared."""
    try:
        lines = run_dir.evaluations.read_bytes().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            evaluation = codec.loads(line)
        except codec.JSONDecodeError:
            continue
        if isinstance(evaluation, dict):
            return evaluation
    return None


def measured_accuracy(run_dir: RunDir) -> dict[str, dict[str, Any]]:
    """Return the accuracy of each label column that was compared with gold, its interval, and how many records."""
    columns = (latest_evaluation(run_dir) or {}).get("columns")
    return {
        name: {key: measure.get(key) for key in _SUMMARY_KEYS}
        for name, measure in (columns.items() if isinstance(columns, dict) else ())
        if isinstance(measure, dict) and isinstance(measure.get("accuracy"), int | float)
    }


# -- the end of a session ----------------------------------------------------------------------------------------------


async def finish_summary(
    summary: RunSummary, settings: Settings, run_dir: RunDir, after: ReportWriter | None
) -> RunSummary:
    """Return the summary with measured accuracies, and write the table of [output.sql] and the file of `after`.

    The summary is saved in the run folder.
    """
    summary = replace(await export_at_end(summary, settings, run_dir), measured=measured_accuracy(run_dir))
    summary = await _with_file(after, summary)
    run_dir.write_summary(summary.as_dict())
    return summary


async def _with_file(after: ReportWriter | None, summary: RunSummary) -> RunSummary:
    """Return the summary with the file of `after`, or with a note if that failed; the run's ending stays the same."""
    if after is None:
        return summary
    try:
        name, path = await after(summary)
    except Exception as error:
        log_event("the report cannot be written", level=logging.ERROR, error=repr(error))
        why = str(error) if isinstance(error, LabelpipeError) else repr(error)
        note = f"there is no report: {why}. Try again with: labelpipe report {summary.run_dir}"
        return replace(summary, notes=[*summary.notes, " ".join(note.split())])
    return replace(summary, files={**summary.files, name: path})
