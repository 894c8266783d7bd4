"""Detects how a table of text is written: its delimiter, its quotes and escapes, and whether it has a header."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

from pipeline.errors import InputError
from pipeline.readers.headers import MIN_SHARE, find_header, format_row, looks_like_a_record
from pipeline.readers.stray_quotes import LOOK_ROWS, StrayQuoteDetector, is_quoted_behind_space

LOOK_BYTES = 64 * 1024  #: How much of a text is read to detect its layout.

#: Common delimiters -> their names in messages.
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
#: Delimiters that are so rare that the user must confirm them.
_RARE = ("~", "^", ":", "\x01", "\x1f", "\u00a6", "\u00a7")
#: Excel's first line that names the delimiter; it is not a record.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?')


@dataclass(frozen=True, slots=True)
class TextDialect:
    """How the user says a text is written. None is detected from the beginning of the text.

    `quote` and `escape` are one character, or empty if there is none. `header` is True if the first row names the
    columns, False if there are no names, or the names themselves. `records` is the member of a JSON object, or its
    dotted path, that holds the list of records; empty if the object is one record. `skip_lines` lines before the table
    are not part of it. With `skip_initial_space`, spaces after a delimiter, and between a closing quote and a
    delimiter, are not part of the cell.
    """

    encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    header: bool | tuple[str, ...] | None = None
    escape: str | None = None
    records: str | None = None
    skip_lines: int | None = None
    skip_initial_space: bool | None = None
    format_is_explicit: bool = False


AUTO_DIALECT = TextDialect()
NULL = "\ud800"  #: Replaces the mark of an empty cell from MySQL and Hive. No text can contain it.


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is split into cells."""

    delimiter: str
    quote: str
    escape: str = ""
    skip_initial_space: bool = False

    @property
    def form(self) -> dict[str, Any]:
        """The arguments of the standard library's parser."""
        return {
            "delimiter": self.delimiter,
            "quotechar": self.quote or None,
            "quoting": csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            "escapechar": self.escape or None,
            "skipinitialspace": self.skip_initial_space,
        }

    def lines(self, lines: Iterable[str]) -> Iterable[str]:
        """Return the lines for that parser, which would drop any escape character, even one that is plain text."""
        if not self.escape:
            return self._strip_after_quotes(lines) if self.skip_initial_space and self.quote else lines
        escapable = "".join(map(re.escape, (self.escape, self.quote, self.delimiter, "\r", "\n", "N")))
        alone = re.compile(f"{re.escape(self.escape)}([{escapable}]?)")

        def plain(match: re.Match[str]) -> str:
            return {"": self.escape * 2, "N": NULL}.get(match[1], match[0])

        return (alone.sub(plain, line) if self.escape in line else line for line in lines)

    def _strip_after_quotes(self, lines: Iterable[str]) -> Iterator[str]:
        """Remove the spaces between a closing quote and the delimiter, which the parser rejects."""
        quotes = 0  # the number so far; after an even number, the position is outside of quotes
        for line in lines:
            parts = line.split(self.quote)
            for at, part in enumerate(parts[1:], 1):
                rest = part.lstrip(" ")
                ends = rest[0] in (self.delimiter, "\r", "\n") if rest else at == len(parts) - 1
                if ends and (quotes + at) % 2 == 0:
                    parts[at] = rest
            quotes += len(parts) - 1
            yield self.quote.join(parts)

    def restore_nulls(self, cells: list[str]) -> list[str]:
        """Return the cells of such lines, with NULL as an empty cell, or as the original text within one."""
        if not self.escape:
            return cells
        return ["" if cell == NULL else cell.replace(NULL, f"{self.escape}N") for cell in cells]

    def cells(self, lines: Iterable[str], *, strict: bool = False) -> Any:
        """Return a reader of the standard library, which counts the lines that it has read."""
        return csv.reader(self.lines(lines), strict=strict, **self.form)


def declared_separator(line: str) -> str | None:
    """Return the delimiter that Excel's first line names; None if it is another line."""
    match = _SEPARATOR_LINE.fullmatch(line)
    return match[1] if match else None


