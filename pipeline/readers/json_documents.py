"""Reads JSON that is not one record per line: an array of objects, or consecutive objects, indented or not."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers.json_rows import LINE_BYTES, describe_non_object, json_rows
from pipeline.readers.rows import Blocks, BrokenStreamError, ReadContext, Row, Rows, bad_row
from pipeline.records import JSON

#: A whole quoted text, an opening or closing sign, or a quote whose text is not complete.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]|"', re.DOTALL)
#: What may be between records. \x1e is from RFC 7464; the last three bytes are the byte order mark of a joined file.
_BETWEEN = b" \t\r\n,\x1e\xef\xbb\xbf"

TRUNCATED = "the JSON is cut off here: the file is not complete"


def is_single_document(head: bytes) -> bool:
    """Whether a text that begins like this is an array or an object over several lines."""
    line, _, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if line.rstrip() in (b"{", b"["):
        return True
    if not re.match(rb"\[\s*[{\]]", line):
        return False
    try:
        codec.loads(line)
    except codec.JSONDecodeError:
        return True
    return not rest.strip()  # otherwise, each line may be a list


def has_object_per_line(head: bytes) -> bool:
    """Whether a text that begins like this has one object per line, and more than one."""
    line, _, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    try:
        value = codec.loads(line)
    except codec.JSONDecodeError:
        return False
    # An empty object shows nothing: it is on one line even if the others are indented.
    return bool(value) and isinstance(value, dict) and bool(rest.strip())


class _Splitter:
    """Splits blocks of any size into the texts of records. Only the beginning of a record that is too long remains."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # Mutable state: the bytes from the start of the open record or gap, how far they were scanned, how deep in a
        # record that is, whether it is in an array, and the beginning of a record that is too long.
        self._buffer = bytearray()
        self._at = 0
        self._depth = 0
        self.in_array = False
        self._prefix = b""

    @property
    def rest(self) -> bytes:
        """The bytes that are not a whole record yet."""
        return self._prefix + self._buffer.strip(_BETWEEN)

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Yield the records that the block completes, and anything between them that should not be there."""
        self._buffer += block
        start, end = 0, len(self._buffer)
        for token in _TOKEN.finditer(self._buffer, self._at):
            sign = token[0]
            if sign == b'"':
                end = token.start()
                break
            if len(sign) > 1:
                continue
            opens = sign in b"{["
            if not self._depth:
                if sign == b"}" or (sign == b"]" and not self.in_array):
                    continue  # it is reported as part of the gap
                if gap := bytes(self._buffer[start : token.start()]).strip(_BETWEEN):
                    yield gap  # not an object, as its first character shows
                start = token.start()
                if sign == b"]" or (sign == b"[" and not self.in_array):
                    self.in_array = opens
                    start += 1
                    continue
            self._depth += 1 if opens else -1
            if not self._depth:
                yield self._prefix + bytes(self._buffer[start : token.end()])
                self._prefix = b""
                start = token.end()
        del self._buffer[:start]
        self._at = end - start
        self._bound()

    def _bound(self) -> None:
        """Drop the rest of an open record that is too long."""
        if self._at > self._max_bytes:
            self._prefix = self._prefix or bytes(self._buffer[: self._max_bytes + 1])
            del self._buffer[: self._at]
            self._at = 0


async def json_documents(blocks: Blocks, context: ReadContext) -> Rows:
    """Yield the objects of an array, or consecutive objects. A record's number is its position among them."""
    splitter = _Splitter(LINE_BYTES)
    context.unit = "record"
    number = 1
    first: bytes | None = None  # the first record, until another one shows that it is not the whole document
    try:
        async with aclosing(blocks):
            async for block in blocks:
                texts = list(splitter.feed(block))
                if first is not None and texts:
                    texts, first = [first, *texts], None
                if number == 1 and len(texts) == 1 and not splitter.in_array:
                    first = texts.pop()
                if texts and context.dialect.records:
                    raise InputError(
                        f"{context.name}: input.records is for a file that is one object, and this is not one"
                    )
                for rows in _rows(number, texts, context):
                    number += len(rows)
                    yield rows
    except BrokenStreamError as error:
        error.line, error.raw = number, splitter.rest
        raise
    if first is not None:
        for rows in _rows_of_document(first, context):
            yield rows
        number += 1
    if splitter.rest or splitter.in_array:
        yield [bad_row(number, splitter.rest, TRUNCATED)]


