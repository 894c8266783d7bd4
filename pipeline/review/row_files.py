"""Reads files that a person or another tool has written, row by row, and labels to compare with."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, SetupError, list_names
from pipeline.readers import TextDialect, read_records, resolve_sources
from pipeline.records import JSON
from pipeline.review.cell_values import is_empty, unescape
from pipeline.review.reviewed_run import ReviewedRun
from pipeline.store import Ledger, RunDir
from pipeline.targets import find_run, is_run, looks_like_config
from pipeline.threads import in_daemon

#: How many records are read together.
BLOCK = 1_000
#: By key, the values of the available label columns.
Labels = Mapping[str, Mapping[str, JSON]]


async def load_other_labels(other: str | Path, reviewed_run: ReviewedRun) -> Labels:
    """Return the labels of another run, or of a file with the key and a label column. Raises SetupError."""
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
                title = reviewed_run.key_column(row.values)
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


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row: its values by their titles, and its line in the file."""

    line: int
    values: Mapping[str, JSON]


async def read_file_rows(path: Path) -> AsyncGenerator[list[FileRow], None]:
    """Yield the rows of a file, in blocks. Detects its encoding, delimiter, and line ends.

    Raises InputError for a file or row that cannot be read.
    """
    if not await in_daemon(path.is_file):
        raise InputError(f"{path}: there is no such file")
    sources = await in_daemon(lambda: resolve_sources(path.as_posix(), base=Path(), dialect=TextDialect(header=True)))
    async with aclosing(read_records(sources)) as batches:
        async for records in batches:
            for record in records:
                if record.problem is not None:
                    raise InputError(f"{record.problem.message}. Nothing was imported from the file.")
            yield [FileRow(record.line, record.fields) for record in records]
