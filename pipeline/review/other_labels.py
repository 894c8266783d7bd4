"""Labels to compare a run with: those of another run, or of a file."""

from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

from pipeline.errors import InputError, SetupError, list_names
from pipeline.records import JSON
from pipeline.review.cell_values import is_empty, unescape
from pipeline.review.reviewed_run import KEY, ReviewedRun
from pipeline.review.row_files import read_file_rows
from pipeline.store import Ledger, RunDir
from pipeline.targets import find_run, is_run, looks_like_config

#: Records that are looked at together.
BLOCK = 1_000
#: by key, the values of the label columns that are there
Labels = Mapping[str, Mapping[str, JSON]]


async def load_other_labels(other: str | Path, reviewed_run: ReviewedRun) -> Labels:
    """The labels of another run, or those in a file with the key and a column for a label. Raises SetupError."""
    path = Path(other)
    if is_run(path) or looks_like_config(path):
        return await _labels_of_run(RunDir(find_run(path)), reviewed_run)
    return await _labels_in_file(path, reviewed_run)


async def _labels_of_run(run_dir: RunDir, reviewed_run: ReviewedRun) -> Labels:
    labels: dict[str, Mapping[str, JSON]] = {}
    seq = 0
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        while block := await ledger.labels_after(seq, BLOCK):
            seq = block[-1].seq
            for row in block:
                if row.label is not None and row.rows is None:
                    labels[row.key] = {name: row.label[name] for name in reviewed_run.names if name in row.label}
    if not any(labels.values()):
        raise SetupError(f"{run_dir.path}: has no label column in common with {reviewed_run.run_dir.path}")
    return labels


async def _labels_in_file(path: Path, reviewed_run: ReviewedRun) -> Labels:
    labels: dict[str, Mapping[str, JSON]] = {}
    lines: dict[str, int] = {}
    async with aclosing(read_file_rows(path)) as blocks:
        async for block in blocks:
            for row in block:
                title = key_title(row.values, reviewed_run)
                if title is None:
                    raise InputError(
                        f"{path}: expected a column {reviewed_run.key_title!r} with the keys, and a column for a "
                        f"label; the columns are {list_names(row.values)}"
                    )
                key = unescape(str(row.values[title]))
                values = {
                    name: unescape(value) if isinstance(value, str) else value
                    for name in reviewed_run.names
                    if not is_empty(value := row.values.get(name))
                }
                if labels.get(key, values) != values:
                    raise InputError(f"{path}: lines {lines[key]} and {row.line} label {key!r} differently")
                labels[key], lines[key] = values, row.line
    if not any(labels.values()):
        raise InputError(
            f"{path}: no column is one of the labels {list_names(reviewed_run.names)}, or none is filled in"
        )
    return labels


def key_title(values: Mapping[str, JSON], reviewed_run: ReviewedRun) -> str | None:
    """The title of the column that names a record; None where there is none."""
    return next((title for title in (reviewed_run.key_title, KEY) if title in values), None)
