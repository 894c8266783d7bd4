"""Renames labels in the user's own files: the config, a file of labels, and a file of examples."""

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import codec
from pipeline.errors import ConfigError
from pipeline.labelfields import Rename, json_identity, new_names, renamer
from pipeline.parts.labels import LABEL, label_fields, label_file
from pipeline.parts.tables import delimiter_of, plain_name
from pipeline.settings import Settings, label_field, renamed_config, renamed_example

_TABLES, _LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")
_BY_HAND = "put the new names into it yourself, then run the same command again"


@dataclass(frozen=True, slots=True)
class FileEdit:
    """A file that a rename changes; `kind` is config, labels, or examples."""

    path: Path
    kind: str
    before: bytes
    after: bytes


def file_edits(settings: Settings, rename: Rename) -> list[FileEdit]:
    """Return the edits of the user's files, the config last. Raises ConfigError for what cannot be edited.

    A file that already has the new names, because the user put them there, gets no edit.
    """
    form = (settings.task.labels or {})[rename.column]
    files: list[tuple[Path, str]] = []
    field = label_field(form)
    if field.file is not None:
        files.append((label_file(settings, field.file), "labels"))
    if settings.task.examples_file is not None:
        files.append((settings.find(settings.task.examples_file), "examples"))
    if settings.config_path is not None:
        _refuse_elsewhere(settings, rename)
        files.append((settings.config_path, "config"))
    edits = [edit_of(path, kind, rename) for path, kind in files]
    return [edit for edit in edits if edit.after != edit.before]


def _refuse_elsewhere(settings: Settings, rename: Rename) -> None:
    """Raise ConfigError if the labels or the examples were not set in the config file."""
    origins = settings.origins()
    for key in (f"task.labels.{rename.column}", "task.labels", "task.examples"):
        origin = origins.get(key)
        if origin is not None and origin.kind != "file":
            raise ConfigError(f"{key} is set by {origin}, not by the config: {_BY_HAND}")


def edit_of(path: Path, kind: str, rename: Rename) -> FileEdit:
    """Return the edit of one file. Raises ConfigError."""
    try:
        before = path.read_bytes()
        text = before.decode()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8, so it is not edited: {_BY_HAND}") from error
    mark = "\ufeff" if before.startswith(codecs.BOM_UTF8) else ""
    after = mark + _change_of(path, kind)(text.removeprefix(mark), path, rename)
    return FileEdit(path, kind, before, after.encode())


def _change_of(path: Path, kind: str) -> Callable[[str, Path, Rename], str]:
    if kind == "config":
        return lambda text, _path, rename: renamed_config(text, rename)
    if kind == "examples":
        return _examples
    if path.suffix.lower() in _TABLES:
        return _table
    if path.suffix.lower() in _LINES:
        return _lines
    raise ConfigError(f"{path}: only a CSV, TSV or JSONL file of labels can be edited here: {_BY_HAND}")


def _table(text: str, path: Path, rename: Rename) -> str:
    """Edit a table of labels. The rows of other labels keep every byte."""
    rows = list(_rows(text, delimiter_of(path, LABEL) or ","))
    place = [plain_name(name) for name in rows[0][1]].index(LABEL)
    values = [cells[place].strip() if len(cells) > place else "" for _, cells in rows]
    names = new_names(values, rename.pairs)
    lines_out = [rows[0][0]]
    for (raw, cells), value in zip(rows[1:], values[1:], strict=True):
        new = names.get(json_identity(value), value)
        if new is not None:
            lines_out.append(
                raw if new == value else _row(raw, cells, place, str(new), delimiter_of(path, LABEL) or ",")
            )
    return "".join(lines_out)


def _rows(text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each row's text and cells."""
    lines = io.StringIO(text, newline="").readlines()
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    before = 0
    for cells in reader:
        yield "".join(lines[before : reader.line_num]), cells
        before = reader.line_num


def _row(raw: str, cells: Sequence[str], place: int, value: str, delimiter: str) -> str:
    buffer = io.StringIO()
    ending = raw[len(raw.rstrip("\r\n")) :]
    csv.writer(buffer, delimiter=delimiter, lineterminator=ending).writerow(
        [*cells[:place], value, *cells[place + 1 :]]
    )
    return buffer.getvalue()


def _lines(text: str, path: Path, rename: Rename) -> str:
    """Edit a file of labels with a JSON object per line."""
    lines = io.StringIO(text, newline="").readlines()
    objects = [codec.loads(line) if line.strip() else {} for line in lines]
    names = new_names([one.get(LABEL) for one in objects], rename.pairs)
    lines_out = []
    for line, one in zip(lines, objects, strict=True):
        new = names.get(json_identity(one.get(LABEL)), one.get(LABEL))
        if new is None and one:
            continue
        lines_out.append(line if new == one.get(LABEL) else _json_line({**one, LABEL: new}, line))
    return "".join(lines_out)


def _examples(text: str, path: Path, rename: Rename) -> str:
    """Edit a file of examples with a JSON object per line."""
    new, lines_out = renamer(rename.pairs), []
    for line in io.StringIO(text, newline=""):
        before = codec.loads_loosely(line.encode()) if line.strip() else None
        after = renamed_example(before, rename.column, new)
        lines_out.append(line if after == before else _json_line(after, line))
    return "".join(lines_out)


def _json_line(value: object, line: str) -> str:
    return json.dumps(value, ensure_ascii=False) + line[len(line.rstrip("\r\n")) :]


def renamed_pairs(settings: Settings, column: str, pairs: Sequence[tuple[object, object]]) -> Rename:
    """Return the rename with the task's own labels, because a text may mean a number. Raises ConfigError."""
    fields = label_fields(settings)
    field = fields.get(column)
    if field is None or field.kind not in ("one", "several"):
        there = ", ".join(name for name, one in fields.items() if one.kind in ("one", "several"))
        why = "has no labels with names" if field is not None else "is no field of task.labels"
        raise ConfigError(f"{column!r} {why}; there are: {there or 'none'}")
    known = {str(value).lower() if isinstance(value, bool) else str(value): value for value in field.values}
    numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in field.values)

    def as_label(value: object) -> object:
        if not isinstance(value, str) or value in known:
            return known.get(str(value), value)
        return int(value) if numbers and value.lstrip("+-").isdigit() else value

    return Rename(column, tuple((as_label(old), as_label(new)) for old, new in pairs))  # type: ignore[misc]
