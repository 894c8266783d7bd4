"""Reads tables of text, CSV and TSV: turns cells into rows, named by the header."""

from collections.abc import Iterable, Iterator
from contextlib import aclosing
from dataclasses import replace

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.csv_records import RECORD_CHARS, CsvParser, CsvRecord
from pipeline.readers.dialect import LOOK_BYTES, SEPARATORS, Layout, declared_separator, detect_layout
from pipeline.readers.headers import format_row
from pipeline.readers.lines import LineSplitter, split_lines
from pipeline.readers.rows import Blocks, BrokenStreamError, ReadContext, Row, Rows, bad_row, describe_decoding_error
from pipeline.readers.stray_quotes import MERGED_ROWS, SPACE_BEFORE_QUOTE, StrayQuoteDetector, is_quoted_behind_space
from pipeline.readers.stream import prepend, with_head

_MARK = "\ufeff"  #: A byte order mark after decoding.


async def delimited(blocks: Blocks, context: ReadContext, usual: str) -> Rows:
    """Yield the rows of CSV or TSV. Blank lines are skipped, and every value stays a string.

    The first bytes show the layout as far as the user has not set it. `usual` is the default delimiter.
    """
    first_line = b"\n" if context.single_pass else b""
    async with aclosing(with_head(blocks, LOOK_BYTES, or_with=first_line)) as stream:
        head = await anext(stream, b"")
        sample = head[:LOOK_BYTES].decode("utf-8", "replace")
        whole = len(head) < LOOK_BYTES and not context.single_pass
        layout = detect_layout(sample, context.dialect, usual=usual, whole=whole, name=context.name)
        _note_layout(layout, context, usual)
        async with aclosing(_rows(prepend(head, stream), context, layout)) as parts:
            async for rows in parts:
                yield rows


def _note_layout(layout: Layout, context: ReadContext, usual: str) -> None:
    """Report what was detected if it is not what one would expect."""
    delimiter = layout.delimiter
    if delimiter != usual and context.dialect.delimiter is None:
        separator = SEPARATORS.get(delimiter, repr(delimiter))
        context.progress.note(
            f"cells are separated by {separator}", context.name, delimiter="tab" if delimiter == "\t" else delimiter
        )
    if not layout.quote and context.dialect.quote is None:
        note = (
            "there are no quotes around cells"
            if layout.escape
            else "quotes are part of the text, for they do not pair up"
        )
        context.progress.note(note, context.name, quote="none")
    if layout.escape and context.dialect.escape is None:
        context.progress.note("a backslash takes the meaning from what follows", context.name, escape=layout.escape)
    if layout.skip_initial_space and context.dialect.skip_initial_space is None:
        note = "spaces around quotes are not part of the cells, nor are spaces after other delimiters"
        context.progress.note(note, context.name, skip_initial_space=True)


async def _rows(blocks: Blocks, context: ReadContext, layout: Layout) -> Rows:
    table = _Table(context, layout)
    skipped = context.dialect.skip_lines or 0
    parser = CsvParser(layout, skipped=skipped)
    # A line that the splitter cuts is longer than a record may be, at up to four bytes per character.
    splitter = LineSplitter(4 * RECORD_CHARS, universal_newlines=True)
    try:
        async with aclosing(split_lines(blocks, context, splitter)) as lines:
            async for first, batch in lines:
                cut = max(0, skipped + 1 - first)
                texts = table.decode(first + cut, batch[cut:])
                rows = table.fast_rows(first + cut, texts, parser)
                yield list(table.rows(parser.feed(texts))) if rows is None else rows
    except BrokenStreamError as error:
        yield list(table.rows(parser.flush()))
        # The incomplete record begins where its quote was opened, not where the data broke.
        line, pending = parser.pending
        if pending:
            error.line, error.raw = line, pending.encode("utf-8", "surrogateescape") + error.raw
        raise
    yield list(table.rows(parser.feed([], end=True)))


