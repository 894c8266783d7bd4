"""Converts values to text and text to values."""

import datetime
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from pydantic import SecretStr

from pipeline import codec

#: How much of a value an error shows, in characters.
DISPLAY_CHARS = 60
#: Replaces a secret.
REDACTED = "***"
#: Unsets a key that has `none` as a value. It is listed with the kinds that such a key takes.
AUTO = "auto"

_KEY = re.compile(r"sk-[\w-]{4,}")
_LOGIN = re.compile(r"//[^/\s]*@")
_PARAMETER = re.compile(r"([?&;#]([^=&;#?\s]+)=)[^&;#\s\"']+")
#: Names of parameters that carry a secret: those of S3, Google Storage, and Azure, and common names of keys.
_SECRET = re.compile(
    r"signature|token|secret|passw|credential|api.?key|access.?key|authorization|^(sig|sas|key|auth|pwd|pass)$",
    re.IGNORECASE,
)
_YES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_DATES = (datetime.date, datetime.time)


def as_toml(value: Any, limit: int = DISPLAY_CHARS) -> str:
    """Write the value in TOML on one line, cut to `limit` characters. None is `none`."""
    text = one_line(_toml(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, SecretStr):
        return REDACTED
    if isinstance(value, Mapping):
        items = ", ".join(f"{key_text(str(key))} = {_toml(item)}" for key, item in value.items())
        return f"{{ {items} }}" if items else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, _DATES):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.0f}"
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}" if 1e-9 < abs(value) < 1 else repr(value)
    return codec.dumps(value).decode()


def key_text(name: str) -> str:
    """Write a key in TOML: bare if possible, else in quotes."""
    bare = name.isascii() and name.replace("-", "_").isidentifier()
    return name if bare or (name.isascii() and name.isdigit()) else codec.dumps(name).decode()


def dotted(path: Iterable[str | int]) -> str:
    """Join a path of keys into one dotted key."""
    return ".".join(key_text(str(part)) for part in path)


def redact(text: str) -> str:
    """Replace what looks like an API key, or like a login or a signature in an address."""
    plain = _PARAMETER.sub(lambda found: f"{found[1]}***" if _SECRET.search(unquote(found[2])) else found[0], text)
    return _KEY.sub("sk-***", _LOGIN.sub("//***@", plain))


def secret_parameter(address: str) -> str:
    """Return the name of a parameter that seems to carry a secret in an address, or an empty text."""
    names = (unquote(found[2]) for found in _PARAMETER.finditer(address))
    return next((name for name in names if _SECRET.search(name)), "")


def one_line(text: str) -> str:
    """Escape everything that would not print."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char) or f"\\u{ord(char):04x}"


def closest_match(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` was most likely meant to be."""
    names = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None


def kind_of(value: Any) -> str:
    """Return the kind of a value: text, whole number, number, true or false, list, or table."""
    if isinstance(value, bool):
        return "true or false"
    for types, kind in _KINDS:
        if isinstance(value, types):
            return kind
    return "nothing" if value is None else type(value).__name__


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (str, "text"),
    (int, "whole number"),
    (float, "number"),
    ((list, tuple), "list"),
    (Mapping, "table"),
    (_DATES, "date or time"),
)


def parse_value(text: str, kinds: frozenset[str]) -> Any:
    """Parse `text` for a key that takes `kinds`: as TOML or JSON if possible, else as the text itself.

    `none` is None where the key may be unset; `auto` where `none` is one of its values. Where only text
    is taken, `5` is the text `5`.
    """
    if ("nothing" in kinds and text.strip().lower() == "none") or (AUTO in kinds and text.strip() == AUTO):
        return None
    if kinds <= {"true or false", "nothing"} and text.strip().lower() in _YES:
        return _YES[text.strip().lower()]
    value = _literal(text)
    if kind_of(value) in kinds or "text" not in kinds:
        return value
    return text


def _literal(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except ValueError:
        table = {}
    value = table.get("value", text)
    # A second key means that the text contained a line break, so it is not a single value.
    if len(table) == 1 and not isinstance(value, _DATES):
        return value
    return _json(text) if text.lstrip()[:1] in ("{", "[") else text


def _json(text: str) -> Any:
    try:
        return codec.loads(text)
    except codec.JSONDecodeError:
        return text