def detect_layout(head: str, dialect: TextDialect, *, usual: str, whole: bool, name: str) -> Layout:
    """Return the layout of a table that begins with `head`; if `whole`, this is all of it.

    `usual` is the default delimiter. Raises InputError, which names the key to set, if several layouts fit or if the
    first row is hardly a header.
    """
    lines = list(io.StringIO(head, newline=""))  # str.splitlines would also split at U+2028 and others
    if not whole and len(lines) > 1:
        del lines[-1]
    declared = declared_separator(lines[0]) if lines else None
    skipped = max(dialect.skip_lines or 0, 1 if declared else 0)
    lines = lines[skipped:]
    delimiter = dialect.delimiter or declared or _detect_delimiter(lines, usual, name, dialect.escape)
    quote = _detect_quote(lines, delimiter) if dialect.quote is None else dialect.quote
    layout = Layout(delimiter, quote, dialect.escape or "", dialect.skip_initial_space or False)
    if dialect.header is None and dialect.skip_lines != 0:
        _refuse_title(lines, layout, skipped, name, sure=dialect.delimiter is not None or declared is not None)
    if dialect.escape is None:
        layout = _detect_escape(lines, layout, dialect, whole=whole, name=name)
    if dialect.skip_initial_space is None and layout.quote:
        layout = _detect_spaces(lines, layout, whole=whole, name=name)
    if dialect.quote is None and layout.quote:
        _refuse_merged(lines, layout, name)
    rows = list(islice(_cells(lines, layout), LOOK_ROWS))
    if dialect.header is None and looks_like_a_record(rows):
        raise InputError(
            f"{name}: its first row ({format_row(rows[0])}) looks like a record, not like column names; "
            "set input.header = false (they are then column_1, column_2, ...), a list of names, or true if these are "
            "the names"
        )
    return layout


def _cells(lines: Sequence[str], layout: Layout) -> Iterator[list[str]]:
    """Yield the rows of cells up to the first one that cannot be parsed."""
    try:
        yield from map(layout.restore_nulls, filter(None, layout.cells(lines)))
    except csv.Error:
        return


def _detect_escape(lines: Sequence[str], layout: Layout, dialect: TextDialect, *, whole: bool, name: str) -> Layout:
    """Add a backslash as the escape character if the rows have equal widths only with it."""
    if not any("\\" in line for line in lines) or layout.delimiter == "\\":
        return layout
    plain = _even_share(lines, layout, whole)
    # Quotes count as text because they do not pair up. With a backslash, they may.
    if plain == 1 and (layout.quote or not any(re.search(r'(^|\W)"[^"]*\\"', line) for line in lines)):
        return layout
    quotes = ['"', ""] if dialect.quote is None and plain < 1 else [dialect.quote or '"']
    candidates = [replace(layout, quote=quote, escape="\\") for quote in quotes]
    best = max(candidates, key=lambda one: _even_share(lines, one, whole))
    if _even_share(lines, best, whole) == 1 > plain:
        return best
    if _even_share(lines, best, whole) <= min(plain, 0.99):
        return layout
    raise InputError(
        f"{name}: a backslash before a quote or a delimiter may take its meaning from it, or be part of the text: set "
        "input.escape to '\\' if it does (as MySQL, Hive and Spark write), or to \"none\""
    )


def _detect_spaces(lines: Sequence[str], layout: Layout, *, whole: bool, name: str) -> Layout:
    """Return the layout that drops spaces around quotes, if this shows that the quotes enclose cells."""
    behind = any(f"{layout.quote} " in line for line in lines) and _even_share(lines, layout, whole) < 1
    if not behind and not any(f" {layout.quote}" in line for line in lines):
        return layout
    plain, spaced = list(_cells(lines, layout)), replace(layout, skip_initial_space=True)
    if _lstripped(plain) == _lstripped(_cells(lines, spaced)):
        return layout  # the spaces and quotes are within quoted cells
    if _even_share(lines, spaced, whole) == 1:
        return spaced
    if not any(is_quoted_behind_space(cell, layout.quote) for row in plain for cell in row):
        return layout
    raise InputError(
        f"{name}: spaces stand before quotes, which may be around cells or part of the text; set "
        "input.skip_initial_space = true if they are around cells, or false if they are text"
    )


