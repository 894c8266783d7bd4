"""JSON in and out, as bytes: the one place that knows which JSON library is used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

#: raised by `loads` for text that is not JSON; a ValueError
JSONDecodeError = orjson.JSONDecodeError
_OPTIONS = orjson.OPT_NON_STR_KEYS
#: Levels in a foreign text. What is done with values goes into itself (writing, cleaning, showing them), and Python
#: ends that with an error after a few hundred.
MOST_DEPTH = 200
#: what may be an integer beyond 64 bits
_LONG_INTEGER = re.compile(r"\d{20}|-\d{19}")
#: the escapes of a JSON text: a pair of surrogates, one that is alone, any other
_HALVES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
# A run of nineteen digits has two neighbours among every ninth character: a look at those few is enough for nearly all
# texts. Digits become 0 and all else a space, so that the neighbours are found by a memory scan.
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_STEP, _NEIGHBOURS = slice(8, None, 9), b"00"


# The same with all that a number may hold: what may lose digits is found at the speed of a memory scan.
_NUMBERS = bytes(48 if 48 <= b <= 57 else {46: 46, 69: 101, 101: 101, 43: 45, 45: 45}.get(b, 32) for b in range(256))
#: integers beyond 64 bits; decimals of sixteen digits, eight of which are on one side of the point; long exponents
_SIGNS = (b"0" * 20, b"-" + b"0" * 19, b"." + b"0" * 8, b"0" * 8 + b".", b"0e-000", b"0e000")
_LONG = re.compile(rb"\d[\d.]{16,}(?:[eE][+-]?\d+)?|\d[\d.]*[eE][+-]?\d{3,}")


class Digits(float):
    """A decimal number that no float holds: a float in calculations, and in writing the text that was read."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Digits:
        made = super().__new__(cls, text)
        made.text = text.lower()
        return made

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


def loads(data: bytes | str) -> Any:
    """The value of a JSON text, in which integers beyond 64 bits become floats. Raises JSONDecodeError."""
    value = orjson.loads(data)
    return value if len(data) <= 2 * MOST_DEPTH else _check_depth(value, data)


def _check_depth(value: Any, data: bytes | str) -> Any:
    # Few texts are so long, and fewer have so many brackets: only those are walked through.
    if len(data) > 2 * MOST_DEPTH and _brackets(data) > MOST_DEPTH and _is_deep(value):
        raise JSONDecodeError(f"nested more than {MOST_DEPTH} levels deep", str(data[:80]), 0)
    return value


def loads_digits(text: str) -> Any:
    """The value of a foreign JSON text, with all the digits of its integers. Raises JSONDecodeError.

    Half a character, which a text has that was cut in the middle of an emoji, becomes U+FFFD.
    """
    try:
        return _loads_digits(text)
    except JSONDecodeError:
        whole = _HALVES.sub(lambda match: "\\ufffd" if match["half"] else match[0], clean_text(text))
        if whole == text:
            raise
        return _loads_digits(whole)


def _loads_digits(text: str) -> Any:
    value = loads(text)
    if _NEIGHBOURS not in text[_STEP].encode("ascii", "replace").translate(_DIGITS) or not _LONG_INTEGER.search(text):
        return value
    import json

    return json.loads(text)


def loads_exact(text: str) -> Any:
    """The value of a JSON text that `dumps` wrote, with its lone surrogates and all the digits of its numbers.

    Raises JSONDecodeError.
    """
    try:
        return loads_numbers(text.encode())
    except JSONDecodeError:
        return _loads_stdlib(text)


def loads_numbers(data: bytes) -> Any:
    """The value of a JSON text, with all the digits of its numbers. Raises JSONDecodeError."""
    if may_lose_digits(data) and any(map(_is_inexact, _LONG.findall(data))):
        return _check_depth(_loads_stdlib(data.decode()), data)
    return loads(data)


