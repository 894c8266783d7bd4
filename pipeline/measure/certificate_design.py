"""The design of a certificate: what is fixed, and saved in the reviews of the run, before the first answer.

Anybody who sees answers and then chooses the error, the confidence, or another draw is influenced by the result.
So these are saved with the draw. They can be replaced until somebody answers. After that, only a new design can replace
them: it draws among records that nobody has checked and has half the risk of the previous design. However often
somebody starts over, all designs together fail with at most twice the risk of the first.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import inf
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError
from pipeline.measure.human_answers import HumanAnswers, human_answers
from pipeline.quality import Design, make_design, uniform
from pipeline.records import JSON
from pipeline.store import (
    CERTAINTY,
    ColumnLabel,
    Draw,
    DrawItem,
    LabelDigest,
    Reviews,
    population_digest,
    read_column,
    read_reviews,
)

#: The purpose of its draws in `reviews.db`.
PURPOSE = "certify"
#: The defaults of `certify`.
ERROR, CONFIDENCE = 0.05, 0.95
#: A place in the order of uncertainty: how uncertain each of the columns used is, then a hash.
Place = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CertifyOptions:
    """The options of `certify`. None means the value of the run's design, or the default.

    `error` is the share of labels that may be wrong, and `confidence` is the probability that no more are. `sample` is
    the size of the first draw. `score` is the column that orders the labels, with the lowest numbers for the least
    certain ones; None: CERTAINTY. `anew` replaces a design that people have answered.
    """

    error: float | None = None
    confidence: float | None = None
    column: str | None = None
    seed: int | None = None
    sample: int | None = None
    score: str | None = None
    anew: bool = False


@dataclass(frozen=True, slots=True)
class StoredDesign:
    """A design as it is saved with its draw.

    `column` is the label field. `labels` is the digest of the certified labels, which are those up to `last_seq`;
    `reviews` is the version of the reviews at that time. `scores` are the columns that may order the labels, and
    `certainty` are those of them that have a number. `number` counts the designs of this column that people have
    answered, including this one. `extends` is the id of the blind review draw that this design continues.
    """

    draw: Draw
    keys: tuple[str, ...]
    design: Design
    column: str
    confidence: float
    labels: str
    last_seq: int
    reviews: int
    scores: tuple[str, ...]
    certainty: tuple[str, ...]
    number: int
    requested_sample: int | None
    extends: int | None

    def place(self, one: ColumnLabel) -> Place:
        """Return the place of a record in the order: the most certain first, equal ones in random order."""
        return (*self._certainty_place(one), uniform(self.draw.seed, "certify order", one.key))

    def is_before(self, one: ColumnLabel, place: Place) -> bool:
        """Whether the record's place is before this one. Rarely computes the random part."""
        stated, other = self._certainty_place(one), place[:-1]
        return stated < other or (stated == other and self.place(one) < place)

    def _certainty_place(self, one: ColumnLabel) -> Place:
        # A label without a certainty counts as less certain than one that reports a guess.
        certainties = (one.certainty[self.scores.index(name)] for name in self.certainty)
        return tuple(inf if value is None else -value for value in certainties)

    def population(
        self, ledger: Path, before: HumanAnswers, summary: LabelDigest | None = None
    ) -> Iterator[ColumnLabel]:
        """Yield the labels that were drawn from: those that nobody had checked at that time."""
        for one in read_column(ledger, self.column, self.scores, self.last_seq, summary):
            if not before.has_checked(one):
                yield one

    def differs(self, options: CertifyOptions) -> list[str]:
        """Return the options that ask for something else than this design, as text."""
        options_and_values = (
            ("--error", options.error, self.design.error),
            ("--confidence", options.confidence, self.confidence),
            ("--sample", options.sample, self.requested_sample),
            ("--seed", options.seed, self.draw.seed),
        )
        differences = [
            f"{name} {value:g}" for name, value, stored in options_and_values if value is not None and value != stored
        ]
        if options.score is not None and (options.score,) != self.scores:
            differences.append(f"--score {options.score}")
        return differences


def stored_designs(reviews: Reviews, column: str) -> list[StoredDesign]:
    """Return the designs of this column, the oldest first."""
    designs = []
    for draw in reviews.draws(PURPOSE):
        spec: Any = draw.spec.get("certify")
        if isinstance(spec, dict) and spec["column"] == column:
            designs.append(_stored_design(draw, spec, tuple(item.key for item in reviews.items_of(draw.id))))
    return designs


def designed_column(folder: Path) -> str | None:
    """Return the column of all designs of a run; None if there is none, or more than one."""
    reviews = read_reviews(folder)
    if reviews is None:
        return None
    with reviews:
        specs: list[Any] = [draw.spec.get("certify") for draw in reviews.draws(PURPOSE)]
    columns = {one["column"] for one in specs if isinstance(one, dict)}
    return columns.pop() if len(columns) == 1 else None


def used_designs(reviews: Reviews, stored: Sequence[StoredDesign]) -> list[StoredDesign]:
    """Return the designs that somebody answered before the next one was made, even if the answer was withdrawn."""
    answers, end = reviews.answers(), inf
    used = []
    for one in reversed(stored):
        keys = frozenset(one.keys)
        if any(one.draw.at <= answer.at < end and answer.key in keys for answer in answers):
            used.append(one)
        end = one.draw.at
    return used


