"""Reads and writes JSON as bytes. Only this module knows which JSON library is used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

#: `loads` raises it for text that is not JSON. It is a ValueError.
JSONDecodeError = orjson.JSONDecodeError
_OPTIONS = orjson.OPT_NON_STR_KEYS
#: The most levels of nesting in a text from outside. Writing, cleaning, and displaying values recurse, and Python
#: raises an error after a few hundred levels.
MOST_DEPTH = 200
#: Finds what may be an integer beyond 64 bits.
_LONG_INTEGER = re.compile(r"\d{20}|-\d{19}")
#: The escapes of a JSON text: a pair of surrogates, a lone surrogate, or any other escape.
_HALVES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
# A run of nineteen digits has two neighbors among every ninth character, so nearly all texts need only a look at those
# few. Digits become 0 and everything else a space, so that a memory scan finds the neighbors.
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_STEP, _NEIGHBOURS = slice(8, None, 9), b"00"


# The same for everything that a number may contain: a memory scan finds what may lose digits.
_NUMBERS = bytes(48 if 48 <= b <= 57 else {46: 46, 69: 101, 101: 101, 43: 45, 45: 45}.get(b, 32) for b in range(256))
#: Integers beyond 64 bits, decimals of sixteen digits with eight of them on one side of the point, and long exponents.
_SIGNS = (b"0" * 20, b"-" + b"0" * 19, b"." + b"0" * 8, b"0" * 8 + b".", b"0e-000", b"0e000")
_LONG = re.compile(rb"\d[\d.]{16,}(?:[eE][+-]?\d+)?|\d[\d.]*[eE][+-]?\d{3,}")


class Digits(float):
    """A decimal number that no float can represent: a float in calculations, and its own text when it is written."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Digits:
        number = super().__new__(cls, text)
        number.text = text.lower()
        return number

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


def loads(data: bytes | str) -> Any:
    """Parse a JSON text. Integers beyond 64 bits become floats. Raises JSONDecodeError."""
    value = orjson.loads(data)
    return value if len(data) <= 2 * MOST_DEPTH else _check_depth(value, data)


def _check_depth(value: Any, data: bytes | str) -> Any:
    # Few texts are long enough, or have enough brackets, to be too deep: only those are traversed.
    if len(data) > 2 * MOST_DEPTH and _brackets(data) > MOST_DEPTH and _is_deep(value):
        raise JSONDecodeError(f"nested more than {MOST_DEPTH} levels deep", str(data[:80]), 0)
    return value


def loads_digits(text: str) -> Any:
    """Parse a JSON text from outside, with all digits of its integers. Raises JSONDecodeError.

    A lone surrogate, as in a text that was cut in the middle of an emoji, becomes U+FFFD.
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
    """Parse a JSON text that `dumps` wrote, with its lone surrogates and all digits of its numbers.

    Raises JSONDecodeError.
    """
    try:
        return loads_numbers(text.encode())
    except JSONDecodeError:
        return _loads_stdlib(text)


def loads_numbers(data: bytes) -> Any:
    """Parse a JSON text with all digits of its numbers. Raises JSONDecodeError."""
    if may_lose_digits(data) and any(map(_is_inexact, _LONG.findall(data))):
        return _check_depth(_loads_stdlib(data.decode()), data)
    return loads(data)


def loads_loosely(data: bytes, object_of: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Parse like `loads_numbers`, but accept NaN (null), Infinity (its name), 1e400, and lone surrogates (U+FFFD).

    `object_of` makes a value of each object's keys and values. Raises JSONDecodeError.
    """
    return clean(_check_depth(_loads_stdlib(data.decode(), _LOOSE, object_of), data))


def may_lose_digits(data: bytes) -> bool:
    """Whether these JSON texts may contain a number that does not fit into 64 bits. This is a quick check."""
    numbers = data.translate(_NUMBERS)
    return any(sign in numbers for sign in _SIGNS)


def keys_in(value: Any) -> int:
    """Count the keys of all objects in a JSON value."""
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
    """Parse with the standard library, which is slow and accepts everything; NaN and the like only with `constants`."""
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
    """Whether the fast parser would change the number."""
    text = number.decode()
    if text.isdigit():
        return len(text) > 18
    try:
        return repr(float(text)) != text and type(_parse_float(text)) is Digits
    except ValueError:  # digits and points that are not a number
        return False


def _parse_float(text: str) -> float:
    """Return the number as a float, or as Digits if a float would change it."""
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
    """Whether lists and objects are nested more than MOST_DEPTH levels deep."""
    level = [value]
    for _ in range(MOST_DEPTH):
        inner = [one for outer in level for one in (outer.values() if isinstance(outer, dict) else outer)]
        level = [one for one in inner if isinstance(one, dict | list)]
        if not level:
            return False
    return True


def dumps(value: Any) -> bytes:
    """Write compact UTF-8 JSON. Dates and times become ISO text; values without a JSON form become their `str`.

    NaN and infinity become null.
    """
    try:
        return orjson.dumps(value, option=_OPTIONS, default=_default)
    except TypeError:
        # orjson refuses integers beyond 64 bits and lone surrogates; the standard library accepts both.
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
    """Replace each of the value's Digits by a text, because the standard library would write them as floats."""
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
    """Convert a value that the standard library does not know as orjson would, so that both write the same text."""
    try:
        return orjson.loads(orjson.dumps(value, option=_OPTIONS, default=_default))
    except TypeError:
        return str(value)


def plain(value: Any) -> Any:
    """Return a copy as plain JSON; lone surrogates become U+FFFD. Raises ValueError or TypeError for other values."""
    try:
        return loads_numbers(orjson.dumps(value, option=_OPTIONS, default=_default))
    except TypeError:
        return loads_digits(_dumps_stdlib(value).decode())


def clean(value: Any) -> Any:
    """Replace each lone surrogate of a JSON value by U+FFFD, because it has no UTF-8, and join pairs of surrogates."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(name): clean(item) for name, item in value.items()}
    return value


def clean_text(text: str) -> str:
    """Do the same as `clean` for a text."""
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
    """Write JSON for people: indented, with a newline at the end."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | _OPTIONS, default=_default)
    except TypeError:
        return _dumps_stdlib(value, indent=2) + b"\n"


def canonical(value: Any) -> bytes:
    """Write JSON with sorted keys: equal values give equal bytes."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | _OPTIONS, default=_default)
    except TypeError:
        return _dumps_stdlib(value, separators=(",", ":"), sort_keys=True)


def digest64(data: bytes) -> int:
    """Return a signed 64-bit hash, the size of SQLite's integers."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def column_names_digest(names: Sequence[str]) -> bytes:
    """Return the bytes that represent a table's column names in the digests of its rows."""
    return digest128(dumps(names))


def digest128(data: bytes) -> bytes:
    """Return a 16-byte hash."""
    return hashlib.blake2b(data, digest_size=16).digest()
