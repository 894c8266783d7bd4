"""Labels handed on, from Python: data to train on, or a table in a database."""

from pathlib import Path
from typing import Any

from pipeline import exports, facts, runner
from pipeline.api.display import Displayable, sync_form, to_displayable
from pipeline.errors import SetupError


class Export(Displayable, facts.Export):
    """What an export came to."""

    _view = "export_lines"


class DataExport(Displayable, facts.DataExport):
    """What an export into a folder came to."""

    _view = "data_lines"


class Baseline(Displayable, facts.Baseline):
    """What a simple classifier makes of the labels."""

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

    `by` is the label field, by default the first one with classes; `text` the field to learn it from, by default those
    of the prompt. `doubts` is how many of the labels that the classifier takes to be the least likely are given; `to`
    is a CSV of those that it would give otherwise, which is kept as a draw for review. Needs `labelpipe[baseline]`.
    Raises SetupError.
    """
    result = await exports.baseline(run, exports.BaselineOptions(by, text, seed, doubts, to))
    return to_displayable(Baseline, result)


async def aexport(
    run: str | Path | None = None, to: str | Path | None = None, *, table: str | None = None, **options: Any
) -> Export | DataExport:
    """Write the labels of a run as data to train on, or make a table in a database hold them.

    `to` is a folder, or an SQLAlchemy URL; without it, the run's [output.sql] is meant. Into a folder go the files
    train, val and test, and `options` are `split` (80, 10, 10), `seed`, `by`, `group`, `near_duplicates` (0.8; None for
    off), `gold`, `where`, `format`, `text`, `chat` and `hf`, as on the command line. Into a database goes
    `table`, which is `labels` unless you name another; its rows are found by the record's key.

    The run may be at work; call it again to bring files or table up to date. Raises SetupError, and StoreError where
    the disk or the database cannot be used.
    """
    if to is not None and "://" not in str(to):
        if table is not None:
            raise SetupError(f"table needs a database, and {to} is not a database URL such as sqlite:///labels.db")
        options.pop("simulated", None)  # simulated labels are exported without being asked for
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
