"""Values of other worlds (Arrow, SQL, numpy, pandas) as what JSON can hold."""

from __future__ import annotations

import base64
import datetime
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.records import JSON

JSON_TYPES = (str, int, bool, type(None))  #: types that are JSON as they stand
#: Where an object lies in memory, as in <Order object at 0x7f...>: another in each process, so no run would resume.
_PLACE = re.compile(r" at 0x[0-9a-fA-F]+(?=>)")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value that cannot be had, why, and what could be saved of it. It spoils its row, and no other."""

    trouble: str
    saved: str = ""

    @classmethod
    def text(cls, data: bytes) -> Unreadable:
        """What should be a text and is none."""
        return cls("not valid UTF-8", data.decode("utf-8", "replace"))


def to_json(value: Any) -> JSON:
    """The value as JSON.

    Dates and times become ISO text, decimals, durations and other types their text, bytes text if they are UTF-8 and
    base64 otherwise. NaN and pandas' signs for nothing become null.
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
    """Each value as JSON; the usual ones at the cost of a look at their type."""
    return [value if type(value) in JSON_TYPES else to_json(value) for value in values]


def _timedelta_to_json(value: datetime.timedelta) -> JSON:
    """A duration's text; nanoseconds, which only pandas' own type has, as their number."""
    if value != value:
        return None
    made = getattr(value, "to_pytimedelta", None)
    if made is None:
        return str(value)
    return str(value.value) if value.nanoseconds else str(made())  # type: ignore[attr-defined]


def _float_to_json(value: float) -> JSON:
    """NaN is null, infinity its text: JSON has neither."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _bytes_to_json(value: bytes) -> str:
    """Text if it is UTF-8, else base64."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _other_to_json(value: Any) -> JSON:
    """What numpy and pandas have of their own, told by what it can do: neither is imported."""
    module = type(value).__module__.partition(".")[0]
    if module == "pandas" and type(value).__name__ in ("NAType", "NaTType"):
        return None
    if module == "numpy":
        if type(value).__name__ in ("datetime64", "timedelta64"):
            # `item` gives a bare number for nanoseconds.
            return None if str(value) == "NaT" else str(value)
        made = value.tolist()
        return to_json(made) if type(made) is not type(value) else str(value)
    return _PLACE.sub("", str(value))
