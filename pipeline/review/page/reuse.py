"""Saves a reviewed record as an example for the model, or as gold; and reads the guideline."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import LabelpipeError
from pipeline.records import JSON, Outcome
from pipeline.review.page.page_fields import PageField, main_fields
from pipeline.review.reviewed_run import ReviewedRun
from pipeline.store import csv_block, safe_cell
from pipeline.targets import run_settings
from pipeline.terminal import printable

#: The most characters of a file of labels or a prompt that are shown.
GUIDELINE_CHARS = 100_000
#: Larger files are not examples or gold that a person maintains, and are not read.
FILE_BYTES_MOST = 50_000_000


class CannotAddError(ValueError):
    """A record that cannot be added. The text explains why."""


@dataclass(frozen=True, slots=True)
class ReuseFiles:
    """The files for a run's examples and gold. `is_set`: the config names the file of examples.

    `config` is None if the run's config cannot be read; `why` explains it.
    """

    examples: Path
    gold: Path
    is_set: bool
    config: Path | None
    files: Sequence[Path] = ()
    why: str = ""


def reuse_files_of(folder: Path) -> ReuseFiles:
    """Return the files that the config names, else files in its folder or, without a config, in the run folder."""
    try:
        with run_settings(folder) as settings:
            config = settings.config_path
            beside = folder if config is None else config.absolute().parent
            examples_file = settings.task.examples_file
            examples = beside / "examples.jsonl" if examples_file is None else settings.find(examples_file).absolute()
            files = [settings.find(one).absolute() for one in _label_files(settings.task.labels)]
            return ReuseFiles(
                examples, beside / "gold.csv", examples_file is not None, config and config.absolute(), files
            )
    except LabelpipeError as error:
        return ReuseFiles(folder / "examples.jsonl", folder / "gold.csv", False, None, (), str(error))


def _label_files(labels: Any) -> list[str]:
    """Return the files of labels that [task.labels] names."""
    forms = labels.values() if isinstance(labels, Mapping) else ()
    named = [one["any_of"] if isinstance(one, Mapping) and "any_of" in one else one for one in forms]
    return [one for one in named if isinstance(one, str) and Path(one).suffix in (".csv", ".tsv", ".jsonl")]


# -- examples ----------------------------------------------------------------------------------------------------------


def add_example(
    files: ReuseFiles, reviewed_run: ReviewedRun, outcome: Outcome, wanted: Sequence[str], functions: Sequence[str]
) -> str:
    """Add the record with its label to the file of examples; return a message. Raises CannotAddError.

    `wanted` are the fields that the prompt names, () for all; `functions` are the names of the tools.
    """
    label = {name: value for name, value in (outcome.label or {}).items() if name in reviewed_run.names}
    if not label:
        raise CannotAddError("The record has no label, so it cannot be an example.")
    if len(functions) > 1 or outcome.rows is not None:
        raise CannotAddError(
            "A task with several tools, or with several rows a record, needs examples written by hand."
        )
    fields = {name: value for name, value in outcome.record.fields.items() if not wanted or name in wanted}
    if "label" in fields:
        raise CannotAddError("The records have a field that is called label, which an example cannot have.")
    line = codec.dumps(codec.clean({**fields, "label": label}))
    before = _read(files.examples)
    if line in before.splitlines():
        return f"It is already an example, in {files.examples}."
    _append(files.examples, before, line + b"\n")
    message = f"Added to {files.examples}."
    if not files.is_set:
        message += (
            f' The run does not use this file yet: set task.examples_file = "{files.examples.name}" in the config.'
        )
    return (
        f"{message} An example changes the prompt, so the next run asks what becomes of the labels that there are. "
        "The record counts no more as gold."
    )


# -- gold --------------------------------------------------------------------------------------------------------------


def add_gold(files: ReuseFiles, reviewed_run: ReviewedRun, outcome: Outcome, fields: Sequence[PageField]) -> str:
    """Add the record's key and label to the gold file. Raises CannotAddError if the file has another format."""
    label = outcome.label or {}
    names = [field.name for field in main_fields(fields)]
    if not any(name in label for name in names):
        raise CannotAddError("The record has no label, so it cannot be gold.")
    texts = [outcome.record.key, *(value for name in names if isinstance(value := label.get(name), str))]
    if odd := [text for text in texts if safe_cell(text) != text]:
        # With an apostrophe in front it would be another key, or another label.
        raise CannotAddError(
            f"A spreadsheet would run {odd[0]!r} as a formula, so it was not added. Add it to the file by hand."
        )
    before = _read(files.gold)
    key_title, titles, known = _gold_titles(files, reviewed_run, before, names)
    values: dict[str, JSON] = {key_title: outcome.record.key, **{name: label.get(name) for name in names}}
    row = csv_block([[values.get(title) for title in titles]], escape_formulas=False)
    if (old := known.get(outcome.record.key)) is not None:
        new = next(csv.reader(io.StringIO(row.decode(), newline="")))
        if old == new:
            return f"It is already gold, in {files.gold}."
        raise CannotAddError(f"{files.gold} has this record with another label. Change it there.")
    head = b"" if before else csv_block([titles], escape_formulas=False)
    _append(files.gold, before, head + row)
    return (
        f"Added to {files.gold}. To measure with it: labelpipe evaluate {reviewed_run.run_dir.path} --gold {files.gold}"
    )