def loads_loosely(data: bytes, object_of: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The same where it is no JSON for its NaN (null), Infinity (its name), 1e400, or halves of characters (U+FFFD).

    `object_of` makes a value of each object's keys and values. Raises JSONDecodeError.
    """
    return clean(_check_depth(_loads_stdlib(data.decode(), _LOOSE, object_of), data))


def may_lose_digits(data: bytes) -> bool:
    """Whether there may be a number in these JSON texts that no 64 bits hold; a quick look."""
    numbers = data.translate(_NUMBERS)
    return any(sign in numbers for sign in _SIGNS)


def keys_in(value: Any) -> int:
    """How many keys all the objects in a JSON value have."""
    count, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            count += len(one)
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
    return count


_LOOSE = {"NaN": None, "Infinity": "inf", "-Infinity": "-inf"}


def _loads_stdlib(
    text: str,
    constants: Mapping[str, Any] | None = None,
    object_of: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """By the standard library, which is slow and takes all; NaN and the like only where `constants` says as what."""
    import json

    def constant(name: str) -> Any:
        if constants is None:
            raise JSONDecodeError(f"{name} is no JSON", text, max(0, text.find(name)))
        return constants[name]

    try:
        value = json.loads(text, parse_float=_parse_float, parse_constant=constant, object_pairs_hook=object_of)
    except (RecursionError, ValueError) as error:
        other = "nested too deeply" if isinstance(error, RecursionError) else "a number has thousands of digits"
        raise JSONDecodeError(getattr(error, "msg", other), text, getattr(error, "pos", 0)) from error
    return value


def _is_inexact(number: bytes) -> bool:
    """Whether the fast reader would make another number of it. Where it stands in a text, that costs a moment only."""
    text = number.decode()
    if text.isdigit():
        return len(text) > 18
    try:
        return repr(float(text)) != text and type(_parse_float(text)) is Digits
    except ValueError:  # digits and points that are no number
        return False


def _parse_float(text: str) -> float:
    """The number as a float, or as Digits where that is another number."""
    value = float(text)
    if repr(value) == text:
        return value
    from decimal import Decimal, InvalidOperation

    try:
        return value if Decimal(text) == Decimal(repr(value)) else Digits(text)
    except InvalidOperation:  # an exponent of many digits
        return Digits(text)


def _brackets(data: bytes | str) -> int:
    return data.count("[") + data.count("{") if isinstance(data, str) else data.count(b"[") + data.count(b"{")


def _is_deep(value: Any) -> bool:
    """Whether lists and objects lie in each other more than MOST_DEPTH levels deep."""
    level = [value]
    for _ in range(MOST_DEPTH):
        inner = [one for outer in level for one in (outer.values() if isinstance(outer, dict) else outer)]
        level = [one for one in inner if isinstance(one, dict | list)]
        if not level:
            return False
    return True


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON. Dates and the like become ISO text; what has no JSON form becomes its `str`.

    NaN and infinity become null.
    """
    try:
        return orjson.dumps(value, option=_OPTIONS, default=_default)
    except TypeError:
        # orjson refuses integers beyond 64 bits and lone surrogates; the standard library takes both.
        return _dumps_stdlib(value, separators=(",", ":"))


def _default(value: Any) -> Any:
    return orjson.Fragment(value.text) if type(value) is Digits else str(value)


def _dumps_stdlib(value: Any, **form: Any) -> bytes:
    import json

    digits: dict[str, str] = {}
    try:
        text = json.dumps(_with_placeholders(value, digits), ensure_ascii=True, default=_to_plain, **form)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if "NaN" in text or "Infinity" in text:
        text = json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=True, **form)
    for cover, number in digits.items():
        text = text.replace(json.dumps(cover), number)
    return text.encode()


def _with_placeholders(value: Any, digits: dict[str, str]) -> Any:
    """The value with a text in place of each of its Digits, which the standard library would write as floats."""
    if isinstance(value, dict):
        return {name: _with_placeholders(item, digits) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_placeholders(item, digits) for item in value]
    if type(value) is not Digits:
        return value
    cover = f"\0digits {len(digits)}\0"
    digits[cover] = value.text
    return cover


def _to_plain(value: Any) -> Any:
    """What orjson would have made of a value that the standard library does not know: the same text either way."""
    try:
        return orjson.loads(orjson.dumps(value, option=_OPTIONS, default=_default))
    except TypeError:
        return str(value)


def plain(value: Any) -> Any:
    """A copy as plain JSON. Raises ValueError or TypeError for what JSON cannot hold. Half a character is U+FFFD."""
    try:
        return loads_numbers(orjson.dumps(value, option=_OPTIONS, default=_default))
    except TypeError:
        return loads_digits(_dumps_stdlib(value).decode())


def clean(value: Any) -> Any:
    """The JSON value with U+FFFD for each lone surrogate, which has no UTF-8; two that make a pair are a character."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(name): clean(item) for name, item in value.items()}
    return value


def clean_text(text: str) -> str:
    """`clean` of a text."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def flatten(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, by dotted key. An empty table is a value."""
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def is_number(value: Any) -> bool:
    """Whether it is a number: true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_same(one: Any, other: Any) -> bool:
    """Whether the values are equal: true is not 1, as Python has it."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def pretty(value: Any) -> bytes:
    """JSON for people: indented, with a newline at the end."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | _OPTIONS, default=_default)
    except TypeError:
        return _dumps_stdlib(value, indent=2) + b"\n"


def canonical(value: Any) -> bytes:
    """JSON with sorted keys: equal values give equal bytes."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | _OPTIONS, default=_default)
    except TypeError:
        return _dumps_stdlib(value, separators=(",", ":"), sort_keys=True)


def digest64(data: bytes) -> int:
    """A signed 64-bit hash, as SQLite keeps integers."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def column_names_digest(names: Sequence[str]) -> bytes:
    """What stands for the names of a table's columns in the digests of its rows."""
    return digest128(dumps(names))


def digest128(data: bytes) -> bytes:
    """A 16-byte hash."""
    return hashlib.blake2b(data, digest_size=16).digest()