class _Table:
    """Turns cells into rows. Mutable state: the columns, the original header, and where bad bytes are."""

    def __init__(self, context: ReadContext, layout: Layout) -> None:
        self._context = context
        self._layout = layout
        self._stray_quotes = StrayQuoteDetector(layout.delimiter) if context.dialect.quote is None else None
        header = context.dialect.header
        self._columns: list[str] = list(header) if isinstance(header, tuple) else []
        self._header: list[str] = self._columns
        self._spaces_are_set = layout.skip_initial_space or context.dialect.skip_initial_space is not None
        self._has_header = header is None or header is True
        self._names = codec.column_names_digest(self._columns)  # the columns' part of each row's digest
        self._undecodable_until = 0  # the last line that may contain bytes that are not in the encoding

    def decode(self, first: int, batch: list[bytes]) -> list[str]:
        """Decode the lines. Bytes that cannot be decoded become lone surrogates, which no valid text contains."""
        try:
            return [line.decode() for line in batch]
        except UnicodeDecodeError:
            self._undecodable_until = first + len(batch) - 1
            return [line.decode("utf-8", "surrogateescape") for line in batch]

    def fast_rows(self, first: int, lines: list[str], parser: CsvParser) -> list[Row] | None:
        """Return the rows of lines that need no individual check, as most do; None for all others."""
        is_learning = self._stray_quotes is not None and self._stray_quotes.is_learning
        if not lines or not self._columns or is_learning or first <= self._undecodable_until:
            return None
        text, quote = "".join(lines), self._layout.quote
        if _MARK in text or (quote and not self._spaces_are_set and f" {quote}" in text):
            return None
        rows = parser.rows_of(lines)
        if rows is None or self._header in rows or not {len(self._columns), 0}.issuperset(map(len, rows)):
            return None
        parser.skip(lines)
        names = self._names if self._context.digests else None
        return [
            (
                line,
                dict(zip(self._columns, cells, strict=True)),
                0 if names is None else codec.digest64(names + codec.dumps(cells)),
                "",
            )
            for line, cells in enumerate(rows, first)
            if cells
        ]

    def rows(self, records: Iterable[CsvRecord]) -> Iterator[Row]:
        for line, raw, cells, fault in records:
            trouble = fault
            if not fault and line <= self._undecodable_until:
                trouble = describe_decoding_error(_to_bytes(raw), self._context.encoding)
            if not self._columns:
                if line == 1 and declared_separator(raw[0]):
                    continue
                self._columns = self._column_names(line, cells, trouble)
                self._names = codec.column_names_digest(self._columns)
                if self._header:
                    continue
            if trouble or len(cells) != len(self._columns):
                count = f"{len(cells)} cells where the header has {len(self._columns)}"
                if len(self._columns) == 1:
                    count += '; if it has one column, set input.delimiter to a sign that no text holds, like "tab"'
                yield bad_row(line, _to_bytes(raw).rstrip(b"\r\n"), trouble or count)
            elif len(cells) > 1 and (cells == self._header or self._is_marked_header(cells)):
                self._context.progress.note("rows that repeat the header are left out", self._context.name)
            elif self._stray_quotes is not None and self._stray_quotes.is_merged(raw, cells):
                yield from (
                    bad_row(line + at, _to_bytes([each]).rstrip(b"\r\n"), MERGED_ROWS) for at, each in enumerate(raw)
                )
            elif not self._spaces_are_set and self._is_spaced(raw, cells):
                yield bad_row(line, _to_bytes(raw).rstrip(b"\r\n"), SPACE_BEFORE_QUOTE)
            else:
                if not self._has_header and cells[0][:1] == _MARK:
                    cells = [cells[0][1:], *cells[1:]]  # noqa: PLW2901 - a joined file begins here
                cells = self._layout.restore_nulls(cells)  # noqa: PLW2901
                digest = codec.digest64(self._names + codec.dumps(cells))
                yield line, dict(zip(self._columns, cells, strict=True)), digest, ""

    def _is_marked_header(self, cells: list[str]) -> bool:
        """Whether it is the header with a byte order mark, from joined Excel files, each of which begins with one."""
        return cells[0][:1] == _MARK and [cells[0].lstrip(_MARK).strip('"'), *cells[1:]] == self._header

    def _is_spaced(self, raw: list[str], cells: list[str]) -> bool:
        """Whether spaces before a quote have made it part of the cell that it should enclose."""
        quote = self._layout.quote
        if not quote or not any(f" {quote}" in line for line in raw):
            return False
        if not any(is_quoted_behind_space(cell, quote) for cell in cells):
            return False
        spaced = next(replace(self._layout, skip_initial_space=True).cells(raw))
        return [cell.lstrip(" ") for cell in spaced] != [cell.lstrip(" ") for cell in cells]

    def _column_names(self, line: int, cells: list[str], trouble: str) -> list[str]:
        """Return the names of the columns from the first row or, if there is no header, from their numbers."""
        if self._context.dialect.header is False:
            return [f"column_{number}" for number in range(1, len(cells) + 1)]
        name = self._context.name
        where = f"{name}, line {line}: the header"
        if trouble:
            raise InputError(f"{where} cannot be read: {trouble}")
        if not any(cell.strip() for cell in cells):
            raise InputError(f"{where} names no column; set input.header to false or to a list of names")
        cells = self._layout.restore_nulls([cells[0].lstrip(_MARK), *cells[1:]])  # some programs write the mark twice
        self._header = cells
        if cells[0].lstrip().startswith("#") and self._context.dialect.header is None:
            note = f"line {line}, which names the columns, begins with #: {format_row(cells)}; if that is a comment"
            self._context.progress.note(f"{note}, set input.skip_lines = {line}; if not, input.header = true", name)
        return self._context.columns(cells)


def _to_bytes(raw: list[str]) -> bytes:
    return "".join(raw).encode("utf-8", "surrogateescape")
