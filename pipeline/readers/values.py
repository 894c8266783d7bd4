"""Converts values of other libraries (Arrow, SQL, numpy, pandas) to JSON."""

from __future__ import annotations

import base64
import datetime
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.records import JSON

JSON_TYPES = (str, int, bool, type(None))  #: Types that need no conversion.
#: An object's address in memory, as in <Order object at 0x7f...>. It differs in each process, so no run could resume.
_PLACE = re.compile(r" at 0x[0-9a-fA-F]+(?=>)")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value that cannot be read, why, and what could be saved of it. It affects only its own row."""

    trouble: str
    saved: str = ""

    @classmethod
    def text(cls, data: bytes) -> Unreadable:
        """Create one for bytes that should be text and are not."""
        return cls("not valid UTF-8", data.decode("utf-8", "replace"))


def to_json(value: Any) -> JSON:
    """Convert the value to JSON.

    Dates and times become ISO text; decimals, durations, and other types become their text. Bytes become text if they
    are UTF-8, otherwise base64. NaN and pandas' marks for missing values become null.
    """
    if type(value) in JSON_TYPES:
        return value
    if isinstance(value, float):
        return _float_to_json(float(value))
    if isinstance(value, datetime.date | datetime.time):
        # pandas' NaT is a date that does not equal itself.
        return value.isoformat() if value == value else None
    if isinstance(value, datetime.timedelta):
        return _timedelta_to_json(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _bytes_to_json(bytes(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(each) for each in value]
    if isinstance(value, Unreadable):
        return value.saved
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    return _other_to_json(value)


def all_to_json(values: Iterable[Any]) -> list[JSON]:
    """Convert each value to JSON; for common types, only the type is checked."""
    return [value if type(value) in JSON_TYPES else to_json(value) for value in values]


def _timedelta_to_json(value: datetime.timedelta) -> JSON:
    """Return a duration's text, or its number of nanoseconds if it has any, as only pandas' own type does."""
    if value != value:
        return None
    made = getattr(value, "to_pytimedelta", None)
    if made is None:
        return str(value)
    return str(value.value) if value.nanoseconds else str(made())  # type: ignore[attr-defined]


def _float_to_json(value: float) -> JSON:
    """Convert NaN to null and infinity to its text, because JSON has neither."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _bytes_to_json(value: bytes) -> str:
    """Return text if it is UTF-8, otherwise base64."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _other_to_json(value: Any) -> JSON:
    """Convert numpy's and pandas' own types, detected by name and methods, so that neither is imported."""
    module = type(value).__module__.partition(".")[0]
    if module == "pandas" and type(value).__name__ in ("NAType", "NaTType"):
        return None
    if module == "numpy":
        if type(value).__name__ in ("datetime64", "timedelta64"):
            # `item` returns a bare number for nanoseconds.
            return None if str(value) == "NaT" else str(value)
        made = value.tolist()
        return to_json(made) if type(made) is not type(value) else str(value)
    return _PLACE.sub("", str(value))
