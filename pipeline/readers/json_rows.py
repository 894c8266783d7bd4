"""Turns JSON texts into rows, tolerates the deviations of other programs, and describes what is wrong with the rest."""

from collections.abc import Iterator, Sequence

from pipeline import codec
from pipeline.readers.headers import unused_name
from pipeline.readers.rows import SPLIT_CHARACTERS, ReadContext, Row, bad_row, describe_decoding_error
from pipeline.records import JSON

LINE_BYTES = 64 * 1024 * 1024  #: A longer line of JSONL or text is unreadable. It is never in memory as a whole.
_EXCERPT_CHARS = 80


def json_rows(first: int, batch: Sequence[bytes], context: ReadContext) -> Iterator[Row]:
    """Yield the rows of JSON texts, numbered from `first`. Blank texts are skipped."""
    # Numbers that would lose digits are rare, so one check of all lines is cheaper than one for each.
    loads = codec.loads_numbers if codec.may_lose_digits(b"\n".join(batch)) else codec.loads
    for number, line in enumerate(batch, first):
        raw = line.rstrip(b"\r")
        if len(raw) > LINE_BYTES:
            yield bad_row(number, raw, describe_long_line())
            continue
        try:
            value = loads(raw)
        except (ValueError, RecursionError) as error:
            if not raw.strip():
                continue
            value = _parse_loosely(raw, context)
            if value is None:
                yield bad_row(number, raw, _describe_json_error(raw, error, context))
                continue
        if type(value) is dict:
            if _may_repeat_keys(raw, value):
                value = _rename_repeated_keys(raw, value, context)
            yield number, value, codec.digest64(raw), ""
        else:
            yield bad_row(number, raw, describe_non_object(value))


def _parse_loosely(raw: bytes, context: ReadContext) -> JSON:
    """Return the value of a line that is JSON except for known deviations of other programs; otherwise None."""
    try:
        # A line of an array without brackets ends with a comma.
        value = codec.loads_loosely(raw.rstrip().removesuffix(b","))
    except ValueError:
        return None
    if b"\\u" in raw and "\ufffd" in str(value):
        context.progress.note(SPLIT_CHARACTERS, context.name)
    return value


def _may_repeat_keys(raw: bytes, value: dict[str, JSON]) -> bool:
    """Whether an object may contain a key twice: more texts look like keys than there are. False alarms are rare."""
    looks = raw.count(b'":') + raw.count(b'" :')
    return looks > len(value) and looks > codec.keys_in(value)


def _rename_repeated_keys(raw: bytes, value: dict[str, JSON], context: ReadContext) -> dict[str, JSON]:
    """Return a line's object in which a repeated key with another value has a new name, like a repeated column."""
    repeated: list[str] = []

    def unique_pairs(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
        result: dict[str, JSON] = {}
        for name, inner in pairs:
            key = name
            if name in result:
                if codec.canonical(result[name]) == codec.canonical(inner):
                    continue
                key = unused_name(f"{name}_2", {*result, *(other for other, _ in pairs)})
                repeated.append(name)
            result[key] = inner
        return result

    unique: dict[str, JSON] = codec.loads_loosely(raw.rstrip().removesuffix(b","), unique_pairs)
    if not repeated:
        return value
    context.progress.note(_REPEATED_KEYS, context.name)
    return unique


_REPEATED_KEYS = "a key that comes again in one object, with another value, gets _2 at its end"


def _describe_json_error(raw: bytes, error: Exception, context: ReadContext) -> str:
    if trouble := describe_decoding_error(raw, context.encoding):
        return trouble
    if context.unit == "record" and raw[:1] not in (b"{", b"["):
        return f"a JSON object is needed, but here stands {raw[:_EXCERPT_CHARS].decode(errors='replace')!r}"
    if not isinstance(error, codec.JSONDecodeError):
        return f"not valid JSON: {error}"
    start = max(0, error.pos - _EXCERPT_CHARS // 2)
    excerpt = error.doc[start : start + _EXCERPT_CHARS]
    return f"not valid JSON: {error.msg} at column {error.colno}: {excerpt!r}"


def describe_non_object(value: object) -> str:
    """Describe a value that should be an object."""
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return f"a JSON object is needed, but this is {names.get(type(value), 'a number')}"


def describe_long_line() -> str:
    """Describe what is wrong with a line that is too long."""
    return f"a line longer than {LINE_BYTES:,} bytes"
