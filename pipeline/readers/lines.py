"""Splits bytes into lines in constant memory: only one unfinished line is stored."""

import codecs
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pipeline.readers.rows import Blocks, BrokenStreamError, ReadContext

Lines = AsyncGenerator[tuple[int, list[bytes]], None]


class LineSplitter:
    r"""Splits blocks of any size into lines.

    Lines end at \n and are returned without it. With `universal_newlines`, they end at \n, \r\n, or \r, as in CSV, and
    keep their endings. No other character ends a line. If a line is longer than `max_bytes`, only its first `max_bytes`
    + 1 bytes are returned, which shows that it is too long. Without `universal_newlines`, byte order marks at the
    beginning of lines are removed, because `cat` joins files that have one. (A line of CSV may be within a cell.)
    """

    def __init__(self, max_bytes: int, *, universal_newlines: bool = False) -> None:
        self._max_bytes = max_bytes
        self._universal_newlines = universal_newlines
        self._tail = bytearray()

    @property
    def tail(self) -> bytes:
        """The unfinished line."""
        return bytes(self._tail)

    def feed(self, block: bytes) -> list[bytes]:
        """Return the lines that `block` completes."""
        if self._universal_newlines and self._tail.endswith(b"\r"):
            # Held back because \n might follow. Joined first, so that it cannot become part of the next line.
            block = self.tail + block
            self._tail.clear()
        end = self._last_ending(block)
        whole = self.tail + block[:end] if end else b""
        if end:
            self._tail.clear()
        self._keep(block[end:])
        return self._split(whole)

    def finish(self) -> list[bytes]:
        """Return the last line if the input does not end with a line ending."""
        tail = self.tail
        self._tail.clear()
        return self._strip_boms([tail[: self._max_bytes + 1]], tail) if tail else []

    def _last_ending(self, block: bytes) -> int:
        end = block.rfind(b"\n") + 1
        if self._universal_newlines:
            end = max(end, block.rfind(b"\r", 0, len(block) - 1) + 1)
        return end

    def _keep(self, rest: bytes) -> None:
        self._tail += rest
        if len(self._tail) > self._max_bytes + 1:
            del self._tail[self._max_bytes + 1 :]
            if self._universal_newlines and rest.endswith(b"\r"):
                self._tail += b"\r"

    def _split(self, whole: bytes) -> list[bytes]:
        # bytes.splitlines knows only \n, \r, and \r\n. str.splitlines would also split at U+2028 and others.
        lines = whole.splitlines(keepends=True) if self._universal_newlines else whole.split(b"\n")[:-1]
        if len(whole) > self._max_bytes:
            lines = [line[: self._max_bytes + 1] for line in lines]
        return self._strip_boms(lines, whole)

    def _strip_boms(self, lines: list[bytes], whole: bytes) -> list[bytes]:
        if self._universal_newlines or codecs.BOM_UTF8 not in whole:
            return lines
        return [line.removeprefix(codecs.BOM_UTF8) for line in lines]


async def split_lines(blocks: Blocks, context: ReadContext, splitter: LineSplitter) -> Lines:
    """Yield lines in batches, each with the 1-based number of its first line.

    If the stream breaks, the incomplete line is part of the error instead.
    """
    number = 1
    try:
        async with aclosing(blocks):
            async for block in blocks:
                lines = splitter.feed(block)
                context.progress.lines_read += len(lines)
                for start in range(0, len(lines), context.batch):
                    part = lines[start : start + context.batch]
                    yield number, part
                    number += len(part)
    except BrokenStreamError as error:
        error.line, error.raw = number, splitter.tail
        raise
    if last := splitter.finish():
        context.progress.lines_read += 1
        yield number, last