def _stored_design(draw: Draw, spec: dict[str, Any], keys: tuple[str, ...]) -> StoredDesign:
    design = Design(spec["n"], draw.population, len(keys), spec["error"], spec["risk"], spec["acceptance"])
    stored = {name: spec[name] for name in ("column", "confidence", "labels", "last_seq", "reviews", "number")}
    scores, certainty = tuple(spec["scores"]), tuple(spec["certainty"])
    return StoredDesign(
        draw, keys, design, scores=scores, certainty=certainty, requested_sample=spec["asked"],
        extends=spec.get("extends"), **stored,
    )  # fmt: skip


def create_design(
    ledger: Path, reviews: Reviews, column: str, options: CertifyOptions, number: int
) -> tuple[StoredDesign, LabelDigest]:
    """Fix a design, draw its records, and save both. Also return the digest of its labels. Raises SetupError."""
    error = ERROR if options.error is None else options.error
    confidence = CONFIDENCE if options.confidence is None else options.confidence
    before = (
        _extended_draw(ledger, reviews) if number == 1 and options.seed is None and options.sample is None else None
    )
    drawn_before = frozenset[str]() if before is None else reviews.keys_of(before.id)
    seed = before.seed if before else secrets.randbelow(2**31) if options.seed is None else options.seed
    scores = CERTAINTY if options.score is None else (options.score,)
    # The number of the last answer: later calls ask what was checked before, and must get the same result.
    version = max([reviews.version(), *(answer.id for answer in reviews.answers())])
    if before is not None:
        version = max((answer.id for answer in reviews.answers() if answer.at < before.at), default=0)
    answers_before, summary = human_answers(reviews, column, version), LabelDigest()
    population, already_drawn, has_numbers = 0, 0, [False] * len(scores)
    for one in read_column(ledger, column, scores, digest=summary):
        is_open = not answers_before.has_checked(one)
        population += is_open
        already_drawn += is_open and one.key in drawn_before
        has_numbers = [known or value is not None for known, value in zip(has_numbers, one.certainty, strict=True)]
    if not summary.n:
        raise SetupError(f"{ledger.parent}: no record has a label in {column}, so there is nothing to certify")
    if options.score is not None and not any(has_numbers):
        raise SetupError(f"--score {options.score}: no label has a number in this column")
    # Rounded, because 1 - 0.95 is a little more than 0.05.
    risk = round(1 - confidence, 12) / 2 ** (number - 1)
    try:
        design = make_design(summary.n, error, risk, checked=summary.n - population, drawn=options.sample)
        if design.drawn < already_drawn:
            design = make_design(summary.n, error, risk, checked=summary.n - population, drawn=already_drawn)
    except ValueError as problem:
        raise SetupError(f"--sample {options.sample}: {problem}") from problem
    hash_purpose = "certify" if before is None else "sample"
    keys = _draw_keys(ledger, column, summary.last_seq, answers_before, design.drawn, seed, hash_purpose)
    stored: dict[str, JSON] = {
        "column": column,
        "error": error,
        "confidence": confidence,
        "risk": risk,
        "number": number,
        "n": design.n,
        "acceptance": design.acceptance,
        "labels": summary.digest,
        "last_seq": summary.last_seq,
        "reviews": version,
        "scores": list(scores),
        "certainty": [name for name, known in zip(scores, has_numbers, strict=True) if known],
        "asked": options.sample,
        "extends": None if before is None else before.id,
    }
    spec = {"kind": "sample", "n": design.drawn, "of": design.population, "certify": stored}
    # The time is that of the draw that it extends: an answer to that draw is an answer to this design.
    at = 0.0 if before is None else before.at
    draw = Draw(seed, spec, PURPOSE, design.population, summary.digest, blind=True, at=at)
    share = design.drawn / max(1, design.population)
    return _stored_design(reviews.add_draw(draw, [DrawItem(key, share) for key in keys]), stored, tuple(keys)), summary


def _extended_draw(ledger: Path, reviews: Reviews) -> Draw | None:
    """Return the blind review draw that a first design continues: the first that was answered, if it qualifies.

    It must be a simple random draw of all labels, and none of them may have changed since: a larger draw with the same
    seed contains it and is a simple random draw as well. It is never chosen by its answers.
    """
    answered = {answer.draw for answer in reviews.answers() if answer.blind}
    for draw in reviews.draws("review"):
        parts: Any = draw.spec.get("parts")
        is_plain = isinstance(parts, list) and [one["kind"] for one in parts] == ["sample"] and "where" not in draw.spec
        if draw.blind and is_plain and draw.id in answered:
            return draw if draw.digest == population_digest(ledger) else None
    return None


def _draw_keys(
    ledger: Path, column: str, last_seq: int, answers: HumanAnswers, n: int, seed: int, hash_purpose: str
) -> Sequence[str]:
    """Return a simple random sample of the labels that nobody has checked, in random order."""
    labels = read_column(ledger, column, (), last_seq)
    hashed = ((uniform(seed, hash_purpose, one.key), one.key) for one in labels if not answers.has_checked(one))
    return [key for _, key in nsmallest(n, hashed)]
