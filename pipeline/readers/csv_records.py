"""Parses CSV records from lines that arrive in pieces, with the standard library's parser in strict mode."""

import csv
import re
from collections.abc import Iterator
from itertools import chain

from pipeline.readers.dialect import Layout

#: A record with more characters has a quote that was never closed: no model reads 4 MiB at once.
RECORD_CHARS = 4 * 1024 * 1024
#: After quotes that never closed, the search for a closing one reaches at least this far (a tenth of a millisecond).
_LEAST_CHARS = 16 * 1024
#: The reach grows again by this much with each good record.
_REGAIN_CHARS = 4096
#: A larger unfinished record is not tried again before it has twice its size.
_WAIT_CHARS = 8 * 1024

_SPACE_HINT = "; a space stands after a closing quote: set input.skip_initial_space = true to leave such spaces out"
UNCLOSED_QUOTE = "a quote is opened here and never closed"

#: The first line's number, the lines as in the file, the cells, and what is wrong ("" if nothing).
CsvRecord = tuple[int, list[str], list[str], str]


class _RunDryError(Exception):
    """The parser needs a line that has not arrived yet."""


def _run_dry() -> Iterator[str]:
    raise _RunDryError
    yield ""  # type: ignore[unreachable]  # makes this a generator


class CsvParser:
    """Takes lines and yields records. The lines of an unfinished record are parsed again when more have arrived.

    A record that cannot be parsed costs only its first line, which is reported with what is wrong. Parsing continues at
    the next line, so one stray quote cannot swallow a file. To find that a quote never closes, the parser must look at
    everything that may belong to it, which in a file full of stray quotes is the same text each time. Therefore the
    reach of the search shrinks with each such quote and grows again with good records.
    """

    def __init__(self, layout: Layout, *, max_chars: int = RECORD_CHARS, skipped: int = 0) -> None:
        self._layout = layout
        self._max_chars = max_chars
        # Mutable state: the lines not yet parsed (from `_at` on, `_chars` characters, the first is line `_number` of
        # the file), the size at which another try is worthwhile, and the reach of the search for a closing quote.
        self._lines: list[str] = []
        self._at = 0
        self._chars = 0
        self._number = skipped + 1
        self._try_at = 0
        self._reach = max_chars
        # The parser's limit belongs to the whole process. It must be above any record that is accepted here.
        csv.field_size_limit(max(csv.field_size_limit(), 8 * max_chars))

    @property
    def pending(self) -> tuple[int, str]:
        """The line where the unfinished record begins, and its text so far."""
        return self._number, "".join(self._lines[self._at :])

    def feed(self, lines: list[str], *, end: bool = False) -> Iterator[CsvRecord]:
        """Yield the records that `lines` (with their line ends) complete; if `end`, also the rest."""
        del self._lines[: self._at]
        self._at = 0
        self._lines += lines
        self._chars += sum(map(len, lines))
        if end or self._chars >= self._try_at:
            self._try_at = 0
            while self._chars and not self._try_at:
                yield from self._pass(end)

    def rows_of(self, lines: list[str]) -> list[list[str]] | None:
        """Return the cells of lines that are one record each ([] for a blank line); otherwise None.

        This does not consume the lines; `skip` does.
        """
        layout = self._layout
        if self._chars or self._reach < self._max_chars or layout.escape or max(map(len, lines)) > self._max_chars:
            return None
        if layout.quote and layout.skip_initial_space and any(f"{layout.quote} " in line for line in lines):
            return None
        try:
            rows = list(csv.reader(lines, strict=True, **layout.form))
        except csv.Error:
            return None
        return rows if len(rows) == len(lines) else None

    def skip(self, lines: list[str]) -> None:
        """Count these lines as processed."""
        self._number += len(lines)

    def flush(self) -> Iterator[CsvRecord]:
        """Yield the complete records if no more lines will come and the last record is cut off."""
        self._try_at = 0
        yield from self.feed([])

    def _pass(self, end: bool) -> Iterator[CsvRecord]:
        """Yield records until the lines in reach run out or one is broken."""
        window, whole = self._window()
        reader = self._layout.cells(chain(window, _run_dry()), strict=True)
        done, trouble = 0, ""
        try:
            for cells in reader:
                raw = window[done : reader.line_num]
                if self._too_long(raw):
                    trouble = self._name_trouble(raw)
                    break
                if cells:
                    yield self._number + done, raw, cells, ""
                done = reader.line_num
                if self._reach < self._max_chars:
                    self._reach = min(self._max_chars, self._reach + _REGAIN_CHARS)
        except _RunDryError:
            trouble = self._judge_rest(window[done:], whole, end)
        except csv.Error as error:
            trouble = self._name_trouble(window[done : reader.line_num], error)
        spanned = reader.line_num - done
        self._drop(window[:done])
        if trouble:
            yield self._fail(window[done], trouble, spanned)

    def _window(self) -> tuple[list[str], bool]:
        """Return the lines in reach (the last may be partly beyond it), and whether they are all the lines."""
        if self._chars <= self._reach:
            return self._lines[self._at :], True
        chars, stop = 0, self._at
        while chars <= self._reach:
            chars += len(self._lines[stop])
            stop += 1
        return self._lines[self._at : stop], stop == len(self._lines)

    def _too_long(self, raw: list[str]) -> bool:
        if len(raw) == 1:
            return len(raw[0]) > self._max_chars
        return sum(map(len, raw)) > self._reach

    def _name_trouble(self, raw: list[str], error: csv.Error | None = None) -> str:
        if len(raw[0]) > self._max_chars:
            return f"a line longer than {self._max_chars:,} characters"
        if not error or self._too_long(raw):
            return UNCLOSED_QUOTE
        return f"not valid CSV: {error}{_SPACE_HINT if self._has_space_behind(raw) else ''}"

    def _has_space_behind(self, raw: list[str]) -> bool:
        """Whether there is a space between a possible closing quote and the end of its cell."""
        ends = f"{self._layout.quote} +(?={re.escape(self._layout.delimiter)}|[\r\n]|$)"
        return not self._layout.skip_initial_space and any(re.search(ends, line) for line in raw)

    def _judge_rest(self, rest: list[str], whole: bool, end: bool) -> str:
        """Return what is wrong with an unfinished record; "" if later lines may finish it."""
        chars = sum(map(len, rest))
        if rest and (chars > self._reach or (whole and end)):
            return self._name_trouble(rest)
        if whole:
            # Twice as much each time, so that all tries together cost little more than the last.
            self._try_at = 2 * chars if chars > _WAIT_CHARS else chars + 1
        return ""

    def _drop(self, lines: list[str]) -> None:
        self._at += len(lines)
        self._number += len(lines)
        self._chars -= sum(map(len, lines))

    def _fail(self, line: str, trouble: str, spanned: int) -> CsvRecord:
        number = self._number
        self._drop([line])
        if spanned > 1:  # the lines after the first were parsed in vain
            self._reach = max(min(_LEAST_CHARS, self._max_chars), self._reach // 8)
        return number, [line], [], trouble
