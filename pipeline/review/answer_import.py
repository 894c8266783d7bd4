"""Imports a file that a person has filled in into the run's reviews: either all of the file, or nothing."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import InputError, SetupError, list_names
from pipeline.records import JSON, Outcome
from pipeline.review.cell_values import is_checked, is_empty, is_equal, matches_cell, parse_cell, unescape
from pipeline.review.drawfile import NOTE, UNCLEAR
from pipeline.review.page import draw_figures
from pipeline.review.reviewed_run import ReviewedRun, answer_about, load_reviewed_run, missing_in
from pipeline.review.row_files import FileRow, read_file_rows
from pipeline.review.row_matching import MatchedRow, match_rows
from pipeline.runner import rewrite
from pipeline.store import Answer, CorrectionSet, Draw, Ledger, open_reviews, read_corrections, read_reviews

#: The most faults of a file that are named.
SHOWN_FAULTS = 10
#: How many rows' records are read together.
BLOCK = 1_000
_SEVERAL = (
    "the record has several rows, and an answer cannot say which of them it is about. Take the row out of this "
    "file, and change the label in your own copy of labels.csv, or write a clearer prompt and label the record again"
)
#: The counts of a file, in rows.
COUNTS = ("corrected", "confirmed", "unclear", "known", "unchanged", "outdated", "unanswered")


@dataclass(frozen=True, slots=True)
class _AnswerFile:
    """A file that a person has filled in, with the run's present corrections, and those in the run's files.

    `own` contains `unclear` and `note` if these columns come from a draw. `is_copy` means that it is an edited
    labels.csv, so nobody has chosen each value in it.
    """

    run: ReviewedRun
    path: Path
    rows: Sequence[FileRow]
    now: CorrectionSet
    written: CorrectionSet
    own: frozenset[str]
    is_copy: bool

    def is_outdated(self, outcome: Outcome, column: str, value: JSON) -> bool:
        """Whether a value of a labels.csv is merely older than the correction of its record.

        The file may be a copy from before the correction was written, as during a run, or from before somebody else
        corrected the record: it contains the model's label, and nobody has chosen it.
        """
        correction = self.now.by_key.get(outcome.record.key)
        if not self.is_copy or correction is None or column not in correction.fields:
            return False
        labels = (self.written.apply(outcome).label, outcome.label)
        return any(column in label and is_equal(value, label[column]) for label in labels if label)

    def answers_draw(self, draw: Draw, keys: Set[str], drawn: Set[str], pending: Set[str]) -> bool:
        """Whether the file is this draw, filled in. If so, an unchanged value is an answer too.

        It is if it has the draw's own columns, whatever rows were deleted. Another tool may have dropped these. Then
        the file must be about all records of the draw, or all unanswered ones: gold, or a list of mistakes, may be part
        of a draw by chance, or come from it, but is no random part of it. An edited labels.csv shows the model's
        labels.
        """
        if {UNCLEAR, NOTE} <= self.own:
            return True
        is_all = keys == drawn or (bool(pending) and keys == pending)
        return is_all and (not self.is_copy or (draw.blind and len(drawn) < draw.population))


@dataclass(frozen=True, slots=True)
class _ImportResult:
    """The result of an import. `counts` are in rows.

    `corrected` rows have a different value than the run's rows had, `confirmed` the same. `unclear` rows have a mark or
    a note and no value. `known` rows were imported before. `unchanged` rows are no answers, because they answer no draw
    and have their old values; nor are `outdated` ones, which have those from before a correction. `unanswered` rows are
    not filled in.
    """

    counts: Counter[str]
    answers: list[Answer]
    faults: list[str]


async def take_answers(run: str | Path | None, path: str | Path, *, by: str, draw: int | None = None) -> dict[str, Any]:
    """Import the answers of a file into the run's reviews, and rewrite the run's files.

    Returns the result as plain values. Raises InputError if a row cannot be imported; then none is.
    """
    by = by.strip()
    if not by:
        raise SetupError("name the reviewer: --by NAME")
    reviewed_run = await load_reviewed_run(run)
    file = await _read_file(reviewed_run, Path(path))
    result = _ImportResult(Counter(), [], [])
    async with await Ledger.open(reviewed_run.run_dir.ledger, read_only=True) as ledger:
        matched = await match_rows(reviewed_run, ledger, file.now, file.rows, file.path)
        answered_draw, lies_in = await asyncio.to_thread(_draw_of, file, draw, {one.key for one in matched})
        for start in range(0, len(matched), BLOCK):
            block = matched[start : start + BLOCK]
            outcomes = await ledger.outcomes_of([one.key for one in block])
            for one in block:
                _read_row(file, result, one, outcomes[one.key], confirms=answered_draw is not None)
    if result.faults:
        raise InputError(_format_faults(file.path, result.faults))
    saved = await asyncio.to_thread(_store_answers, reviewed_run, result.answers, by, answered_draw)
    counts = result.counts + Counter(map(_kind_of, saved)) + Counter(known=len(result.answers) - len(saved))
    rewritten = await rewrite(reviewed_run.run_dir)
    figures = {"estimates": [], "meant": ""}
    if answered_draw is not None and answered_draw.blind:
        figures = await draw_figures(reviewed_run, answered_draw, by)
    return {
        "run_dir": str(reviewed_run.run_dir.path),
        "simulated": reviewed_run.simulated,
        "file": str(file.path),
        "by": by,
        "draw": None if answered_draw is None else answered_draw.id,
        "blind": answered_draw is not None and answered_draw.blind,
        "certifies": None if answered_draw is None else _certified_column(answered_draw),
        "answers": len(saved),
        **{name: counts[name] for name in COUNTS},
        "files": rewritten.state,
        "told": rewritten.message,
        **figures,
        "lies_in": lies_in,
    }


async def _read_file(reviewed_run: ReviewedRun, path: Path) -> _AnswerFile:
    """Read the file, which must have a label column. Raises InputError."""
    rows = [row async for block in read_file_rows(path) for row in block]
    if not rows:
        raise InputError(f"{path}: contains no row")
    # A line of JSON may leave out nulls.
    titles = frozenset(name for row in rows for name in row.values)
    if titles.isdisjoint(reviewed_run.names):
        raise InputError(
            f"{path}: no column is a label of this run ({list_names(reviewed_run.names)}); the columns are "
            f"{list_names(rows[0].values)}"
        )
    layout, folder = reviewed_run.layout, reviewed_run.run_dir.path
    # If the input has a column of this name too, a draw renames that one.
    own = {name for name in (UNCLEAR, NOTE) if name not in layout.columns or f"input_{name}" in titles}
    now = await asyncio.to_thread(read_corrections, folder)
    written = await asyncio.to_thread(read_corrections, folder, layout.corrected)
    is_copy = titles.issuperset(layout.label_table().titles)
    return _AnswerFile(reviewed_run, path, rows, now, written, titles & own, is_copy)


def _draw_of(file: _AnswerFile, wanted: int | None, keys: Set[str]) -> tuple[Draw | None, int | None]:
    """Return the draw that a file with these keys answers: `wanted`, or the smallest that contains all of them.

    Among draws of equal size it is the last: a person may have deleted rows, but never adds any. A file that is no
    filled-in draw answers none: its answers are only those that differ, and a draw of these would make the labels look
    worse than they are. Then the second value is the blind draw, if any, that contains its records.
    """
    reviews, draws = read_reviews(file.run.run_dir.path), list[tuple[Draw, set[str], set[str]]]()
    if reviews is not None:
        with reviews:
            for draw in reviews.draws():
                if wanted in (None, draw.id):
                    items = reviews.items_of(draw.id)
                    pending = {item.key for item in items if item.answer is None}
                    draws.append((draw, {item.key for item in items}, pending))
    if wanted is not None and not draws:
        raise SetupError(f"--draw {wanted}: this run has no such draw")
    holding = sorted((one for one in draws if keys <= one[1]), key=lambda one: (len(one[1]), -one[0].id))
    if wanted is not None and not holding:
        raise InputError(f"{file.path}: {list_names(sorted(keys - draws[0][1]))} are not in draw {wanted}")
    for draw, drawn, pending in holding:
        if wanted or file.answers_draw(draw, keys, drawn, pending):
            return draw, None
    return None, next((draw.id for draw, _, _ in holding if draw.blind), None)


def _read_row(file: _AnswerFile, result: _ImportResult, one: MatchedRow, outcome: Outcome, *, confirms: bool) -> None:
    """Add the answer of a row, or its faults. With `confirms`, an unchanged value is an answer too."""
    values, corrected = one.row.values, file.now.apply(outcome)
    filled, changed, faults = _cells(file.run, values, corrected.label)
    old = [] if confirms else [name for name, value in changed.items() if file.is_outdated(outcome, name, value)]
    for name in old:
        del changed[name]
    note, mark = (values.get(name) if name in file.own else None for name in (NOTE, UNCLEAR))
    unclear = is_checked(mark)
    words = "" if is_empty(note) else unescape(str(note))
    if changed and outcome.rows is not None:
        faults = [_SEVERAL]
    elif changed and corrected.label is None and (missing := missing_in(file.run, changed)):
        faults.append(f"the record has no label, so it needs a value for {', '.join(missing)} too")
    if faults:
        result.faults.extend(f"line {one.row.line} ({one.key}): {fault}" for fault in faults)
    elif outcome.rows is None and (changed or unclear or words or (confirms and filled)):
        new = filled if confirms else changed
        is_right = not changed and len(new) == len(file.run.columns)
        new_values = None if is_right else new
        result.answers.append(answer_about(file.run, outcome, corrected.label, new_values, unclear=unclear, note=words))
    else:
        result.counts.update(unanswered=not filled, outdated=bool(old), unchanged=bool(filled) and not old)


def _cells(
    reviewed_run: ReviewedRun, values: Mapping[str, JSON], label: Mapping[str, JSON] | None
) -> tuple[dict[str, JSON], dict[str, JSON], list[str]]:
    """Return the label columns that are filled in, those of them that changed, and the faults of the others."""
    filled, changed, faults = dict[str, JSON](), dict[str, JSON](), []
    for column in reviewed_run.columns:
        value, name = values.get(column.name), column.name
        if is_empty(value):
            continue
        if label is not None and matches_cell(value, label.get(name)):
            filled[name] = label.get(name)
            continue
        try:
            filled[name] = parse_cell(value, column)
        except ValueError as error:
            faults.append(str(error))
            continue
        if label is None or not is_equal(filled[name], label.get(name)):
            changed[name] = filled[name]
    return filled, changed, faults


def _store_answers(reviewed_run: ReviewedRun, answers: Sequence[Answer], by: str, draw: Draw | None) -> list[Answer]:
    """Store and return the answers that this person has not given before."""
    number, blind = (None, False) if draw is None else (draw.id, draw.blind)
    about = [replace(answer, by=by, draw=number, blind=blind) for answer in answers]
    with open_reviews(reviewed_run.run_dir.path) as reviews:
        previous = {answer.key: _answer_digest(answer) for answer in reviews.active_answers() if answer.by == by}
        return reviews.add_answers([one for one in about if previous.get(one.key) != _answer_digest(one)])


def _answer_digest(answer: Answer) -> bytes:
    """Return a value that is equal for answers with the same content about the same record."""
    return codec.canonical([answer.draw, answer.record, answer.fields, answer.unclear, answer.note])


def _kind_of(answer: Answer) -> str:
    old = answer.old or {}
    if not answer.fields:
        return "unclear"
    differs = any(name not in old or not is_equal(old[name], value) for name, value in answer.fields.items())
    return "corrected" if differs else "confirmed"


def _format_faults(file: Path, faults: Sequence[str]) -> str:
    lines = "\n".join(f"  {fault}" for fault in faults[:SHOWN_FAULTS])
    more = f"\n  and {len(faults) - SHOWN_FAULTS:,} more" if len(faults) > SHOWN_FAULTS else ""
    return f"{file}: nothing was imported, because these rows cannot be:\n{lines}{more}"


def _certified_column(draw: Draw) -> str | None:
    """Return the label field that `certify` made the draw for, whether it is the first draw or a later one."""
    spec: Any = draw.spec
    column: str | None = spec.get("certify", spec).get("column") if draw.purpose == "certify" else None
    return column
