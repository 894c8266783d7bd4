"""Measures labels from Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import measure, store
from pipeline.api.display import Config, DisplayableFacts, settings_of, sync_form
from pipeline.targets import find_run


@dataclass(frozen=True, slots=True, repr=False)
class _Figures(DisplayableFacts):
    """The result of a measurement. `facts` holds the plain values that the command prints with `--json`."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """The figures of each label field."""
        values: Mapping[str, Any] = self.facts["columns"]
        return values


class Evaluation(_Figures):
    """Labels compared with gold: `evaluation.columns["topic"]["accuracy"]`."""

    __slots__ = ()
    _view = "evaluation_lines"


class Comparison(_Figures):
    """Two runs compared: `comparison.columns["topic"]["agreement"]`."""

    __slots__ = ()
    _view = "comparison_lines"


class Trial(Comparison):
    """A config tried on some records of a run. `facts["tried"]` is what the trial took; the old run is `a`."""

    __slots__ = ()
    _view = "trial_lines"


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
    """Compare the labels of a run with gold: a file, or `column`, a field of its input. Makes no call.

    `field` is the label field that `column` belongs to, if its name does not show it. `disagreements` is a CSV for the
    records that differ. `confidence` names the label that holds the model's confidence; `ordered` names the labels
    whose values have an order. `sets` are input settings for the gold file (`"input.encoding=cp1252"`). Keys in the
    file `without` are left out. Raises SetupError.
    """
    options = measure.EvaluateOptions(
        _texts(column), _texts(field), disagreements, confidence, _texts(ordered), tuple(sets), without=without
    )
    return Evaluation(await measure.evaluate(run, gold, options))


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
    """Compare the labels of two runs on the same records, and with gold if there is any. Makes no call.

    Gold is given as for `evaluate`; a `column` without a file is a field of the first run's input. `differences` is a
    CSV for the records that differ. Raises SetupError.
    """
    options = measure.CompareOptions(_texts(column), _texts(field), differences, _texts(ordered), tuple(sets))
    return Comparison(await measure.compare(a, b, gold, options))


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
    """Label `n` records of the run `against` with another config and compare labels. Makes calls. Raises SetupError.

    The answers are saved in the config's run folder, so that a run there does not pay for them again. If that is the
    old run's folder, they are saved next to it, in a folder whose name ends in `-try`. After a change of the config,
    `relabel` tries the new one in the same folder.
    """
    options = measure.TryOptions(n, seed, relabel, differences, quiet)
    return Trial(await measure.try_config(settings_of(config), find_run(against), options))


@dataclass(frozen=True, slots=True, repr=False)
class Certification(DisplayableFacts):
    """The state of a label field's certificate. `facts` holds all that `labelpipe certify --json` prints."""

    @property
    def certified(self) -> bool:
        """Whether the labels are certified."""
        return bool(self.facts["certified"])

    @property
    def bound(self) -> float:
        """The highest share of wrong labels at this confidence; before certification, in the whole file as it is."""
        return float(self.facts["bound"])

    @property
    def check(self) -> int:
        """How many records people have to check now."""
        return int(self.facts["check"])

    @property
    def records(self) -> Sequence[str]:
        """The keys of the records that people have to check now."""
        values: Sequence[str] = self.facts["records"]
        return values

    _view = "certify_lines"


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
    """Certify that at most `error` of the labels are wrong, with this `confidence`. Call it again after people answer.

    The first call draws records for people to check blind. `None` stands for the value in the run's design; a new
    design has 0.05 and 0.95. `sample` is the size of its draw. `score` is the column with the certainty of each label,
    by default `agreement`, then `confidence`. The first call fixes these values until `anew` starts another design.
    Does not call the model. Raises SetupError.
    """
    options = measure.CertifyOptions(error, confidence, column, seed, sample, score, anew)
    return Certification(await measure.certify(run, options))


@dataclass(frozen=True, slots=True, repr=False)
class ClassShares(DisplayableFacts):
    """Shares of classes, raw and corrected. `facts` holds all that `labelpipe certify --shares --json` prints.

    `groups` are those of `by`, or one group of all records. The `classes` of a group have for each class `raw`, and
    `corrected` with its interval from `low` to `high`, all from 0 to 1.
    """

    @property
    def groups(self) -> Sequence[Mapping[str, Any]]:
        """The shares in each group."""
        values: Sequence[Mapping[str, Any]] = self.facts["groups"]
        return values

    _view = "shares_lines"


async def aclass_shares(
    run: str | Path | None = None,
    *,
    column: str | None = None,
    by: str | None = None,
    confidence: float = 0.95,
    pseudo: str | Path | None = None,
) -> ClassShares:
    """Estimate the share of each class with its interval, corrected by blind answers to a random draw.

    `by` is a field of the records or labels that splits them into groups. `pseudo` is a CSV for the pseudo-outcome of
    each label, for regressions. Raises SetupError.
    """
    return ClassShares(await measure.shares(run, measure.SharesOptions(column, by, confidence, pseudo)))


def certificate_of(run: str | Path | None = None, column: str | None = None) -> dict[str, Any] | None:
    """Return the certificate of a run as plain values; None if it has none. Raises SetupError.

    If the certified labels have changed since, `certified` is false and `void` is the reason. `text` is a paragraph.
    """
    return store.certificate_of(find_run(run), column)


evaluate = sync_form(aevaluate)
compare = sync_form(acompare)
try_config = sync_form(atry_config)
certify = sync_form(acertify)
class_shares = sync_form(aclass_shares)
