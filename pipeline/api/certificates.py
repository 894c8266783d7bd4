"""Certificates of labels, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import measure, show, store
from pipeline.api.shown import ShownFacts
from pipeline.runner import in_loop
from pipeline.targets import find_run


@dataclass(frozen=True, slots=True, repr=False)
class Certification(ShownFacts):
    """Where the certificate of a label field stands. `facts` is all of it, as `labelpipe certify --json` prints it.

    `records` are the keys of those that people have to check now, `check` is how many; `bound` is the share of wrong
    labels that is not exceeded at the confidence asked for.
    """

    @property
    def certified(self) -> bool:
        """Whether the labels are certified."""
        return bool(self.facts["certified"])

    @property
    def bound(self) -> float:
        """At most this share is wrong; before it is certified, of the whole file as it is."""
        return float(self.facts["bound"])

    @property
    def check(self) -> int:
        """How many records people have to check now."""
        return int(self.facts["check"])

    @property
    def records(self) -> Sequence[str]:
        """Their keys."""
        found: Sequence[str] = self.facts["records"]
        return found

    def _lines(self) -> Sequence[str]:
        return show.certify_lines(self.facts)


async def acertify(
    run: str | Path | None = None,
    error: float | None = None,
    confidence: float | None = None,
    *,
    column: str | None = None,
    seed: int | None = None,
    sample: int | None = None,
    score: str | None = None,
    anew: bool = False,
) -> Certification:
    """`certify`, for a program that has an event loop."""
    options = measure.CertifyOptions(error, confidence, column, seed, sample, score, anew)
    return Certification(await measure.certify(run, options))


def certify(
    run: str | Path | None = None,
    error: float | None = None,
    confidence: float | None = None,
    *,
    column: str | None = None,
    seed: int | None = None,
    sample: int | None = None,
    score: str | None = None,
    anew: bool = False,
) -> Certification:
    """Certify that at most `error` of the labels are wrong, with this `confidence`; call it again after each answer.

    The first call draws records for people to check blind. `None` means what the run's design has, or 0.05 and 0.95 in
    a new one; `sample` is the size of its draw. `score` is the column that says how certain a label is, `agreement` and
    `confidence` unless you name one. What was fixed by the first call stays, unless `anew` begins another
    design. Makes no call of a model. Raises SetupError.
    """
    return in_loop(acertify(run, error, confidence, column=column, seed=seed, sample=sample, score=score, anew=anew))


@dataclass(frozen=True, slots=True, repr=False)
class ClassShares(ShownFacts):
    """Shares of classes, raw and corrected. `facts` is all of it, as `labelpipe certify --shares --json` prints it.

    `groups` are those of `by`, or one of all records: each with `classes`, which has for each class `raw`, and
    `corrected` with its interval from `low` to `high`, all from 0 to 1.
    """

    @property
    def groups(self) -> Sequence[Mapping[str, Any]]:
        """The shares in each group."""
        found: Sequence[Mapping[str, Any]] = self.facts["groups"]
        return found

    def _lines(self) -> Sequence[str]:
        return show.shares_lines(self.facts)


async def aclass_shares(
    run: str | Path | None = None,
    *,
    column: str | None = None,
    by: str | None = None,
    confidence: float = 0.95,
    pseudo: str | Path | None = None,
) -> ClassShares:
    """`class_shares`, for a program that has an event loop."""
    return ClassShares(await measure.shares(run, measure.SharesOptions(column, by, confidence, pseudo)))


def class_shares(
    run: str | Path | None = None,
    *,
    column: str | None = None,
    by: str | None = None,
    confidence: float = 0.95,
    pseudo: str | Path | None = None,
) -> ClassShares:
    """The share of each class, corrected by what people answered blind for a random draw, with its interval.

    `by` is a field of the records or labels that splits them. `pseudo` is a CSV to write the pseudo-outcome of each
    label to, for regressions. Raises SetupError.
    """
    return in_loop(aclass_shares(run, column=column, by=by, confidence=confidence, pseudo=pseudo))


def certificate_of(run: str | Path | None = None, column: str | None = None) -> dict[str, Any] | None:
    """The certificate that a run was given, as plain values; None without any. Raises SetupError.

    `certified` is false and `void` says why, where labels that it is about have changed since. `text` is a paragraph.
    """
    return store.certificate_of(find_run(run), column)
