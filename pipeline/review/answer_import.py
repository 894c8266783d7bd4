"""What a person has filled in, taken back into the run's reviews: all of a file, or nothing of it."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import InputError, SetupError, list_names
from pipeline.records import JSON, Outcome
from pipeline.review.cell_values import is_empty, is_equal, is_ticked, matches_cell, parse_cell, unescape
from pipeline.review.drawfile import NOTE, UNCLEAR
from pipeline.review.page import draw_figures
from pipeline.review.reviewed_run import ReviewedRun, answer_about, load_reviewed_run, missing_in
from pipeline.review.row_files import FileRow, read_file_rows
from pipeline.review.row_matching import MatchedRow, match_rows
from pipeline.runner import RewriteResult, rewrite
from pipeline.store import Answer, CorrectionSet, Draw, Ledger, Reviews, open_reviews, read_corrections, read_reviews

#: Faults of a file that are named.
SHOWN_FAULTS = 10
#: Rows whose records are looked up together.
BLOCK = 1_000
_SEVERAL = (
    "the record has several rows, and an answer cannot say which of them it is about. Take the row out of this "
    "file, and change the label in your own copy of labels.csv, or write a clearer prompt and label the record again"
)


#: the keys of a draw, and those of them that nobody has answered
_Pending = tuple[Set[str], Set[str]]


@dataclass(frozen=True, slots=True)
class _Corrections:
    """What a file is read beside: the corrections as they are now, and as the run's files have them.

    `own` are those of the columns `unclear` and `note` that are a draw's; `is_copy`: an edited labels.csv answers.
    """

    now: CorrectionSet
    written: CorrectionSet
    own: frozenset[str]
    is_copy: bool

    def drops(self, outcome: Outcome, column: str, value: JSON) -> bool:
        """Whether a value of a labels.csv is only older than the correction of its record.

        The file may be a copy of one that did not have the correction yet, as while the run was at work, or one from
        before somebody else corrected the record: the model's label is in it, and nobody has chosen it.
        """
        correction = self.now.by_key.get(outcome.record.key)
        if not self.is_copy or correction is None or column not in correction.fields:
            return False
        labels = (self.written.apply(outcome).label, outcome.label)
        return any(column in label and is_equal(value, label[column]) for label in labels if label)


@dataclass(slots=True)
class ImportResult:
    """What came of a file, in rows. All of it changes while the file is read.

    `corrected` have another value than the rows of the run had, `confirmed` the same. `unclear` have a mark or a note
    and no value. `known` were taken before; `unchanged` say nothing, because they answer no draw and are as they were;
    `outdated` neither, because they are as they were before somebody corrected them; `unanswered` are not filled in.
    """

    corrected: int = 0
    confirmed: int = 0
    unclear: int = 0
    known: int = 0
    unchanged: int = 0
    outdated: int = 0
    unanswered: int = 0
    answers: list[Answer] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


async def take_answers(run: str | Path | None, path: str | Path, *, by: str, draw: int | None = None) -> dict[str, Any]:
    """Take the answers of a file into the run's reviews, and write the run's files again.

    Gives what came of it as plain values. Raises InputError where a row cannot be taken: then nothing is.
    """
    if not by.strip():
        raise SetupError("name the reviewer: --by NAME")
    reviewed_run, file = await load_reviewed_run(run), Path(path)
    rows = await _rows(reviewed_run, file)
    corrected = await asyncio.to_thread(read_corrections, reviewed_run.run_dir.path)
    written = await asyncio.to_thread(read_corrections, reviewed_run.run_dir.path, reviewed_run.layout.corrected)
    # A line of JSON may leave out what is null.
    titles = frozenset(name for row in rows for name in row.values)
    own = frozenset(name for name in (UNCLEAR, NOTE) if _is_own(reviewed_run, name, titles))
    context = _Corrections(corrected, written, own, _is_copy(reviewed_run, titles))
    async with await Ledger.open(reviewed_run.run_dir.ledger, read_only=True) as ledger:
        named = await match_rows(reviewed_run, ledger, corrected, rows, file)
        answered_draw, lies_in = await asyncio.to_thread(_draw_of, reviewed_run, draw, named, file, context)
        result = ImportResult()
        for start in range(0, len(named), BLOCK):
            block = named[start : start + BLOCK]
            outcomes = await ledger.outcomes_of([one.key for one in block])
            for one in block:
                _read_row(reviewed_run, result, one, (outcomes[one.key], context), confirms=answered_draw is not None)
    if result.faults:
        raise InputError(_format_faults(file, result.faults))
    await asyncio.to_thread(_store_answers, reviewed_run, result, by.strip(), answered_draw)
    rewritten = await rewrite(reviewed_run.run_dir)
    figures = {"estimates": [], "meant": ""}
    if answered_draw is not None and answered_draw.blind:
        figures = await draw_figures(reviewed_run, answered_draw, by.strip())
    return _facts(reviewed_run, (file, by.strip(), answered_draw), result, rewritten) | figures | {"lies_in": lies_in}


def _is_filled_in(draw: Draw, about: tuple[Set[str], _Pending], context: _Corrections) -> bool:
    """Whether a file about these keys is this draw, filled in: then a value that is as it was is an answer too.

    It is if it has the draw's own columns, whatever rows were deleted. Another tool may have left these out; then it
    has to be about all records of the draw, or all that nobody has answered: gold, or a list of mistakes, may lie in a
    draw by chance, or come from it, and is no random part of it. An edited labels.csv shows the model's labels.
    """
    keys, (drawn, pending) = about
    if {UNCLEAR, NOTE} <= context.own:
        return True
    is_all = keys == drawn or (bool(pending) and keys == pending)
    return is_all and (not context.is_copy or (draw.blind and len(drawn) < draw.population))


def _is_own(reviewed_run: ReviewedRun, name: str, titles: Set[str]) -> bool:
    """Whether the file's column of this name is that of a draw, and not one of the input that was carried along."""
    # A draw calls that one by another name.
    is_carried = name in reviewed_run.layout.columns
    return name in titles and (not is_carried or f"input_{name}" in titles)