def _gold_titles(
    files: ReuseFiles, reviewed_run: ReviewedRun, before: bytes, names: Sequence[str]
) -> tuple[str, list[str], dict[str, list[str]]]:
    """Return the title of the keys, all titles, and the existing rows by their keys. Raises CannotAddError."""
    if not before:
        return reviewed_run.key_title, [reviewed_run.key_title, *names], {}
    try:
        titles, *rows = csv.reader(io.StringIO(before.decode("utf-8-sig"), newline=""))
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise CannotAddError(f"{files.gold} cannot be read as CSV in UTF-8 ({error}), so nothing was added.") from error
    key_title = reviewed_run.key_column(titles)
    if key_title is None or not set(names) & set(titles):
        raise CannotAddError(
            f"{files.gold} has the columns {', '.join(titles)}. Expected {reviewed_run.key_title} and a label "
            f"({', '.join(names)}), so nothing was added."
        )
    at = titles.index(key_title)
    return key_title, titles, {row[at]: row for row in rows if len(row) == len(titles)}


# -- the guideline -----------------------------------------------------------------------------------------------------


def guideline_of(files: ReuseFiles, fingerprint: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what the model and people read about the labels: the files of labels, then the prompt as the run has it.

    The config itself is only named: it may contain secrets.
    """
    parts = [_part(path.name, f"{path}", _text(path)) for path in files.files]
    where = f"config: {files.config}" if files.config else "as the run has it"
    for title, name in (("System prompt", "system"), ("Prompt", "prompt")):
        if isinstance(text := fingerprint.get(name), str) and text:
            parts.append(_part(title, where, text))
    for tool in fingerprint.get("tools") or ():
        function = tool.get("function") or {}
        for name, schema in ((function.get("parameters") or {}).get("properties") or {}).items():
            if isinstance(schema, Mapping) and isinstance(text := schema.get("description"), str):
                parts.append(_part(f"Label {name}", where, text))
    return parts


def _part(title: str, where: str, text: str) -> dict[str, str]:
    return {"title": printable(title), "where": printable(where), "text": printable(text[:GUIDELINE_CHARS])}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        return f"cannot be read: {error.strerror}"


# -- files -------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > FILE_BYTES_MOST:
            raise CannotAddError(f"{path} is larger than {FILE_BYTES_MOST:,} bytes, so nothing was added.")
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise CannotAddError(f"{path} cannot be read: {error.strerror}") from error


def _append(path: Path, before: bytes, data: bytes) -> None:
    """Append the bytes on a line of their own, in one write: the existing content stays whatever happens."""
    gap = b"" if not before or before.endswith(b"\n") else b"\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, gap + data)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise CannotAddError(f"{path} cannot be written: {error.strerror}") from error
