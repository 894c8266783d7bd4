"""How a table of text is written: what separates its cells, whether quotes are part of them, what its columns are."""

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

LOOK_BYTES = 64 * 1024  #: as much of a text is looked into to tell how it is written

#: what may separate cells -> what a person calls it
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
#: what separates cells rarely enough to be asked about
_RARE = ("~", "^", ":", "\x01", "\x1f", "\u00a6", "\u00a7")
#: Excel's first line that names the separator; it is no record
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?')


@dataclass(frozen=True, slots=True)
class TextDialect:
    """What the user says of how a text is written; None is to be recognised where the text begins.

    `quote` and `escape` are one character, or empty where there is none. `header` is True where the first row names the
    columns, False where there is none, or the names themselves. `records` is the member of a JSON object, or its path
    with dots, that holds the records in a list; empty where the object is one record. `skip_lines` stand before the
    table and are not part of it. `skip_initial_space`: spaces after a delimiter are not part of the cell, nor are those
    between a closing quote and a delimiter.
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
NULL = "\ud800"  #: stands for MySQL's and Hive's sign of an empty cell; no text can hold it


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is cut."""

    delimiter: str
    quote: str
    escape: str = ""
    skip_initial_space: bool = False

    @property
    def form(self) -> dict[str, Any]:
        """What tells the standard library's parser how rows are cut."""
        return {
            "delimiter": self.delimiter,
            "quotechar": self.quote or None,
            "quoting": csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            "escapechar": self.escape or None,
            "skipinitialspace": self.skip_initial_space,
        }

    def lines(self, lines: Iterable[str]) -> Iterable[str]:
        """The lines for that parser: it would drop an escape before anything, and what is no escape is text."""
        if not self.escape:
            return self._strip_after_quotes(lines) if self.skip_initial_space and self.quote else lines
        escapable = "".join(map(re.escape, (self.escape, self.quote, self.delimiter, "\r", "\n", "N")))
        alone = re.compile(f"{re.escape(self.escape)}([{escapable}]?)")

        def plain(match: re.Match[str]) -> str:
            return {"": self.escape * 2, "N": NULL}.get(match[1], match[0])

        return (alone.sub(plain, line) if self.escape in line else line for line in lines)

    def _strip_after_quotes(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines without the spaces between a closing quote and the delimiter, which are no text to the parser."""
        quotes = 0  # so far: after an even number of them it is outside of any
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
        """The cells that came of such lines: one that holds nothing is empty."""
        if not self.escape:
            return cells
        return ["" if cell == NULL else cell.replace(NULL, f"{self.escape}N") for cell in cells]

    def cells(self, lines: Iterable[str], *, strict: bool = False) -> Any:
        """A reader of the standard library's, which counts the lines that it has read."""
        return csv.reader(self.lines(lines), strict=strict, **self.form)


def declared_separator(line: str) -> str | None:
    """The separator that Excel's first line names, if it is one."""
    match = _SEPARATOR_LINE.fullmatch(line)
    return match[1] if match else None


def detect_layout(head: str, dialect: TextDialect, *, usual: str, whole: bool, name: str) -> Layout:
    """The layout of a table that begins with `head`; `whole` says that this is all of it.

    `usual` separates where nothing tells otherwise. Raises InputError, which names the key to set, where several
    would do, or the first row is hardly a header.
    """
    lines = list(io.StringIO(head, newline=""))  # str.splitlines would cut at U+2028 and others too
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
    """The rows of cells, as far as they can be cut at all."""
    try:
        yield from map(layout.restore_nulls, filter(None, layout.cells(lines)))
    except csv.Error:
        return


def _detect_escape(lines: Sequence[str], layout: Layout, dialect: TextDialect, *, whole: bool, name: str) -> Layout:
    """The layout with a backslash before quotes, delimiters or line breaks, where the rows are even only so."""
    if not any("\\" in line for line in lines) or layout.delimiter == "\\":
        return layout
    plain = _even_share(lines, layout, whole)
    # Where quotes are part of the text they are so because they do not pair up; with a backslash they may.
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
    """The layout that drops spaces around quotes, where that shows quotes around cells."""
    behind = any(f"{layout.quote} " in line for line in lines) and _even_share(lines, layout, whole) < 1
    if not behind and not any(f" {layout.quote}" in line for line in lines):
        return layout
    plain, spaced = list(_cells(lines, layout)), replace(layout, skip_initial_space=True)
    if _lstripped(plain) == _lstripped(_cells(lines, spaced)):
        return layout  # spaces and quotes within cells that have quotes of their own
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
    """Ask where the first line does not name the columns; `sure` says that the delimiter is no guess."""
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
        # By a delimiter that is only tried, two rows may be even by accident.
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
    """The first rows that are not blank, and how many lines stand before each."""
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
    """A delimiter that no line holds, as the config names it."""
    signs = ("\t", "|", "~", "^", "\x1f")
    sign = next((sign for sign in signs if not any(sign in line for line in lines)), signs[-1])
    return "tab" if sign == "\t" else sign


def _even_share(lines: Sequence[str], layout: Layout, whole: bool) -> float:
    """The share of the lines that are in even rows; what is cut off at the end counts for no fault."""
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
    """What separates: what gives more than one column, and the same number in nearly all rows."""
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
    """The share of rows that are as wide as the first, which has two columns or more; else nothing."""
    escapes = [escape] if escape is not None else ["", "\\"] if any("\\" in line for line in lines) else [""]
    spaces = [False, True] if any(' "' in line for line in lines) else [False]
    layouts = (Layout(delimiter, *rest) for rest in product(('"', ""), escapes, spaces))
    return max(_share(list(islice(_cells(lines, layout), LOOK_ROWS))) for layout in layouts)


def _share(rows: Sequence[Sequence[str]]) -> float:
    width = len(rows[0]) if rows else 0
    return sum(len(row) == width for row in rows) / len(rows) if width > 1 else 0


def _detect_quote(lines: Sequence[str], delimiter: str) -> str:
    """A quotation mark, or nothing where quotes are plainly part of the text.

    That is where every line has its cells without regard to quotes, but with regard to them lines would be broken or
    merged. Only tables with tabs are commonly written so; of others the quotes are as usual.
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
    """Ask where quotes merge lines that are rows without them."""
    detector = StrayQuoteDetector(layout.delimiter)
    reader = layout.cells(lines, strict=True)
    width = before = 0
    with suppress(csv.Error):  # what is broken is told when it is read
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
