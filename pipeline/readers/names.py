"""The names of records: those that a field gives, and those that are made up where it gives none."""

import re

from pipeline.records import JSON

#: What a made-up name looks like. A given one that looks so too gets a backslash more: no two of them are ever equal.
_LIKE_MADE_UP = re.compile(r"\\*\(.*:\d+\)", re.DOTALL)


def made_up_name(place: str) -> str:
    """The name of a record that has none of its own, among records that have: its place, as in `(in.csv:3)`."""
    return f"({place})"


def given_name(value: JSON) -> str:
    """The name that a field's value gives; empty where it gives none.

    It depends on the value and not on its type: 1, 1.0 and "1" are one name, for files change the types of numbers.
    """
    if isinstance(value, str):
        return f"\\{value}" if _LIKE_MADE_UP.fullmatch(value) else str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value) if isinstance(value, int) else ""