def _rows(number: int, texts: Sequence[bytes], context: ReadContext) -> Iterator[list[Row]]:
    context.progress.lines_read += len(texts)
    for start in range(0, len(texts), context.batch):
        yield list(json_rows(number + start, texts[start : start + context.batch], context))


def _rows_of_document(text: bytes, context: ReadContext) -> Iterator[list[Row]]:
    """Yield the rows of a text that is one object: those of its list of records, or the object itself."""
    if len(text) > LINE_BYTES:
        raise InputError(
            f"{context.name}: is one object of more than {LINE_BYTES:,} bytes; if it holds the records in a list, take "
            f"them out: jq -c '.data[]' {context.name} > records.jsonl"
        )
    rows = list(json_rows(1, [text], context))
    records = _find_records(rows[0][1], context) if rows and not rows[0][3] else None
    if records is None:
        yield rows
        return
    context.progress.lines_read += len(records)
    for start in range(0, len(records), context.batch):
        yield [_to_row(start + at, one) for at, one in enumerate(records[start : start + context.batch], 1)]


def _to_row(number: int, value: JSON) -> Row:
    data = codec.dumps(value)
    if isinstance(value, dict):
        return number, value, codec.digest64(data), ""
    return bad_row(number, data, describe_non_object(value))


def _find_records(value: dict[str, JSON], context: ReadContext) -> list[JSON] | None:
    """Return an object's list of records; None if it is a record itself. Raises InputError if the user must choose."""
    wanted, lists = context.dialect.records, _object_lists(value)
    if wanted == "":
        return None
    there = ", ".join(f"{path!r} with {len(records):,} objects" for path, records in lists.items())
    if wanted is not None:
        value_there = _value_at(value, wanted)
        if not isinstance(value_there, list):
            raise InputError(
                f"{context.name}: input.records: there is no list at {wanted!r}; there is {there or 'none'}"
            )
        return value_there
    if not lists and _is_table(value):
        raise InputError(
            f"{context.name}: holds one object of columns or of named rows, as pandas' to_json writes it: write it "
            "with orient='records', lines=True, or set input.records to \"none\" if the object is one record"
        )
    if not lists or (len(value) > 1 and max(map(len, lists.values())) < 2):
        return None
    if len(lists) > 1 or _has_prose(value):
        raise InputError(
            f"{context.name}: holds one object, and in it {there}: set input.records to the list that holds the "
            f'records, like "{next(iter(lists))}", or to "none" if the object is one record'
        )
    [(path, records)] = lists.items()
    context.progress.note(f"its records are the {len(records):,} objects in {path!r}", context.name, records=path)
    return records


def _object_lists(value: Mapping[str, JSON]) -> dict[str, list[JSON]]:
    """Return the lists of objects in an object, by path. Nested lists count only if it has none at the top level."""
    lists = {
        name: records
        for name, records in value.items()
        if isinstance(records, list) and records and all(isinstance(one, dict) for one in records)
    }
    return lists or {
        f"{name}.{path}": records
        for name, inner in value.items()
        if isinstance(inner, dict)
        for path, records in _object_lists(inner).items()
    }


def _is_table(value: Mapping[str, JSON]) -> bool:
    """Whether the object contains only lists of one length, or objects with the same keys: columns, or rows."""
    shapes = {
        len(one) if isinstance(one, list) else tuple(one) if isinstance(one, dict) else None for one in value.values()
    }
    return len(value) > 1 and len(shapes) == 1 and not shapes & {None, 0, 1, ()}


def _has_prose(value: Mapping[str, JSON]) -> bool:
    """Whether the object has a text of its own, as records do, unlike the object around a list of records."""
    return any(isinstance(one, str) and " " in one.strip() for one in value.values())


def _value_at(value: JSON, path: str) -> JSON:
    """Return the value at a dotted path. Names may contain dots themselves."""
    if not isinstance(value, dict):
        return None
    if path in value:
        return value[path]
    name, dot, rest = path.partition(".")
    return _value_at(value.get(name), rest) if dot else None
