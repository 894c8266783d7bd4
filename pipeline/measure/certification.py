"""`certify`: finds which labels people must check so that, at a stated confidence, few enough of the file are wrong.

`pipeline/quality/certify.py` explains the method, and why repeated looks do no harm.
`pipeline/measure/certificate_design.py` explains what is fixed before the first answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError, list_names
from pipeline.gold import MeasuredField
from pipeline.measure.certificate_design import (
    PURPOSE,
    CertifyOptions,
    Place,
    StoredDesign,
    create_design,
    designed_column,
    stored_designs,
    used_designs,
)
from pipeline.measure.human_answers import HumanAnswers, human_answers, is_right
from pipeline.measure.measured_run import MeasuredRun, open_measured_run
from pipeline.quality import error_bound, first_to_check
from pipeline.show import certificate_text
from pipeline.store import (
    CERTAINTY,
    VOID,
    Answer,
    ColumnLabel,
    Draw,
    DrawItem,
    LabelDigest,
    Reviews,
    RunDir,
    labels_match,
    open_reviews,
    read_certificates,
    write_certificate,
)

METHOD = (
    "probably approximately correct labels (Candès, Ilyas and Zrnic 2025), with the exact hypergeometric bound for a "
    "simple random draw without replacement"
)
Facts = dict[str, Any]


async def certify(run: str | Path | None = None, options: CertifyOptions | None = None) -> Facts:
    """Return the state of a label field's certificate, as plain values. Draws the records that people must check.

    `state` is "draw" while records of the first draw wait for a blind answer, "check" while further records wait,
    "certified", or "void" if labels have changed since the draw. `check` is how many records wait. Makes no call and
    changes no label. Raises SetupError.
    """
    options = options or CertifyOptions()
    _validate(options)
    async with open_measured_run(run) as measured_run:
        label_field = certified_field(measured_run, options.column)
    return await asyncio.to_thread(_certify, measured_run, label_field, options)


def _validate(options: CertifyOptions) -> None:
    for name, value in (("--error", options.error), ("--confidence", options.confidence)):
        if value is not None and not 0 < value < 1:
            raise SetupError(f"{name} {value:g}: expected a share above 0 and below 1, such as 0.05 for 5%")
    if options.sample is not None and options.sample < 1:
        raise SetupError(f"--sample {options.sample}: expected a number of records, 1 or more")


def certified_field(run: MeasuredRun, name: str | None) -> MeasuredField:
    """Return the label field to certify: the named one, the one of the designs, or the only one. Raises SetupError."""
    name = name or designed_column(run.run_dir.path)
    if name is None:
        names = [one.name for one in run.fields.values() if one.name not in CERTAINTY]
        listed = [one for one in names if run.fields[one].kind in ("class", "set")]
        if len(listed or names) != 1:
            raise SetupError(f"the run in {run.run_dir.path} has {list_names(names)}: name one with --column")
        name = (listed or names)[0]
    if name in run.row_fields:
        raise SetupError(
            f"--column {name}: a record has several rows of it, and a certificate needs one label per record"
        )
    return run.field(name, "--column")


def _certify(run: MeasuredRun, label_field: MeasuredField, options: CertifyOptions) -> Facts:
    folder, ledger = run.run_dir.path, run.run_dir.ledger
    with open_reviews(folder) as reviews:
        answers = human_answers(reviews, label_field.name)
        stored = stored_designs(reviews, label_field.name)
        used = used_designs(reviews, stored)
        state = None if not stored else _certificate_state(ledger, stored[-1], reviews, answers, label_field)
        if state is None or _is_to_be_replaced(state, options, is_used=stored[-1] in used):
            _require_stopped(run.run_dir)
            design, labels = create_design(
                ledger, reviews, label_field.name, _with_design_defaults(options, state), len(used) + 1
            )
            is_new = design.extends is None
            state = (
                _initial_state(design, labels)
                if is_new
                else _certificate_state(ledger, design, reviews, answers, label_field)
            )
        lists = _ensure_check_draws(reviews, state)
    return _write_certificate(folder, {**_facts(folder, state, lists), "simulated": run.simulated})


def _with_design_defaults(options: CertifyOptions, state: _CertificateState | None) -> CertifyOptions:
    """Fill in the options from the design that is replaced."""
    if state is None:
        return options
    before = state.stored
    return replace(
        options,
        error=before.design.error if options.error is None else options.error,
        confidence=before.confidence if options.confidence is None else options.confidence,
        sample=before.requested_sample if options.sample is None else options.sample,
        score=options.score or (None if before.scores == CERTAINTY else before.scores[0]),
    )


def _require_stopped(run_dir: RunDir) -> None:
    if run_dir.is_running():
        raise SetupError(
            f"{run_dir.path}: the run is still in progress, and records are drawn from all of its labels. "
            "Certify when it has ended"
        )


def _is_to_be_replaced(state: _CertificateState, options: CertifyOptions, *, is_used: bool) -> bool:
    """Whether to make a new design. Raises SetupError if the user must ask for it explicitly."""
    differs = state.stored.differs(options)
    if options.anew:
        return True
    if not is_used:
        return state.state == "void" or bool(differs)
    if not differs:
        return False
    stored, draw = state.stored, state.stored.draw
    raise SetupError(
        f"{', '.join(differs)}: this certificate was designed for an error of {stored.design.error:g} at a confidence "
        f"of {stored.confidence:g} with draw {draw.id} (seed {draw.seed}), and people have answered it. To choose "
        "again with their answers in view would break the promise. Go on without these options, or begin a new design "
        "with --anew: it draws other records and is held to half the risk"
    )


# -- the state of a design ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _DrawResult:
    """The results of a draw's records. All of it is mutable while the labels are read.

    `bad` are the places of the records that count as wrong: the `wrong` ones, the `unclear` ones, those `waiting` for
    an answer, and those answered only by people who had seen the label (`not_blind`). `open` are those of them that
    nobody has decided yet. `answers` are the blind ones.
    """

    bad: list[Place] = field(default_factory=list)
    open: list[tuple[Place, str]] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    wrong: int = 0
    unclear: int = 0
    not_blind: int = 0

    def add(self, one: ColumnLabel, place: Place, people: HumanAnswers, label_field: MeasuredField) -> None:
        """Count one more record of the draw."""
        answer, is_checked = people.blind_answer(one), people.has_checked(one)
        if answer is not None:
            self.answers.append(answer)
        if answer is None and is_checked:
            self.not_blind += 1
        elif answer is None:
            self.waiting.append(one.key)
        elif answer.unclear:
            self.unclear += 1
        elif all(is_right(label_field, one.value, value) for value in people.values_of(one, answer, label_field.name)):
            return
        else:
            self.wrong += 1
        self.bad.append(place)
        if not is_checked:
            self.open.append((place, one.key))


@dataclass(frozen=True, slots=True)
class _CertificateState:
    """A design with the answers so far.

    `kept_count` labels need no check; `bad_kept` of the draw's bad ones are among them. `to_check` are the unchecked
    records, both of the draw and of the others. `answers` are people's answers about records outside the draw.
    `is_void` means that labels have changed.
    """

    stored: StoredDesign
    labels: LabelDigest
    draw_result: _DrawResult
    kept_count: int
    bad_kept: int
    to_check: Sequence[str]
    answers: Sequence[Answer]
    is_void: bool = False

    @property
    def state(self) -> str:
        if self.is_void:
            return "void"
        if not self.to_check:
            return "certified"
        return "draw" if self.draw_result.waiting else "check"

    @property
    def bound(self) -> float:
        """The bound for the labels that are kept; until they are certified, for the whole file as it is."""
        design = self.stored.design
        if self.state == "certified":
            return error_bound(design, self.bad_kept)
        return min(1.0, error_bound(design, len(self.draw_result.bad)) + len(self.draw_result.open) / design.n)


def _initial_state(stored: StoredDesign, labels: LabelDigest) -> _CertificateState:
    """Return the state of a design without answers. If nothing was drawn, no record of its population needs a check."""
    waiting = list(stored.keys)
    places: list[Place] = [()] * len(waiting)
    draw_result = _DrawResult(bad=places, open=list(zip(places, waiting, strict=True)), waiting=waiting)
    return _CertificateState(stored, labels, draw_result, 0 if waiting else stored.design.population, 0, waiting, ())


def _certificate_state(
    ledger: Path, stored: StoredDesign, reviews: Reviews, answers_now: HumanAnswers, label_field: MeasuredField
) -> _CertificateState:
    """Read the labels twice: for the results of the draw, then for the other records that people must check."""
    before, labels, draw_result = human_answers(reviews, label_field.name, stored.reviews), LabelDigest(), _DrawResult()
    keys = frozenset(stored.keys)
    for one in stored.population(ledger, before, labels):
        if one.key in keys:
            draw_result.add(one, stored.place(one), answers_now, label_field)
    first = first_to_check(stored.design, draw_result.bad)
    kept_count, beyond, answers = stored.design.population, list[tuple[Place, str]](), list[Answer]()
    if first is not None:
        kept_count, beyond, answers = _remaining_checks(ledger, stored, before, answers_now, first)
    bad_kept = sum(first is None or place < first for place in draw_result.bad)
    # The least certain first: anybody who stops early has checked the worst.
    to_check = [key for _, key in sorted([*draw_result.open, *beyond], reverse=True)]
    is_void = labels.digest != stored.labels and not labels_match(
        stored.labels, ledger.parent, stored.column, stored.scores, stored.last_seq
    )
    return _CertificateState(stored, labels, draw_result, kept_count, bad_kept, to_check, answers, is_void)


def _remaining_checks(
    ledger: Path, stored: StoredDesign, before: HumanAnswers, answers_now: HumanAnswers, first: Place
) -> tuple[int, list[tuple[Place, str]], list[Answer]]:
    """Return how many labels to keep, and for the rest outside the draw: the unchecked records, and the answers."""
    kept_count, to_check, answers, keys = 0, list[tuple[Place, str]](), list[Answer](), frozenset(stored.keys)
    for one in stored.population(ledger, before):
        if stored.is_before(one, first):
            kept_count += 1
        elif one.key in keys:
            continue
        elif not answers_now.has_checked(one):
            to_check.append((stored.place(one), one.key))
        elif one.key in answers_now.last:
            answers.append(answers_now.last[one.key])
    return kept_count, to_check, answers


def _ensure_check_draws(reviews: Reviews, state: _CertificateState) -> list[int]:
    """Return the draws that list the checks after the first draw. Adds one if the last does not list all of them."""
    stored, to_check = state.stored, state.to_check
    lists = [draw.id for draw in reviews.draws(PURPOSE) if draw.spec.get("design") == stored.draw.id]
    if state.state != "check":
        return lists
    listed = {item.key for item in reviews.items_of(lists[-1])} if lists else set()
    if listed.issuperset(to_check):
        return lists
    spec = {"kind": "certify", "design": stored.draw.id, "column": stored.column, "n": len(to_check)}
    draw = Draw(stored.draw.seed, spec, PURPOSE, stored.draw.population, state.labels.digest)
    return [*lists, reviews.add_draw(draw, [DrawItem(key, 1.0) for key in to_check]).id]


# -- the report --------------------------------------------------------------------------------------------------------


def _facts(folder: Path, certificate: _CertificateState, lists: Sequence[int]) -> Facts:
    stored, design, state, draw_result = (
        certificate.stored,
        certificate.stored.design,
        certificate.state,
        certificate.draw_result,
    )
    waiting = frozenset(draw_result.waiting)
    # In the order of the draw, which is random: the first answers are a random part of all.
    records = {"draw": [key for key in stored.keys if key in waiting], "check": certificate.to_check}.get(state, ())
    return {
        "run_dir": str(folder),
        "column": stored.column,
        "certified": state == "certified",
        "state": state,
        "error": design.error,
        "confidence": stored.confidence,
        "bound": certificate.bound,
        "check": len(records),
        "records": list(records),
        "n": design.n,
        "allowed": design.allowed,
        "without_label": certificate.labels.without,
        "added_since": certificate.labels.added,
        "checked_before": design.n - design.population,
        "drawn": design.drawn,
        "answered": design.drawn - len(draw_result.waiting),
        "wrong": draw_result.wrong,
        "unclear": draw_result.unclear,
        "not_blind": draw_result.not_blind,
        "acceptance": design.acceptance,
        "kept": certificate.kept_count,
        "checked": design.population - certificate.kept_count,
        "scores": list(stored.scores),
        "certainty": list(stored.certainty),
        "design": stored.number,
        "risk": design.risk,
        "draw": stored.draw.id,
        "extends": stored.extends,
        "draws": [stored.draw.id, *lists],
        "seed": stored.draw.seed,
        "drawn_at": _iso(stored.draw.at),
        **_reviewer_facts(certificate),
        "method": METHOD,
        "labels": stored.labels,
        "last_seq": stored.last_seq,
        "void": VOID if state == "void" else "",
    }


def _reviewer_facts(state: _CertificateState) -> Facts:
    """Return who answered, when, and how many of the answers about the draw were blind."""
    answers = [*state.draw_result.answers, *state.answers]
    times = [answer.at for answer in answers]
    blind = len(state.draw_result.answers)
    answered = blind + state.draw_result.not_blind
    return {
        "reviewers": sorted({answer.by for answer in answers}),
        "blind_share": blind / answered if answered else None,
        "first_answer_at": _iso(min(times, default=None)),
        "last_answer_at": _iso(max(times, default=None)),
    }


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _write_certificate(folder: Path, facts: Facts) -> Facts:
    """Write the certificate. Marks an earlier one for this draw as void if it is no longer valid."""
    old = next((one for one in read_certificates(folder) if one["column"] == facts["column"]), None)
    certificate = {name: value for name, value in facts.items() if name not in ("records", "check")}
    if facts["certified"]:
        is_same = old is not None and old["certified"] and old["draw"] == facts["draw"]
        at = old["certified_at"] if old is not None and is_same else _iso(datetime.now(UTC).timestamp())
        certificate["certified_at"] = at
        path = write_certificate(folder, {**certificate, "text": certificate_text(certificate)})
        return {**facts, "certified_at": at, "certificate": str(path)}
    if old is not None and old["certified"] and old["draw"] == facts["draw"]:
        why = facts["void"] or "answers that it rests on have changed since"
        void = {**old, "certified": False, "state": "void", "void": why}
        write_certificate(folder, {**void, "text": certificate_text(void)})
    return facts
