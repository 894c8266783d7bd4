"""What a draw has shown so far: accuracy with its interval, and what people said instead of the model."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import quality
from pipeline.review.page.page_fields import PageField, main_fields
from pipeline.review.page.session import ReviewSession
from pipeline.review.reviewed_run import ReviewedRun
from pipeline.store import Answer, Draw, Ledger, open_reviews
from pipeline.terminal import printable

#: How narrow the interval of the accuracy is to be, to each side.
HALF = 0.02
#: Ways of drawing that give every label of the run a probability above 0.
_COVERING = frozenset({"sample", "per_class", "certify"})


@dataclass(frozen=True, slots=True)
class _ComparableAnswer:
    """An answer about a field that can be compared: the model's label is there, and the record is the same."""

    label: Any
    answer: Any
    probability: float


async def draw_figures(found: ReviewedRun, draw: Draw, by: str) -> dict[str, Any]:
    """The `estimates` of a draw, and what they are about in a sentence (`meant`), from its answers as they are kept."""
    with await asyncio.to_thread(open_reviews, found.run_dir.path) as reviews:
        items = await asyncio.to_thread(reviews.items_of, draw.id)
        desk = ReviewSession(found, draw, items, reviews, by)
        async with await Ledger.open(found.run_dir.ledger, read_only=True) as ledger:
            await desk.open(ledger)
            return {"estimates": estimates(desk), "meant": describe_scope(draw)}


def estimates(desk: ReviewSession) -> list[dict[str, Any]]:
    """For each field that is asked for: the share of right labels, its interval, and what it rests on.

    In a blind draw only blind answers count. Those that say that the guideline is unclear are left out and counted.
    """
    return [_estimate(desk, field) for field in main_fields(desk.fields)]


def _estimate(desk: ReviewSession, field: PageField) -> dict[str, Any]:
    said = list(_comparable_answers(desk, field))
    hits = [field.is_right(one.label, one.answer) for one in said]
    found = quality.estimate_share(hits, [one.probability for one in said])
    return {
        "field": printable(field.name),
        "n": found.n,
        "right": sum(hits),
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        # Nobody can answer more than there are.
        "more": min(quality.answers_needed(found, HALF), max(0, desk.draw.population - found.n)),
        "left": sum(desk.standing(item.key) is None for item in desk.items),
    }


def _comparable_answers(desk: ReviewSession, field: PageField) -> Iterator[_ComparableAnswer]:
    for item in desk.items:
        answer = desk.standing_blind(item.key) if desk.draw.blind else desk.standing(item.key)
        seen = desk.seen(item.key)
        if answer is None or seen is None or seen.label is None or answer.unclear or field.name not in answer.fields:
            continue
        if field.name in seen.label and seen.is_about(answer):
            yield _ComparableAnswer(seen.label[field.name], answer.fields[field.name], item.probability)


def describe_scope(draw: Draw) -> str:
    """What the figures of a draw are about, in a sentence."""
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


def answer_groups(desk: ReviewSession) -> list[dict[str, Any]]:
    """What was said, by field: what the model said, what people say, how often, and the records with their notes.

    The most frequent difference comes first; unclear records and notes on right labels follow.
    """
    return [_field_groups(desk, field) for field in main_fields(desk.fields)]


def _field_groups(desk: ReviewSession, field: PageField) -> dict[str, Any]:
    groups: defaultdict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    complete = all(desk.standing(item.key) is not None for item in desk.items)
    for at, item in enumerate(desk.items):
        answer = desk.standing(item.key)
        # Of a blind draw that is not over, this person must not see the labels of records to come.
        if answer is not None and (complete or desk.shows(item.key)):
            groups[_group(desk, field, answer)].append(
                {
                    "at": at,
                    "key": printable(item.key),
                    "by": printable(answer.by),
                    "note": printable(answer.note),
                    "has_label": bool(answer.fields),
                }
            )
    rows: list[dict[str, Any]] = [
        {"kind": kind, "label": label, "answer": said, "n": len(records), "records": records}
        for (kind, label, said), records in groups.items()
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


def _group(desk: ReviewSession, field: PageField, answer: Answer) -> tuple[str, str, str]:
    seen = desk.seen(answer.key)
    label: Mapping[str, Any] = (seen.label if seen else None) or {}
    model = field.told(label[field.name]) if field.name in label else "no label"
    if field.name not in answer.fields:
        return "unclear", model, ""
    said = answer.fields[field.name]
    kind = "right" if field.name in label and field.is_right(label[field.name], said) else "differs"
    return kind, model, field.told(said) if kind == "differs" else ""