def _is_copy(reviewed_run: ReviewedRun, titles: Set[str]) -> bool:
    """Whether such rows are those of labels.csv, edited: nobody has chosen each value in them."""
    return set(reviewed_run.layout.label_table().titles) <= titles


async def _rows(reviewed_run: ReviewedRun, file: Path) -> list[FileRow]:
    """The rows of the file, of which some column is a label. Raises InputError."""
    rows: list[FileRow] = []
    async with aclosing(read_file_rows(file)) as blocks:
        async for block in blocks:
            rows += block
    if not rows:
        raise InputError(f"{file}: contains no row")
    if not any(name in row.values for row in rows for name in reviewed_run.names):
        raise InputError(
            f"{file}: no column is a label of this run ({list_names(reviewed_run.names)}); the columns are "
            f"{list_names(rows[0].values)}"
        )
    return rows


def _store_answers(reviewed_run: ReviewedRun, result: ImportResult, by: str, draw: Draw | None) -> None:
    """Keep the answers that this person has not given before."""
    number, blind = (None, False) if draw is None else (draw.id, draw.blind)
    about = [replace(answer, by=by, draw=number, blind=blind) for answer in result.answers]
    with open_reviews(reviewed_run.run_dir.path) as reviews:
        previous = {answer.key: _answer_digest(answer) for answer in reviews.standing() if answer.by == by}
        new = [answer for answer in about if previous.get(answer.key) != _answer_digest(answer)]
        result.answers = reviews.add_answers(new)
    result.known = len(about) - len(new)
    _count(result)


def _draw_of(
    reviewed_run: ReviewedRun, wanted: int | None, named: Sequence[MatchedRow], file: Path, context: _Corrections
) -> tuple[Draw | None, int | None]:
    """The draw that a file answers: the one that is wanted, else the smallest that holds all of its records.

    Of draws of one size it is the last: a person may have deleted rows, but none is ever added. A file that is none of
    them filled in answers no draw: its answers are those that differ, and a draw with these only would make the labels
    look worse than they are. Then the second value is the blind draw, if any, that its records lie in.
    """
    keys = {one.key for one in named}
    reviews = read_reviews(reviewed_run.run_dir.path)
    if reviews is None:
        draws: list[tuple[Draw, _Pending]] = []
    else:
        with reviews:
            draws = [(draw, _pending(reviews, draw)) for draw in reviews.draws() if wanted in (None, draw.id)]
    if wanted is not None and not draws:
        raise SetupError(f"--draw {wanted}: this run has no such draw")
    holding = sorted((len(both[0]), -draw.id, draw, both) for draw, both in draws if keys <= both[0])
    if wanted is not None and not holding:
        raise InputError(f"{file}: {list_names(sorted(keys - draws[0][1][0]))} are not in draw {wanted}")
    filled = (draw for *_, draw, both in holding if wanted or _is_filled_in(draw, (keys, both), context))
    lies_in = next((draw.id for *_, draw, _ in holding if draw.blind), None)
    return (draw, None) if (draw := next(filled, None)) is not None else (None, lies_in)


