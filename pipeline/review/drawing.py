"""Draws the records of a run that people review, and saves the draws with their probabilities."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import quality
from pipeline.errors import SetupError, did_you_mean, list_names
from pipeline.quality import DrawPart
from pipeline.records import JSON
from pipeline.review.reviewed_run import ReviewedRun, load_reviewed_run
from pipeline.review.row_files import load_other_labels
from pipeline.store import Draw, DrawItem, LabelRow, Ledger, cell, label_hash, open_reviews, read_reviews
from pipeline.task import Expression

#: The columns that show how certain a label is. The first one that a run has is used.
SCORES = ("agreement", "confidence")
#: How many records are read together.
BLOCK = 1_000
#: At most this many values count as classes in any file.
FEW_CLASSES = 5
#: The default purpose of a draw.
REVIEW = "review"


@dataclass(frozen=True, slots=True)
class DrawOptions:
    """Which records to draw. Requires at least one of `sample`, `per_class`, `uncertain`, `disagreements`, `where`.

    `where` restricts what the others draw from; alone it draws all records for which it is true. `column` is the label
    column of the classes and disagreements; None: the first for classes, any for disagreements. `score` is the column
    of the uncertainty. The same `seed` repeats the draw. `blind` hides the model's label.
    """

    sample: int = 0
    per_class: int = 0
    uncertain: int = 0
    disagreements: str | Path | None = None
    where: str | None = None
    column: str | None = None
    score: str | None = None
    seed: int = 0
    blind: bool = False
    purpose: str = REVIEW

    def __bool__(self) -> bool:
        return bool(self.sample or self.per_class or self.uncertain or self.disagreements or self.where)


@dataclass(slots=True)
class _Population:
    """The records to draw from. All of it is mutable while the run is read.

    `class_of` and `score_of` are by key, for records with a label. `unclear` counts the records for which `where` is
    neither true nor false, and `several` those with several rows. `digest` does not depend on the order.
    """

    keys: list[str] = field(default_factory=list)
    class_of: dict[str, str] = field(default_factory=dict)
    score_of: dict[str, float] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)
    looked_at: int = 0
    unclear: int = 0
    several: int = 0
    digest: int = 0


async def draw_records(run: str | Path | None, options: DrawOptions) -> tuple[ReviewedRun, Draw, list[DrawItem]]:
    """Draw records of a run and save the draw. Raises SetupError if there is nothing to draw.

    Never draws records with several rows. Draws those without a label only by `where`.
    """
    if not options:
        raise SetupError(
            "choose records: --sample N, --per-class N, --uncertain N, --disagreements RUN|GOLD, --where EXPR, or "
            "several of them"
        )
    reviewed_run = await load_reviewed_run(run)
    population = await _population(reviewed_run, options)
    parts = _parts(population, options)
    picks = quality.draw_records(parts, options.seed)
    if not picks:
        raise SetupError(f"{reviewed_run.run_dir.path}: no record was drawn. {_explain_empty(population, options)}")
    spec = {
        "parts": [dict(part.spec) for part in parts],
        **{name: str(value) for name in ("where", "column", "score") if (value := getattr(options, name)) is not None},
    }
    draw = Draw(
        options.seed, spec, options.purpose, len(population.keys), f"{population.digest:032x}", blind=options.blind
    )
    items = [DrawItem(pick.key, pick.probability, pick.stratum) for pick in picks]
    return reviewed_run, *(await asyncio.to_thread(_store_draw, reviewed_run, draw, items))


def _store_draw(reviewed_run: ReviewedRun, draw: Draw, items: list[DrawItem]) -> tuple[Draw, list[DrawItem]]:
    with open_reviews(reviewed_run.run_dir.path) as reviews:
        stored = reviews.add_draw(draw, items)
        return stored, reviews.items_of(stored.id)


async def _population(reviewed_run: ReviewedRun, options: DrawOptions) -> _Population:
    population = _Population()
    where = None if options.where is None else Expression(options.where, "--where")
    other = None if options.disagreements is None else await load_other_labels(options.disagreements, reviewed_run)
    class_column = reviewed_run.column(options.column)
    column = class_column.name
    compared = reviewed_run.names if options.column is None else (column,)
    score = _score_column(reviewed_run, options) if options.uncertain else ""
    seq = 0
    async with await Ledger.open(reviewed_run.run_dir.ledger, read_only=True) as ledger:
        while block := await ledger.labels_after(seq, BLOCK, fields=where is not None):
            seq = block[-1].seq
            for row in block:
                if not _is_in_population(row, where, population):
                    continue
                population.keys.append(row.key)
                population.digest = (population.digest + label_hash(row)) % 2**128
                if row.label is None:
                    continue
                if options.per_class:
                    # One string object per class, not per record.
                    population.class_of[row.key] = sys.intern(cell(row.label.get(column)))
                if isinstance(number := row.label.get(score), int | float):
                    population.score_of[row.key] = float(number)
                if other is not None and _differs(row.label, other.get(row.key), compared):
                    population.differing.append(row.key)
    if where is not None and population.unclear == population.looked_at > 0:
        columns = _describe_columns(reviewed_run, where)
        raise SetupError(f"--where: {options.where!r} is neither true nor false for any record. {columns}")
    if options.per_class and not class_column.values:
        _expect_classes(column, population.class_of)
    if options.uncertain and not population.score_of:
        raise SetupError(f"--uncertain: no label has a number in {score!r}")
    return population


def _expect_classes(column: str, class_of: Mapping[str, str]) -> None:
    """Raise SetupError for free texts, and for numbers that hardly ever repeat: all of them would be drawn."""
    values = len(set(class_of.values()))
    if values > max(FEW_CLASSES, len(class_of) // 2):
        raise SetupError(
            f"--per-class: {column!r} has {values:,} different values in {len(class_of):,} records, so it is no field "
            "of classes, and nearly all records would be drawn. Name a field of classes with --column, or draw with "
            "--sample"
        )


def _is_in_population(row: LabelRow, where: Expression | None, population: _Population) -> bool:
    """Whether the record can be drawn."""
    population.looked_at += 1
    if row.rows is not None:
        population.several += 1
        return False
    if where is None:
        return row.label is not None
    fits = _is_true(where, row)
    population.unclear += fits is None
    return bool(fits)


def _is_true(where: Expression, row: LabelRow) -> bool | None:
    """Whether the expression is true for the record; None if that is undefined: a field is missing, or null."""
    known = {"status": row.status, "code": row.code, **where.values_of(row.fields or {}, row.label or {})}
    try:
        return where(known)
    except Exception:  # any error means that it is undefined for this record
        return None


def _differs(label: Mapping[str, JSON], other: Mapping[str, JSON] | None, columns: tuple[str, ...]) -> bool:
    """Whether the other label has a different value in one of the columns that both have."""
    if other is None:
        return False
    return any(cell(label.get(name)) != cell(other[name]) for name in columns if name in other)


def _parts(population: _Population, options: DrawOptions) -> list[DrawPart]:
    seed, labelled = options.seed, population.class_of
    parts = []
    if options.sample:
        parts.append(quality.random_part(population.keys, options.sample, seed))
    if options.per_class:
        parts.append(quality.stratified_part(labelled, options.per_class, seed))
    if options.uncertain:
        parts.append(quality.lowest_scores(population.score_of, options.uncertain, seed))
    if options.disagreements is not None:
        parts.append(quality.certain_part(population.differing, kind="disagreements", other=str(options.disagreements)))
    return parts or [quality.certain_part(population.keys, kind="where")]


def _score_column(reviewed_run: ReviewedRun, options: DrawOptions) -> str:
    known = (*reviewed_run.layout.labels, *reviewed_run.layout.found)
    if options.score is not None:
        if options.score not in known:
            raise SetupError(f"--score {options.score}: this run has no such column; it has {list_names(known)}")
        return options.score
    for name in SCORES:
        if name in known:
            return name
    raise SetupError(
        "--uncertain needs a column that says how certain each label is: votes give `agreement`, and a label field "
        "`confidence` gives the model's own. Name another one with --score"
    )


def _describe_columns(reviewed_run: ReviewedRun, where: Expression) -> str:
    known = ["status", "code", *reviewed_run.layout.columns, *reviewed_run.layout.labels]
    missing = [name for name in sorted(where.required_fields) if name not in (*known, "label", "record")]
    if not missing:
        return f"The columns are {list_names(known)}"
    return f"There is no {missing[0]!r}; the columns are {list_names(known)}{did_you_mean(missing[0], known)}"


def _explain_empty(population: _Population, options: DrawOptions) -> str:
    if options.where is not None and not population.keys:
        return f"--where is true of none of {population.looked_at:,} records."
    if options.disagreements is not None and population.keys:
        return "The labels agree."
    if population.several:
        return f"{population.several:,} records have several rows each, and only records of one row are reviewed."
    return "No record has a label yet."


def draw_facts(reviewed_run: ReviewedRun, draw: Draw, items: Sequence[DrawItem], file: Path | None) -> dict[str, Any]:
    """Return the facts about a draw, as plain values."""
    return {
        "run_dir": str(reviewed_run.run_dir.path),
        "simulated": reviewed_run.simulated,
        "draw": draw.id,
        "purpose": draw.purpose,
        "blind": draw.blind,
        "seed": draw.seed,
        "spec": draw.spec,
        "population": draw.population,
        "digest": draw.digest,
        "file": None if file is None else str(file),
        "records": len(items),
        "items": [
            {"key": item.key, "probability": item.probability, "stratum": item.stratum, "position": item.position}
            for item in items
        ],
    }


async def find_or_make_draw(
    reviewed_run: ReviewedRun, options: DrawOptions, draw: int | None
) -> tuple[Draw, Sequence[DrawItem], bool]:
    """Return the draw with its records, and whether it already existed. Raises SetupError.

    Without options, returns the last draw that was made for a review.
    """
    known = await asyncio.to_thread(_find_draw, reviewed_run, options, draw)
    if known is not None:
        return *known, True
    _, new_draw, items = await draw_records(reviewed_run.run_dir.path, options)
    return new_draw, items, False


def _find_draw(
    reviewed_run: ReviewedRun, options: DrawOptions, wanted: int | None
) -> tuple[Draw, Sequence[DrawItem]] | None:
    reviews = read_reviews(reviewed_run.run_dir.path)
    if reviews is None:
        if wanted is not None:
            raise SetupError(f"--draw {wanted}: this run has no draw yet")
        return None
    with reviews:
        draws = reviews.draws()
        if wanted is not None:
            chosen = [draw for draw in draws if draw.id == wanted]
            if not chosen:
                raise SetupError(
                    f"--draw {wanted}: this run has no such draw; it has {list_names([d.id for d in draws])}"
                )
        elif options:
            chosen = [draw for draw in draws if _matches_options(draw, options)]
        else:
            chosen = [draw for draw in draws if draw.purpose == REVIEW]
        return (chosen[-1], reviews.items_of(chosen[-1].id)) if chosen else None


def _matches_options(draw: Draw, options: DrawOptions) -> bool:
    """Whether the draw was made with these options."""
    spec: Mapping[str, Any] = draw.spec
    if (draw.purpose, draw.seed, draw.blind) != (options.purpose, options.seed, options.blind):
        return False
    names = ("where", "column", "score")
    if any(spec.get(name) != getattr(options, name) for name in names):
        return False
    return [_requested_part(part) for part in spec.get("parts", ())] == _requested_parts(options)


def _requested_part(part: Mapping[str, Any]) -> tuple[str, Any]:
    kind = part["kind"]
    return kind, None if kind == "where" else part["other"] if kind == "disagreements" else part["n"]


def _requested_parts(options: DrawOptions) -> list[tuple[str, Any]]:
    numbers = [(name, getattr(options, name)) for name in ("sample", "per_class", "uncertain")]
    parts: list[tuple[str, Any]] = [(name, n) for name, n in numbers if n]
    if options.disagreements is not None:
        parts.append(("disagreements", str(options.disagreements)))
    return parts or [("where", None)]
