"""JSON texts to rows: what is JSON, what is so but for what other programs write, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline import codec
from pipeline.readers.rows import CUT_IN_TWO, Reading, Row, bad_row, undecodable
from pipeline.records import JSON

LINE_BYTES = 64 * 1024 * 1024  #: a longer line of JSONL or text is unreadable; it is never held whole
_EXCERPT_CHARS = 80


def json_rows(first: int, batch: Sequence[bytes], reading: Reading) -> Iterator[Row]:
    """The rows of JSON texts, the first of which has this number; blank ones are skipped."""
    # Numbers that lose digits are rare: a look at all lines at once is cheaper than one at each.
    loads = codec.loads_numbers if codec.may_lose_digits(b"\n".join(batch)) else codec.loads
    for number, line in enumerate(batch, first):
        raw = line.rstrip(b"\r")
        if len(raw) > LINE_BYTES:
            yield bad_row(number, raw, too_long())
            continue
        try:
            value = loads(raw)
        except (ValueError, RecursionError) as error:
            if not raw.strip():
                continue
            value = _loosely(raw, reading)
            if value is None:
                yield bad_row(number, raw, _json_trouble(raw, error, reading))
                continue
        if type(value) is dict:
            yield number, value, codec.digest64(raw), ""
        else:
            yield bad_row(number, raw, _not_an_object(value))


def _loosely(raw: bytes, reading: Reading) -> JSON:
    """The value of a line that is no JSON only for what other programs write; None where that is not all."""
    try:
        # A line of an array without its brackets ends with a comma.
        value = codec.loads_loosely(raw.rstrip().removesuffix(b","))
    except ValueError:
        return None
    if b"\\u" in raw and "\ufffd" in str(value):
        reading.progress.note(CUT_IN_TWO, reading.name)
    return value


def _json_trouble(raw: bytes, error: Exception, reading: Reading) -> str:
    if trouble := undecodable(raw, reading.encoding):
        return trouble
    if reading.unit == "record" and raw[:1] not in (b"{", b"["):
        return f"a JSON object is needed, but here stands {raw[:_EXCERPT_CHARS].decode(errors='replace')!r}"
    if not isinstance(error, codec.JSONDecodeError):
        return f"not valid JSON: {error}"
    start = max(0, error.pos - _EXCERPT_CHARS // 2)
    excerpt = error.doc[start : start + _EXCERPT_CHARS]
    return f"not valid JSON: {error.msg} at column {error.colno}: {excerpt!r}"


def _not_an_object(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return f"a JSON object is needed, but this is {names.get(type(value), 'a number')}"


def too_long() -> str:
    """What is wrong with a line that is."""
    return f"a line longer than {LINE_BYTES:,} bytes"