def _pending(reviews: Reviews, draw: Draw) -> _Pending:
    items = reviews.items_of(draw.id)
    return {item.key for item in items}, {item.key for item in items if item.answer is None}


def _read_row(
    reviewed_run: ReviewedRun,
    result: ImportResult,
    one: MatchedRow,
    about: tuple[Outcome, _Corrections],
    *,
    confirms: bool,
) -> None:
    """Add the answer of a row, or what is wrong with it. With `confirms` a value that is as it was is an answer too."""
    outcome, context = about
    corrected = context.now.apply(outcome)
    filled, changed, faults = _cells(reviewed_run, one.row.values, corrected.label)
    old = [] if confirms else [name for name, value in changed.items() if context.drops(outcome, name, value)]
    for name in old:
        del changed[name]
    note, mark = (one.row.values.get(name) if name in context.own else None for name in (NOTE, UNCLEAR))
    unclear = is_ticked(mark)
    words = "" if is_empty(note) else unescape(str(note))
    if changed and outcome.rows is not None:
        faults = [_SEVERAL]
    elif changed and corrected.label is None and (missing := missing_in(reviewed_run, changed)):
        faults.append(f"the record has no label, so it needs a value for {', '.join(missing)} too")
    if faults:
        result.faults += [f"line {one.row.line} ({one.key}): {fault}" for fault in faults]
    elif outcome.rows is None and (changed or unclear or words or (confirms and filled)):
        new = filled if confirms else changed
        is_right = not changed and len(new) == len(reviewed_run.columns)
        result.answers.append(
            answer_about(reviewed_run, outcome, corrected.label, None if is_right else new, unclear=unclear, note=words)
        )
    else:
        result.unanswered += not filled
        result.outdated += bool(old)
        result.unchanged += bool(filled) and not old


_Label = Mapping[str, JSON]


def _cells(
    reviewed_run: ReviewedRun, values: _Label, label: _Label | None
) -> tuple[dict[str, JSON], dict[str, JSON], list[str]]:
    """The label columns that are filled in, those of them that are not as they were, and what is wrong with others."""
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


def _answer_digest(answer: Answer) -> bytes:
    """What an answer says, and about what."""
    return codec.canonical([answer.draw, answer.record, answer.fields, answer.unclear, answer.note])


def _count(result: ImportResult) -> None:
    kinds = Counter(
        "unclear" if not answer.fields else "corrected" if _is_other(answer) else "confirmed"
        for answer in result.answers
    )
    result.corrected, result.confirmed, result.unclear = (kinds[name] for name in ("corrected", "confirmed", "unclear"))


def _is_other(answer: Answer) -> bool:
    old = answer.old or {}
    return any(name not in old or not is_equal(old[name], value) for name, value in answer.fields.items())


def _format_faults(file: Path, faults: Sequence[str]) -> str:
    lines = "\n".join(f"  {fault}" for fault in islice(faults, SHOWN_FAULTS))
    more = f"\n  and {len(faults) - SHOWN_FAULTS:,} more" if len(faults) > SHOWN_FAULTS else ""
    return f"{file}: nothing was imported, because these rows cannot be:\n{lines}{more}"


def _facts(
    reviewed_run: ReviewedRun, source: tuple[Path, str, Draw | None], result: ImportResult, rewritten: RewriteResult
) -> dict[str, Any]:
    file, by, draw = source
    counts = ("corrected", "confirmed", "unclear", "known", "unchanged", "outdated", "unanswered")
    return {
        "run_dir": str(reviewed_run.run_dir.path),
        "simulated": reviewed_run.simulated,
        "file": str(file),
        "by": by,
        "draw": None if draw is None else draw.id,
        "blind": draw is not None and draw.blind,
        "certifies": None if draw is None else _certified_column(draw),
        "answers": len(result.answers),
        **{name: getattr(result, name) for name in counts},
        "files": rewritten.state,
        "told": rewritten.message,
    }


def _certified_column(draw: Draw) -> str | None:
    """The label field that `certify` made the draw for, at first or to have more records checked."""
    spec: Any = draw.spec
    column: str | None = spec.get("certify", spec).get("column") if draw.purpose == "certify" else None
    return column
