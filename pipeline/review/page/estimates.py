"""Computes what a draw has shown so far: accuracy with its interval, and people's answers by the model's label."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline import quality
from pipeline.records import JSON
from pipeline.review.page.page_fields import PageField, main_fields
from pipeline.review.page.session import ReviewSession
from pipeline.review.reviewed_run import ReviewedRun
from pipeline.store import Answer, Draw, Ledger, open_reviews
from pipeline.terminal import printable

#: The target for the interval of the accuracy, to each side.
HALF = 0.02
#: Ways of drawing that give every label of the run a probability above 0.
_COVERING = frozenset({"sample", "per_class", "certify"})


async def draw_figures(reviewed_run: ReviewedRun, draw: Draw, by: str) -> dict[str, Any]:
    """Return the `estimates` of a draw from its saved answers, and a sentence about their scope (`meant`)."""
    with await asyncio.to_thread(open_reviews, reviewed_run.run_dir.path) as reviews:
        items = await asyncio.to_thread(reviews.items_of, draw.id)
        session = ReviewSession(reviewed_run, draw, items, reviews, by)
        async with await Ledger.open(reviewed_run.run_dir.ledger, read_only=True) as ledger:
            await session.open(ledger)
            return {"estimates": estimates(session), "meant": describe_scope(draw)}


def estimates(session: ReviewSession) -> list[dict[str, Any]]:
    """Return for each main field the share of right labels, its interval, and the counts behind it.

    In a blind draw only blind answers count. Answers that the guideline is unclear are excluded.
    """
    return [_estimate(session, field) for field in main_fields(session.fields)]


def _estimate(session: ReviewSession, field: PageField) -> dict[str, Any]:
    answers = list(_comparable_answers(session, field))
    hits = [field.is_right(label, answer) for label, answer, _ in answers]
    estimate = quality.estimate_share(hits, [probability for _, _, probability in answers])
    return {
        "field": printable(field.name),
        "n": estimate.n,
        "right": sum(hits),
        "mean": estimate.mean,
        "low": estimate.low,
        "high": estimate.high,
        # At most as many answers as there are records.
        "more": min(quality.answers_needed(estimate, HALF), max(0, session.draw.population - estimate.n)),
        "left": sum(session.current_answer(item.key) is None for item in session.items),
    }


def _comparable_answers(session: ReviewSession, field: PageField) -> Iterator[tuple[JSON, JSON, float]]:
    """Yield label, answer, and probability of each record that has both and has not changed since the answer."""
    for item in session.items:
        answer = session.current_answer(item.key, blind=session.draw.blind)
        snapshot = session.snapshots.get(item.key)
        if (
            answer is None
            or snapshot is None
            or snapshot.label is None
            or answer.unclear
            or field.name not in answer.fields
        ):
            continue
        if field.name in snapshot.label and snapshot.is_about(answer):
            yield snapshot.label[field.name], answer.fields[field.name], item.probability


def describe_scope(draw: Draw) -> str:
    """Return a sentence about what the figures of a draw describe."""
    spec: Any = draw.spec
    kinds = {part.get("kind") for part in spec.get("parts", ())} | ({"certify"} & spec.keys())
    if not draw.blind:
        return "These answers correct labels. They do not measure them, because the model's label is seen first."
    if not kinds & _COVERING:
        return "The records were chosen, not drawn at random, so the figures are about these records only."
    if "where" in spec:
        return f"The figures are about the records of which this is true: {spec['where']}"
    if "certify" in spec:
        return "The figures are about the records that nobody had checked when the draw was made."
    return "The figures are about all labels of the run."


def answer_groups(session: ReviewSession) -> list[dict[str, Any]]:
    """Return the answers by field: the model's label, people's labels, how often, and the records with their notes.

    The most frequent difference comes first; unclear records and notes on right labels follow.
    """
    return [_field_groups(session, field) for field in main_fields(session.fields)]


def _field_groups(session: ReviewSession, field: PageField) -> dict[str, Any]:
    groups: defaultdict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    complete = all(session.current_answer(item.key) is not None for item in session.items)
    for at, item in enumerate(session.items):
        answer = session.current_answer(item.key)
        # Until a blind draw is complete, this person must not see the labels of unanswered records.
        if answer is not None and (complete or session.may_show_label(item.key)):
            groups[_group(session, field, answer)].append(
                {
                    "at": at,
                    "key": printable(item.key),
                    "by": printable(answer.by),
                    "note": printable(answer.note),
                    "has_label": bool(answer.fields),
                }
            )
    rows: list[dict[str, Any]] = [
        {"kind": kind, "label": label, "answer": answer_text, "n": len(records), "records": records}
        for (kind, label, answer_text), records in groups.items()
    ]
    differing = sorted((row for row in rows if row["kind"] == "differs"), key=lambda row: (-row["n"], row["label"]))
    unclear = [row for row in rows if row["kind"] == "unclear"]
    right = [row for row in rows if row["kind"] == "right"]
    noted = [one for row in right for one in row["records"] if one["note"]]
    return {
        "field": printable(field.name),
        "differing": differing,
        "unclear": unclear,
        "right": sum(row["n"] for row in right),
        "noted": noted,
    }


def _group(session: ReviewSession, field: PageField, answer: Answer) -> tuple[str, str, str]:
    snapshot = session.snapshots.get(answer.key)
    label: Mapping[str, Any] = (snapshot.label if snapshot else None) or {}
    model = field.describe(label[field.name]) if field.name in label else "no label"
    if field.name not in answer.fields:
        return "unclear", model, ""
    value = answer.fields[field.name]
    kind = "right" if field.name in label and field.is_right(label[field.name], value) else "differs"
    return kind, model, field.describe(value) if kind == "differs" else ""
