"""Small tables beside the config, such as a file of labels: read as an input is, but nothing about them is asked."""

from __future__ import annotations

from pathlib import Path

from pipeline.readers import Dialect, Source, resolve_sources

#: So much of a file is looked at to find what separates its columns.
_HEAD_BYTES = 4_096


def table_source(path: Path, column: str) -> Source:
    """The table, one of whose columns has this name. Raises InputError.

    The first row of a CSV names its columns, and spaces after a delimiter are no part of a cell.
    """
    dialect = Dialect(None, delimiter_of(path, column), '"', True, "", skip_lines=0, skip_initial_space=True)
    (source,) = resolve_sources(str(path), base=Path(), dialect=dialect)
    return source


def plain_name(name: str) -> str:
    """The name of a column as it is compared."""
    return name.strip().casefold()


def delimiter_of(path: Path, column: str) -> str | None:
    """What separates the columns, by the header; None for JSON, and where the header has no such column."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).decode("utf-8-sig", "replace")
    line = next((line for line in head.splitlines() if line.strip()), "")
    for sign in ",;\t|":
        if plain_name(column) in (plain_name(cell.strip(' "')) for cell in line.split(sign)):
            return sign
    return None
