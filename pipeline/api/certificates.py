"""Certificates of labels, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import measure, show, store
from pipeline.api.shown import Shown
from pipeline.runner import in_loop
from pipeline.targets import find_run


@dataclass(frozen=True, slots=True, repr=False)
class Certification(Shown):
    """Where the certificate of a label field stands. `facts` is all of it, as `labelpipe certify --json` prints it.

    `records` are the keys of those that people have to check now, `check` is how many; `bound` is the share of wrong
    labels that is not exceeded at the confidence asked for.
    """

    facts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]

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

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(self.facts)

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
    anew: bool = False,
) -> Certification:
    """`certify`, for a program that has an event loop."""
    options = measure.CertifyOptions(error, confidence, column, seed, sample, anew)
    return Certification(await measure.certify(run, options))


def certify(
    run: str | Path | None = None,
    error: float | None = None,
    confidence: float | None = None,
    *,
    column: str | None = None,
    seed: int | None = None,
    sample: int | None = None,
    anew: bool = False,
) -> Certification:
    """Certify that at most `error` of the labels are wrong, with this `confidence`; call it again after each answer.

    The first call draws records for people to check blind. `None` means what the run's design has, or 0.05 and 0.95 in
    a new one; `sample` is the size of its draw. What was fixed by the first call stays, unless `anew` begins another
    design. Makes no call of a model. Raises SetupError.
    """
    return in_loop(acertify(run, error, confidence, column=column, seed=seed, sample=sample, anew=anew))


def certificate_of(run: str | Path | None = None, column: str | None = None) -> dict[str, Any] | None:
    """The certificate that a run was given, as plain values; None without any. Raises SetupError.

    `certified` is false and `void` says why, where labels that it is about have changed since. `text` is a paragraph.
    """
    return store.certificate_of(find_run(run), column)
