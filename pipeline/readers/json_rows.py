"""JSON texts to rows: what is JSON, what is so but for what other programs write, and what is wrong with the rest."""

from collections.abc import Iterator, Sequence

from pipeline import codec
from pipeline.readers.headers import free_name
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
            if _may_repeat(raw, value):
                value = _each_once(raw, value, reading)
            yield number, value, codec.digest64(raw), ""
        else:
            yield bad_row(number, raw, not_an_object(value))


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


def _may_repeat(raw: bytes, value: dict[str, JSON]) -> bool:
    """Whether a key may stand twice in an object: there are more of what looks like one. Few texts in texts do so."""
    looks = raw.count(b'":') + raw.count(b'" :')
    return looks > len(value) and looks > codec.keys_in(value)


def _each_once(raw: bytes, value: dict[str, JSON], reading: Reading) -> dict[str, JSON]:
    """The object of a line, in which a key that comes again with another value gets another name, as a column does."""
    again: list[str] = []

    def named(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
        found: dict[str, JSON] = {}
        for name, inner in pairs:
            given = name
            if name in found:
                if codec.canonical(found[name]) == codec.canonical(inner):
                    continue
                given = free_name(f"{name}_2", {*found, *(other for other, _ in pairs)})
                again.append(name)
            found[given] = inner
        return found

    once: dict[str, JSON] = codec.loads_pairs(raw.rstrip().removesuffix(b","), named)
    if not again:
        return value
    reading.progress.note(_AGAIN, reading.name)
    return once


_AGAIN = "a key that comes again in one object, with another value, gets _2 at its end"


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


def not_an_object(value: object) -> str:
    """What is wrong with a value that should be a record."""
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return f"a JSON object is needed, but this is {names.get(type(value), 'a number')}"


def too_long() -> str:
    """What is wrong with a line that is."""
    return f"a line longer than {LINE_BYTES:,} bytes"
