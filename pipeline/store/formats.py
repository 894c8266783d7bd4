"""Writes rows as bytes: CSV and JSON Lines. An outcome gives the same bytes whether fresh or from the ledger."""

import csv
import math
from collections.abc import Iterable, Sequence

from pipeline import codec
from pipeline.records import JSON

#: A spreadsheet takes a text that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class _Lines(list[str]):
    """The target of a csv.writer: one text per row, without its line end.

    The writer's line end is CR LF, because it quotes only the characters of the line end. Before Python 3.13, a bare CR
    in a cell would otherwise stay unquoted, and the file could not be read back.
    """

    def write(self, row: str) -> None:
        self.append(row[:-2])


def csv_block(rows: Iterable[Sequence[JSON]], *, escape_formulas: bool = False) -> bytes:
    """Return RFC 4180 rows in UTF-8, each ending with LF. A lone surrogate becomes U+FFFD."""
    lines = _Lines()
    to_cell = safe_cell if escape_formulas else cell
    csv.writer(lines, lineterminator="\r\n").writerows([to_cell(value) for value in row] for row in rows)
    return codec.clean_text("".join(f"{line}\n" for line in lines)).encode()


def json_block(titles: Sequence[str], rows: Iterable[Sequence[JSON]]) -> bytes:
    """Return JSON Lines in UTF-8: one object per row, with all titles. A lone surrogate becomes U+FFFD."""
    return b"".join(_json_line(dict(zip(titles, row, strict=True))) for row in rows)


def cell(value: JSON) -> str:
    """Return the value as a CSV cell: empty for None, true or false, text and numbers as they are, otherwise JSON."""
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if value is None:
        return ""
    if kind is int:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is float:
        return repr(value) if math.isfinite(value) else ""
    if kind is codec.Digits:
        return str(value)
    # Write the value as the ledger would return it, so that both give the same bytes.
    plain = codec.loads_exact(codec.dumps(value).decode())
    return codec.dumps(plain).decode() if isinstance(plain, (dict, list)) else cell(plain)


def safe_cell(value: JSON) -> str:
    """Do the same, but put an apostrophe before a text that a spreadsheet would take for a formula."""
    text = cell(value)
    return f"'{text}" if text.startswith(_FORMULA) and not isinstance(value, (int, float)) else text


def _json_line(row: dict[str, JSON]) -> bytes:
    line = codec.dumps(row)
    if b"\\ud" in line:
        line = codec.dumps(codec.clean(codec.loads_exact(line.decode())))
    return line + b"\n"
