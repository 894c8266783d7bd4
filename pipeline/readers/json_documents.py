"""JSON that is not a line a record: an array of objects, or objects one after the other, indented or not."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.json_rows import LINE_BYTES, json_rows, not_an_object
from pipeline.readers.rows import Blocks, BrokenStreamError, Reading, Row, Rows, bad_row
from pipeline.records import JSON

#: a whole text in quotes, what opens and closes, or a quote whose text has not come to its end
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]|"', re.DOTALL)
#: what may stand between records; \x1e is that of RFC 7464, the last three bytes are the mark of a file that was joined
_BETWEEN = b" \t\r\n,\x1e\xef\xbb\xbf"

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
                if texts and reading.dialect.records:
                    raise InputError(
                        f"{reading.name}: input.records is for a file that is one object, and this is not one"
                    )
                for rows in _rows(number, texts, reading):
                    number += len(rows)
                    yield rows
    except BrokenStreamError as error:
        error.line, error.raw = number, splitter.rest
        raise
    if alone is not None:
        for rows in _alone(alone, reading):
            yield rows
        number += 1
    if splitter.rest or splitter.in_array:
        yield [bad_row(number, splitter.rest, CUT_OFF)]


def _rows(number: int, texts: Sequence[bytes], reading: Reading) -> Iterator[list[Row]]:
    reading.progress.lines_read += len(texts)
    for start in range(0, len(texts), reading.batch):
        yield list(json_rows(number + start, texts[start : start + reading.batch], reading))


def _alone(text: bytes, reading: Reading) -> Iterator[list[Row]]:
    """The rows of a text that is one object: those of the list in it that holds the records, or the object itself."""
    if len(text) > LINE_BYTES:
        raise InputError(
            f"{reading.name}: is one object of more than {LINE_BYTES:,} bytes; if it holds the records in a list, take "
            f"them out: jq -c '.data[]' {reading.name} > records.jsonl"
        )
    rows = list(json_rows(1, [text], reading))
    held = _held(rows[0][1], reading) if rows and not rows[0][3] else None
    if held is None:
        yield rows
        return
    reading.progress.lines_read += len(held)
    for start in range(0, len(held), reading.batch):
        yield [_row_of(start + at, one) for at, one in enumerate(held[start : start + reading.batch], 1)]


def _row_of(number: int, value: JSON) -> Row:
    data = codec.dumps(value)
    return (
        (number, value, codec.digest64(data), "")
        if isinstance(value, dict)
        else bad_row(number, data, not_an_object(value))
    )


def _held(value: dict[str, JSON], reading: Reading) -> list[JSON] | None:
    """The records that an object holds in a list; None where it is a record itself. Raises InputError where to ask."""
    wanted, lists = reading.dialect.records, _lists(value)
    if wanted == "":
        return None
    there = ", ".join(f"{path!r} with {len(held):,} objects" for path, held in lists.items())
    if wanted is not None:
        found = _at(value, wanted)
        if not isinstance(found, list):
            raise InputError(
                f"{reading.name}: input.records: there is no list at {wanted!r}; there is {there or 'none'}"
            )
        return found
    if not lists and _is_table(value):
        raise InputError(
            f"{reading.name}: holds one object of columns or of named rows, as pandas' to_json writes it: write it "
            "with orient='records', lines=True, or set input.records to \"none\" if the object is one record"
        )
    if not lists or (len(value) > 1 and max(map(len, lists.values())) < 2):
        return None
    if len(lists) > 1 or _has_prose(value):
        raise InputError(
            f"{reading.name}: holds one object, and in it {there}: set input.records to the list that holds the "
            f'records, like "{next(iter(lists))}", or to "none" if the object is one record'
        )
    [(path, held)] = lists.items()
    reading.progress.note(f"its records are the {len(held):,} objects in {path!r}", reading.name, records=path)
    return held


def _lists(value: Mapping[str, JSON]) -> dict[str, list[JSON]]:
    """The lists of objects in an object, by their paths; of those deeper in it only where it has none itself."""
    found = {
        name: held
        for name, held in value.items()
        if isinstance(held, list) and held and all(isinstance(one, dict) for one in held)
    }
    return found or {
        f"{name}.{path}": held
        for name, inner in value.items()
        if isinstance(inner, dict)
        for path, held in _lists(inner).items()
    }


def _is_table(value: Mapping[str, JSON]) -> bool:
    """Whether all that is in the object are lists of one length, or objects with the same keys: columns, or rows."""
    shapes = {
        len(one) if isinstance(one, list) else tuple(one) if isinstance(one, dict) else None for one in value.values()
    }
    return len(value) > 1 and len(shapes) == 1 and not shapes & {None, 0, 1, ()}


def _has_prose(value: Mapping[str, JSON]) -> bool:
    """Whether the object has a text of its own, as a record has, and what goes with a list of records has not."""
    return any(isinstance(one, str) and " " in one.strip() for one in value.values())


def _at(value: JSON, path: str) -> JSON:
    """What stands at a path with dots; a name may hold dots itself."""
    if not isinstance(value, dict):
        return None
    if path in value:
        return value[path]
    name, dot, rest = path.partition(".")
    return _at(value.get(name), rest) if dot else None
