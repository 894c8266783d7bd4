"""How good labels are, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import measure, show
from pipeline.api.configs import Config, settings_of
from pipeline.api.shown import ShownFacts
from pipeline.runner import in_loop
from pipeline.targets import find_run


@dataclass(frozen=True, slots=True, repr=False)
class _Figures(ShownFacts):
    """All that was found, as plain values. `facts` is what the command prints with `--json`."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """The figures of each label field."""
        found: Mapping[str, Any] = self.facts["columns"]
        return found


class Evaluation(_Figures):
    """Labels compared with gold: `evaluation.columns["topic"]["accuracy"]`."""

    __slots__ = ()

    def _lines(self) -> Sequence[str]:
        return show.evaluation_lines(self.facts)


class Comparison(_Figures):
    """Two runs side by side: `comparison.columns["topic"]["agreement"]`."""

    __slots__ = ()

    def _lines(self) -> Sequence[str]:
        return show.comparison_lines(self.facts)


class Trial(Comparison):
    """A config tried on some records of a run. `facts["tried"]` says what that took; the old run is `a`."""

    __slots__ = ()

    def _lines(self) -> Sequence[str]:
        return show.trial_lines(self.facts)


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
    without: str | Path | None = None,
) -> Evaluation:
    """`evaluate`, for a program that has an event loop."""
    options = measure.EvaluateOptions(
        _texts(column), _texts(field), disagreements, confidence, _texts(ordered), tuple(sets), without=without
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
    without: str | Path | None = None,
) -> Evaluation:
    """Compare the labels of a run with gold: a file, or `column`, a field of its input. Makes no call.

    `field` is the label field that `column` is about, where its name does not tell. Records that differ are written
    to the CSV `disagreements`. `confidence` names the label that says how sure the model is, `ordered` labels whose
    values have an order; `sets` say how the gold file is read (`"input.encoding=cp1252"`). The keys in the file
    `without` are left out. Raises SetupError.
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
            without=without,
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


async def atry_config(
    config: Config,
    against: str | Path,
    n: int = 50,
    *,
    seed: int = 0,
    relabel: bool = False,
    differences: str | Path | None = None,
    quiet: bool = False,
) -> Trial:
    """`try_config`, for a program that has an event loop."""
    options = measure.TryOptions(n, seed, relabel, differences, quiet)
    return Trial(await measure.try_config(settings_of(config), find_run(against), options))


def try_config(
    config: Config,
    against: str | Path,
    n: int = 50,
    *,
    seed: int = 0,
    relabel: bool = False,
    differences: str | Path | None = None,
    quiet: bool = False,
) -> Trial:
    """Label `n` records of the run `against` with another config, and compare. This makes calls. Raises SetupError.

    The answers are kept in the config's run folder or, where that is the old run's, in one beside it with `-try` at
    the end of its name: a run there does not pay for them again. After a change of the config, `relabel` tries the new
    one in the same folder.
    """
    return in_loop(atry_config(config, against, n, seed=seed, relabel=relabel, differences=differences, quiet=quiet))
