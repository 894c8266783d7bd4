"""Shows all that a run knows of one record: its prompt, each answer, its rows, and people's answers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError
from pipeline.records import JSON, Answer, Outcome, Request, Response, SavedAnswer
from pipeline.review.reviewed_run import ReviewedRun, load_reviewed_run
from pipeline.store import ArchivedOutcome, Correction, Ledger, misfit, read_corrections, read_reviews
from pipeline.task import rebuild_request

#: The parts of a person's answer that are shown.
_ANSWER = ("id", "at", "by", "draw", "blind", "old", "new", "unclear", "note", "takes_back")


async def show_record(run: str | Path | None, key: str) -> dict[str, Any]:
    """Return all that a run knows of one record, as plain values. Raises SetupError if it does not know the record."""
    reviewed_run = await load_reviewed_run(run)
    async with await Ledger.open(reviewed_run.run_dir.ledger, read_only=True) as ledger:
        outcome = (await ledger.outcomes_of([key])).get(key)
        saved_answers = (await ledger.answers_of([key])).get(key, [])
        archived = await ledger.archived_of(key)
        if outcome is None and not saved_answers and not archived:
            raise SetupError(_unknown(reviewed_run, key, await ledger.keys_like(key)))
    people = await asyncio.to_thread(_human_answers, reviewed_run, key, outcome)
    about = outcome or (archived[-1].outcome if archived else None)
    return {
        "run_dir": str(reviewed_run.run_dir.path),
        "simulated": reviewed_run.simulated,
        "key": key,
        **_about(about, is_pending=outcome is None),
        "rows": await _rows(reviewed_run, outcome),
        "prompt": await asyncio.to_thread(_prompt, reviewed_run, about),
        "answers": [
            *map(_archived, archived),
            *map(_saved_answer, saved_answers),
            *([_current(outcome)] if outcome else []),
        ],
        **people,
    }


def _unknown(reviewed_run: ReviewedRun, key: str, near: Sequence[str]) -> str:
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    named = reviewed_run.key or "the place, such as data/in.csv:12 (source and line)"
    return (
        f"{reviewed_run.run_dir.path}: there is no outcome of a record {key!r}.{hint} Records are named by {named}; "
        "one that is pending has no outcome yet"
    )


def _about(outcome: Outcome | None, *, is_pending: bool) -> dict[str, Any]:
    status = "pending" if is_pending or outcome is None else outcome.status.value
    if outcome is None:
        return {"status": status, "source": None, "line": None, "fields": {}, "problem": None}
    problem = None if is_pending else outcome.problem
    return {
        "status": status,
        "source": outcome.record.source,
        "line": outcome.record.line,
        "fields": dict(outcome.record.fields),
        "problem": None if problem is None else {"code": problem.code, "message": problem.message},
    }


async def _rows(reviewed_run: ReviewedRun, outcome: Outcome | None) -> list[dict[str, JSON]]:
    """Return the label columns of the record's rows in labels.*, with corrections."""
    if outcome is None:
        return []
    corrected = (await asyncio.to_thread(read_corrections, reviewed_run.run_dir.path)).apply(outcome)
    if corrected.label is None:
        return []
    return [{**corrected.label, **row} for row in (({},) if corrected.rows is None else corrected.rows)]


def _prompt(reviewed_run: ReviewedRun, outcome: Outcome | None) -> dict[str, Any] | None:
    """Rebuild the request; None if the record was never asked."""
    if outcome is None or outcome.request_digest is None:
        return None
    manifest = reviewed_run.run_dir.read_manifest() or {}
    again = rebuild_request(manifest.get("fingerprint") or {}, outcome.record, outcome.request_digest)
    prompt: dict[str, Any] = {"is_as_sent": again.is_identical, "why": again.reason, "messages": []}
    request = again.request
    if request is not None:
        prompt |= {
            "messages": [
                {**one, "content": _without_attachments(one.get("content"), request)} for one in request.messages
            ],
            "model": request.model,
            "tools": list(request.tools),
            "tool_choice": request.tool_choice,
            "parameters": dict(request.parameters),
        }
    return prompt


def _without_attachments(content: JSON, request: Request) -> JSON:
    """Return the content with only the names of attachments."""
    if not isinstance(content, list):
        return content
    files = {at: {"kind": one.kind, "source": one.source[:200]} for at, one in enumerate(request.attachments)}
    return [
        {"type": "attachment", **files[part["index"]]} if part.get("type") == "attachment" else part for part in content
    ]


def _current(outcome: Outcome) -> dict[str, Any]:
    return {
        "state": "current",
        "at": outcome.finished_at,
        "status": outcome.status.value,
        "problem": None if outcome.problem is None else f"{outcome.problem.code}: {outcome.problem.message}",
        "label": outcome.label,
        "label_rows": None if outcome.rows is None else list(outcome.rows),
        "attempts": outcome.attempts,
        "repairs": outcome.repairs,
        "copied_from": outcome.copied_from,
        "asked_as": outcome.asked_as,
        **_answer_facts(outcome),
    }


def _archived(one: ArchivedOutcome) -> dict[str, Any]:
    return {**_current(one.outcome), "state": "archived", "archived_at": one.at, "reason": one.reason}


def _saved_answer(one: SavedAnswer) -> dict[str, Any]:
    return {
        "state": "kept",
        "at": one.at,
        "turn": one.number,
        "problem": one.fault,
        "attempts": one.calls,
        "repairs": one.repairs,
        **_answer_facts(one.response),
    }


def _answer_facts(source: Outcome | Response) -> dict[str, Any]:
    """Return the model's answer, and its cost and time."""
    answer, usage = source.answer or Answer(), source.usage
    return {
        "usage": {"prompt": usage.prompt, "completion": usage.completion, "cached": usage.cached},
        "cost_usd": source.cost_usd,
        "latency_s": source.latency_s,
        "model": source.model,
        "request_id": source.request_id,
        "calls": [{"name": call.name, "arguments": call.arguments} for call in answer.calls],
        "text": answer.text,
        "refusal": answer.refusal,
        "finish_reason": answer.finish_reason,
    }


def _human_answers(reviewed_run: ReviewedRun, key: str, outcome: Outcome | None) -> dict[str, Any]:
    """Return people's answers about the record, and the draws that contain it."""
    reviews = read_reviews(reviewed_run.run_dir.path)
    if reviews is None:
        return {"correction": None, "reviews": [], "draws": []}
    with reviews:
        correction = reviews.corrections().get(key)
        answers = reviews.answers()
        mine = set(correction.answers) if correction else set()
        retracted = {one.takes_back for one in answers}
        return {
            "correction": None if correction is None else _correction(correction, outcome),
            "reviews": [
                {**{name: getattr(one, name) for name in _ANSWER}, "taken_back": one.id in retracted}
                for one in answers
                if one.key == key or one.id in mine
            ],
            "draws": [
                {"draw": draw.id, "purpose": draw.purpose, "at": draw.at}
                | {"probability": item.probability, "stratum": item.stratum}
                for draw, item in reviews.draws_of(key)
            ],
        }


def _correction(correction: Correction, outcome: Outcome | None) -> dict[str, Any]:
    why = "the record has no outcome now" if outcome is None else misfit(correction, outcome)
    return {"fields": dict(correction.fields), "by": correction.by, "at": correction.at, "unused_because": why}
