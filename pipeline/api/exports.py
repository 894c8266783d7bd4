"""Exports labels from Python: as training data, or to a database table."""

from pathlib import Path
from typing import Any

from pipeline import exports, facts, runner
from pipeline.api.display import Displayable, sync_form, to_displayable
from pipeline.errors import SetupError


class Export(Displayable, facts.Export):
    """The result of an export."""

    _view = "export_lines"


class DataExport(Displayable, facts.DataExport):
    """The result of an export to a folder."""

    _view = "data_lines"


class Baseline(Displayable, facts.Baseline):
    """How well a simple classifier learns the labels."""

    _view = "baseline_lines"


async def abaseline(
    run: str | Path | None = None,
    *,
    by: str | None = None,
    text: str | None = None,
    seed: int = 0,
    doubts: int = 100,
    to: str | Path | None = None,
) -> Baseline:
    """Cross-validate TF-IDF and logistic regression on the labels of a run: can they be learned? Makes no call.

    `by` is the label field, by default the first one with classes. `text` is the field to learn it from, by default
    those of the prompt. `doubts` is how many labels to return of those that the classifier finds least likely. `to` is
    a CSV for the labels that it would give differently; they are saved as a draw for review. Needs
    `labelpipe[baseline]`. Raises SetupError.
    """
    result = await exports.baseline(run, exports.BaselineOptions(by, text, seed, doubts, to))
    return to_displayable(Baseline, result)


async def aexport(
    run: str | Path | None = None, to: str | Path | None = None, *, table: str | None = None, **options: Any
) -> Export | DataExport:
    """Export the labels of a run as training data or to a database table.

    `to` is a folder or an SQLAlchemy URL; the default is the run's [output.sql]. A folder receives the files train,
    val, and test, and `options` are `split` (80, 10, 10), `seed`, `by`, `group`, `near_duplicates` (0.8; None turns it
    off), `gold`, `where`, `format`, `text`, `chat`, and `hf`, as on the command line. A database receives `table`
    (default: `labels`), whose rows are identified by the record's key.

    The run may still be active; call the function again to update the files or the table. Raises SetupError, or
    StoreError if the disk or the database cannot be used.
    """
    if to is not None and "://" not in str(to):
        if table is not None:
            raise SetupError(f"table needs a database, and {to} is not a database URL such as sqlite:///labels.db")
        options.pop("simulated", None)  # simulated labels need no permission here
        if isinstance(split := options.get("split"), str):
            options["split"] = exports.parse_split(split)
        if isinstance(near := options.get("near_duplicates"), str):
            options["near_duplicates"] = exports.parse_similarity(near)
        result = await exports.export_data(run, to, exports.DataOptions(**options))
        return to_displayable(DataExport, result)
    if options:
        raise SetupError(f"{next(iter(options))} needs an export into a folder, such as to='data/'")
    return to_displayable(Export, await runner.export(run, None if to is None else str(to), table=table))


baseline = sync_form(abaseline)
export = sync_form(aexport)