def _lstripped(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    return [[cell.lstrip(" ") for cell in row] for row in rows]


def _refuse_title(lines: Sequence[str], layout: Layout, skipped: int, name: str, *, sure: bool) -> None:
    """Raise InputError if the first line does not name the columns. `sure`: the delimiter is not a guess."""
    rows, starts = _rows_with_lines(lines, layout)
    if not rows:
        return
    delimiters = [layout.delimiter]
    if not sure and _share(rows) < MIN_SHARE:
        delimiters += [sign for sign in SEPARATORS if sign != layout.delimiter]
    one_cell = len(rows[0]) == 1
    only = f"; if it has one column, set input.delimiter = {_absent(lines)!r}" if one_cell else ""
    for delimiter in delimiters:
        rows_then, places = _rows_with_lines(lines, replace(layout, delimiter=delimiter))
        at = find_header(rows_then)
        # With a delimiter that is only a try, two rows may have equal widths by accident.
        if at and (delimiter == layout.delimiter or len(rows_then) - at > 2):
            raise InputError(
                f"{name}: line {places[0] + skipped + 1} ({format_row(rows_then[0])}) does not look like the columns' "
                f"names; if these are in line {places[at] + skipped + 1} ({format_row(rows_then[at])}), set "
                f"input.skip_lines = {places[at] + skipped}{only or '; if they are the names, set input.header = true'}"
            )
    if one_cell and (wide := next((at for at, row in enumerate(rows) if len(row) > 1), 0)):
        raise InputError(
            f"{name}: its header has one cell ({format_row(rows[0])}), but line {starts[wide] + skipped + 1} has "
            f"{len(rows[wide])} ({format_row(rows[wide])}){only}"
        )


def _rows_with_lines(lines: Sequence[str], layout: Layout) -> tuple[list[list[str]], list[int]]:
    """Return the first rows that are not blank, and the number of lines before each."""
    reader = replace(layout, skip_initial_space=True).cells(lines)
    rows, starts, before = [], [], 0
    with suppress(csv.Error):
        for cells in islice(reader, LOOK_ROWS):
            if any(cell.strip() for cell in cells):
                rows.append(layout.restore_nulls(cells))
                starts.append(before)
            before = reader.line_num
    return rows, starts


def _absent(lines: Sequence[str]) -> str:
    """Return a delimiter that no line contains, as the config spells it."""
    signs = ("\t", "|", "~", "^", "\x1f")
    sign = next((sign for sign in signs if not any(sign in line for line in lines)), signs[-1])
    return "tab" if sign == "\t" else sign


def _even_share(lines: Sequence[str], layout: Layout, whole: bool) -> float:
    """Return the share of lines in rows of equal width. A row that is cut off at the end is not a fault."""
    reader = layout.cells(lines, strict=True)
    width = even_lines = 0
    try:
        for cells in reader:
            width = width or len(cells)
            if cells and len(cells) != width:
                return even_lines / len(lines)
            even_lines = reader.line_num
    except csv.Error as error:
        if whole or "unexpected end" not in str(error):
            return even_lines / len(lines)
    return 1.0


def _detect_delimiter(lines: Sequence[str], usual: str, name: str, escape: str | None) -> str:
    """Return the delimiter that gives more than one column, and the same number in nearly all rows."""
    shares = {sign: _evenness(lines, sign, escape) for sign in SEPARATORS}
    fit = [sign for sign, share in shares.items() if share == 1]
    if not fit and shares[usual] < MIN_SHARE:
        fit = [sign for sign, share in shares.items() if share >= MIN_SHARE]
    if len(fit) > 1:
        candidates = " or ".join(SEPARATORS[sign] for sign in fit)
        raise InputError(
            f"{name}: its cells may be separated by {candidates}: both give even rows; set input.delimiter to the one "
            f"that is meant, like {fit[0]!r}"
        )
    rare = (sign for sign in _RARE if _evenness(lines, sign, escape) == 1)
    if not fit and max(shares.values()) == 0 and (other := next(rare, None)):
        raise InputError(
            f"{name}: its cells look as if {other!r} separated them; set input.delimiter = {other!r} if so, or = "
            f"{usual!r} if it has one column"
        )
    return fit[0] if fit else usual


def _evenness(lines: Sequence[str], delimiter: str, escape: str | None) -> float:
    """Return the share of rows as wide as the first one; 0 if that has fewer than two columns."""
    escapes = [escape] if escape is not None else ["", "\\"] if any("\\" in line for line in lines) else [""]
    spaces = [False, True] if any(' "' in line for line in lines) else [False]
    layouts = (Layout(delimiter, *rest) for rest in product(('"', ""), escapes, spaces))
    return max(_share(list(islice(_cells(lines, layout), LOOK_ROWS))) for layout in layouts)


def _share(rows: Sequence[Sequence[str]]) -> float:
    width = len(rows[0]) if rows else 0
    return sum(len(row) == width for row in rows) / len(rows) if width > 1 else 0


def _detect_quote(lines: Sequence[str], delimiter: str) -> str:
    """Return a quotation mark, or "" if quotes are plainly part of the text.

    This is so if every line has its cells without parsing quotes, while parsing them would break or merge lines. Only
    tables with tabs are commonly written this way; others always have quotes.
    """
    if delimiter != "\t" or not any('"' in line for line in lines):
        return '"'
    plain = list(_cells(lines, Layout(delimiter, "")))
    if _share(plain) < 1:
        return '"'
    reader = Layout(delimiter, '"').cells(lines, strict=True)
    try:
        count = sum(1 for cells in reader if cells)
    except csv.Error:
        return ""
    return '"' if count == len(plain) else ""


def _refuse_merged(lines: Sequence[str], layout: Layout, name: str) -> None:
    """Raise InputError if quotes merge lines that are rows without them."""
    detector = StrayQuoteDetector(layout.delimiter)
    reader = layout.cells(lines, strict=True)
    width = before = 0
    with suppress(csv.Error):  # broken records are reported when they are read
        for cells in reader:
            raw = lines[before : reader.line_num]
            before = reader.line_num
            width = width or len(cells)
            if len(cells) == width and detector.is_merged(raw, cells):
                raise InputError(
                    f"{name}: a quote would make one record of lines {before - len(raw) + 1} to {before}, which look "
                    'like rows of their own; set input.quote = "none" if quotes are part of the text, or '
                    "'\"' if it is one record"
                )
