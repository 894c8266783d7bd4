"""How good labels are, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import measure, show
from pipeline.api.shown import Shown
from pipeline.runner import in_loop


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation(Shown):
    """Labels compared with gold. `facts` is all of it, as `labelpipe evaluate --json` prints it.

    `columns` has the figures of each label field: `evaluation.columns["topic"]["accuracy"]`.
    """

    facts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]

    @property
    def columns(self) -> Mapping[str, Any]:
        """The figures of each label field."""
        found: Mapping[str, Any] = self.facts["columns"]
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(self.facts)

    def _lines(self) -> Sequence[str]:
        return show.evaluation_lines(self.facts)


@dataclass(frozen=True, slots=True, repr=False)
class Comparison(Shown):
    """Two runs side by side. `facts` is all of it, as `labelpipe compare --json` prints it.

    `columns` has the figures of each label field: `comparison.columns["topic"]["agreement"]`.
    """

    facts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]

    @property
    def columns(self) -> Mapping[str, Any]:
        """The figures of each label field."""
        found: Mapping[str, Any] = self.facts["columns"]
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(self.facts)

    def _lines(self) -> Sequence[str]:
        return show.comparison_lines(self.facts)


def _texts(one: str | Sequence[str] | None) -> Sequence[str]:
    return () if one is None else (one,) if isinstance(one, str) else tuple(one)


async def aevaluate(
    run: str | Path | None = None,
    gold: str | Path | None = None,
    *,
    column: str | Sequence[str] | None = None,
    field: str | Sequence[str] | None = None,
    disagreements: str | Path | None = None,
    confidence: str | None = None,
    ordered: str | Sequence[str] | None = None,
    sets: Sequence[str] = (),
) -> Evaluation:
    """`evaluate`, for a program that has an event loop."""
    options = measure.EvaluateOptions(
        _texts(column), _texts(field), disagreements, confidence, _texts(ordered), tuple(sets)
    )
    return Evaluation(await measure.evaluate(run, gold, options))


def evaluate(
    run: str | Path | None = None,
    gold: str | Path | None = None,
    *,
    column: str | Sequence[str] | None = None,
    field: str | Sequence[str] | None = None,
    disagreements: str | Path | None = None,
    confidence: str | None = None,
    ordered: str | Sequence[str] | None = None,
    sets: Sequence[str] = (),
) -> Evaluation:
    """Compare the labels of a run with gold: a file, or `column`, a field of its input. Makes no call.

    `field` is the label field that `column` is about, where its name does not tell. Records that differ are written
    to the CSV `disagreements`. `confidence` names the label that says how sure the model is, `ordered` labels whose
    values have an order; `sets` say how the gold file is read (`"input.encoding=cp1252"`). Raises SetupError.
    """
    return in_loop(
        aevaluate(
            run,
            gold,
            column=column,
            field=field,
            disagreements=disagreements,
            confidence=confidence,
            ordered=ordered,
            sets=sets,
        )
    )


async def acompare(
    a: str | Path,
    b: str | Path,
    gold: str | Path | None = None,
    *,
    column: str | Sequence[str] | None = None,
    field: str | Sequence[str] | None = None,
    differences: str | Path | None = None,
    ordered: str | Sequence[str] | None = None,
    sets: Sequence[str] = (),
) -> Comparison:
    """`compare`, for a program that has an event loop."""
    options = measure.CompareOptions(_texts(column), _texts(field), differences, _texts(ordered), tuple(sets))
    return Comparison(await measure.compare(a, b, gold, options))


def compare(
    a: str | Path,
    b: str | Path,
    gold: str | Path | None = None,
    *,
    column: str | Sequence[str] | None = None,
    field: str | Sequence[str] | None = None,
    differences: str | Path | None = None,
    ordered: str | Sequence[str] | None = None,
    sets: Sequence[str] = (),
) -> Comparison:
    """Compare the labels of two runs on the same records, and with gold where there is any. Makes no call.

    Gold is given as for `evaluate`; a `column` without a file is a field of the first run's input. Records that differ
    are written to the CSV `differences`. Raises SetupError.
    """
    return in_loop(
        acompare(a, b, gold, column=column, field=field, differences=differences, ordered=ordered, sets=sets)
    )
