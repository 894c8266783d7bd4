"""JSON in and out, as bytes: the one place that knows which JSON library is used."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson

#: raised by `loads` for text that is not JSON; a ValueError
JSONDecodeError = orjson.JSONDecodeError
_LONG_INTEGER = re.compile(r"\d{19}")


def loads(data: bytes | str) -> Any:
    """The value of a JSON text. Raises JSONDecodeError."""
    return orjson.loads(data)


def loads_exact(text: str) -> Any:
    """The value of a JSON text that `dumps` wrote, with its lone surrogates and integers of any length.

    `loads` makes a float of an integer beyond 64 bits.
    """
    if not _LONG_INTEGER.search(text):
        try:
            return orjson.loads(text)
        except JSONDecodeError:
            pass
    import json

    return json.loads(text)


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON. Dates and the like become ISO text; what has no JSON form becomes its `str`."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str)
    except TypeError:
        # orjson refuses integers beyond 64 bits and lone surrogates; the standard library takes both.
        import json

        return json.dumps(value, ensure_ascii=True, default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """What orjson would have made of a value that the standard library does not know: the same text either way."""
    try:
        return orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str))
    except TypeError:
        return str(value)


def pretty(value: Any) -> bytes:
    """JSON for people: indented, with a newline at the end."""
    return orjson.dumps(
        value,
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS,
        default=str,
    )


def canonical(value: Any) -> bytes:
    """JSON with sorted keys: equal values give equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)


def digest64(data: bytes) -> int:
    """A signed 64-bit hash, as SQLite keeps integers."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def digest128(data: bytes) -> bytes:
    """A 16-byte hash."""
    return hashlib.blake2b(data, digest_size=16).digest()
