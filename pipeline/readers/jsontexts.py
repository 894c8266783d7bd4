"""JSON that is not a line a record: an array of objects, or objects one after the other, indented or not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import aclosing

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.jsonrows import LINE_BYTES, json_rows
from pipeline.readers.rows import Blocks, BrokenStreamError, Reading, Row, Rows, bad_row

#: a whole text in quotes, what opens and closes, or a quote whose text has not come to its end
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]|"', re.DOTALL)
_BETWEEN = b" \t\r\n,\x1e"  #: what may stand between records; the last is that of RFC 7464

CUT_OFF = "the JSON is cut off here: the file is not complete"


def is_one_text(head: bytes) -> bool:
    """Whether what begins so is an array, or an object over several lines, and not a line a record."""
    line, _, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if line.rstrip() in (b"{", b"["):
        return True
    if not re.match(rb"\[\s*[{\]]", line):
        return False
    try:
        codec.loads(line)
    except codec.JSONDecodeError:
        return True
    return not rest.strip()  # else each line may be a list


def has_lines(head: bytes) -> bool:
    """Whether what begins so has an object a line, and more than one."""
    line, _, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    try:
        value = codec.loads(line)
    except codec.JSONDecodeError:
        return False
    # An empty object tells nothing: it is on one line however the others are indented.
    return bool(value) and isinstance(value, dict) and bool(rest.strip())


class _Splitter:
    """Cuts blocks into the texts of records, however the blocks fall; of one that is too long only its beginning."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # All state that changes: bytes from the start of the open record or gap on, how far they were looked at, how
        # deep in a record that is, whether that is in an array, and what was cut off a record that is too long.
        self._held = bytearray()
        self._at = 0
        self._depth = 0
        self.in_array = False
        self._begun = b""

    @property
    def rest(self) -> bytes:
        """What is no whole record yet."""
        return self._begun + self._held.strip(_BETWEEN)

    def feed(self, block: bytes) -> Iterator[bytes]:
        """The records that the block finishes, and what stands between them and should not."""
        self._held += block
        start, end = 0, len(self._held)
        for token in _TOKEN.finditer(self._held, self._at):
            sign = token[0]
            if sign == b'"':
                end = token.start()
                break
            if len(sign) > 1:
                continue
            opens = sign in b"{["
            if not self._depth:
                if sign == b"}" or (sign == b"]" and not self.in_array):
                    continue  # it is told as what stands between
                if gap := bytes(self._held[start : token.start()]).strip(_BETWEEN):
                    yield gap  # no object, as its first character tells
                start = token.start()
                if sign == b"]" or (sign == b"[" and not self.in_array):
                    self.in_array = opens
                    start += 1
                    continue
            self._depth += 1 if opens else -1
            if not self._depth:
                yield self._begun + bytes(self._held[start : token.end()])
                self._begun = b""
                start = token.end()
        del self._held[:start]
        self._at = end - start
        self._bound()

    def _bound(self) -> None:
        """Hold no more of an open record than tells that it is too long."""
        if self._at > self._max_bytes:
            self._begun = self._begun or bytes(self._held[: self._max_bytes + 1])
            del self._held[: self._at]
            self._at = 0


async def json_texts(blocks: Blocks, reading: Reading) -> Rows:
    """The objects of an array, or one after the other; a record's number is its place among them."""
    splitter = _Splitter(LINE_BYTES)
    reading.unit = "record"
    number = 1
    alone: bytes | None = None  # the first record, until it is known to be no list of records with a head
    try:
        async with aclosing(blocks):
            async for block in blocks:
                texts = list(splitter.feed(block))
                if alone is not None and texts:
                    texts, alone = [alone, *texts], None
                if number == 1 and len(texts) == 1 and not splitter.in_array:
                    alone = texts.pop()
                for rows in _rows(number, texts, reading):
                    number += len(rows)
                    yield rows
    except BrokenStreamError as error:
        error.line, error.raw = number, splitter.rest
        raise
    if alone is not None:
        _refuse_wrapped(alone, reading.name)
        yield list(json_rows(1, [alone], reading))
        number += 1
    if splitter.rest or splitter.in_array:
        yield [bad_row(number, splitter.rest, CUT_OFF)]


def _rows(number: int, texts: Sequence[bytes], reading: Reading) -> Iterator[list[Row]]:
    reading.progress.lines_read += len(texts)
    for start in range(0, len(texts), reading.batch):
        yield list(json_rows(number + start, texts[start : start + reading.batch], reading))


def _refuse_wrapped(text: bytes, name: str) -> None:
    """Ask where the only object holds the records in a list: nobody has a file of one record."""
    try:
        value = codec.loads(text)
    except codec.JSONDecodeError:
        return
    lists = (
        [key for key, each in value.items() if isinstance(each, list) and len(each) > 1]
        if isinstance(value, dict)
        else []
    )
    found = [key for key in lists if all(isinstance(one, dict) for one in value[key])]
    if len(found) == 1:
        raise InputError(
            f"{name}: holds one object, whose {found[0]!r} is a list of {len(value[found[0]]):,} objects; if these are "
            f"the records, take them out: jq -c '.[\"{found[0]}\"][]' {name} > records.jsonl"
        )
