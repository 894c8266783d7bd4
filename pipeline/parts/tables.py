"""Reads small tables next to the config, such as a file of labels, like inputs but without options of [input]."""

from pathlib import Path

from pipeline.errors import InputError
from pipeline.readers import Source, TextDialect, read_text_head, resolve_sources


def table_source(path: Path, column: str) -> Source:
    """Return the table with a column of this name. Raises InputError.

    The first row of a CSV is its header, and spaces after a delimiter are not part of a cell.
    """
    dialect = TextDialect(None, delimiter_of(path, column), '"', True, "", skip_lines=0, skip_initial_space=True)
    (source,) = resolve_sources(str(path), base=Path(), dialect=dialect)
    return source


def describe_table_error(error: InputError) -> str:
    """Return what is wrong with such a table and what to do. No key of [input] applies to it."""
    message, encoding, _ = str(error).partition("input.encoding")
    if encoding:
        return f"{message.removesuffix('set ').removesuffix(', or ').rstrip(';: ')}. Save it as UTF-8"
    return f"{message} (no keys of [input] are about this file: save it as UTF-8, with commas and a header)"


def plain_name(name: str) -> str:
    """Return a column's name for comparisons."""
    return name.strip().casefold()


def delimiter_of(path: Path, column: str) -> str | None:
    """Return the delimiter in the header; None for JSON, and if the header has no such column."""
    line = next((line for line in read_text_head(path).splitlines() if line.strip()), "")
    for sign in ",;\t|":
        if plain_name(column) in (plain_name(cell.strip(' "')) for cell in line.split(sign)):
            return sign
    return None
