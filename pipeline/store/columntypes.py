"""Infers the types of columns, for files and tables whose columns have types."""

import math
from collections.abc import Iterable, Sequence

from pipeline import codec
from pipeline.records import JSON
from pipeline.store.formats import cell

#: Integers up to this one are doubles without loss.
EXACT = 2**53
#: The type of a column whose values are of this kind. All other kinds are text.
_TYPES = {"bool": "bool", "int": "int64", "long": "int64", "double": "double"}


def value_kind(value: JSON) -> str:
    """Return the kind of a value: nothing, bool, int (also fits a double), long (64 bits), double, or text."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "bool"
        case int() if abs(value) <= EXACT:
            return "int"
        case int() if -(2**63) <= value < 2**63:
            return "long"
        case codec.Digits():
            return "text"
        case float():
            return "double" if math.isfinite(value) else "nothing"
    return "text"


def common_kind(one: str, other: str) -> str:
    """Return the kind that holds both without loss."""
    both = {one, other} - {"nothing"}
    if len(both) < 2:
        return both.pop() if both else "nothing"
    if both == {"int", "long"}:
        return "long"
    return "double" if both == {"int", "double"} else "text"


def infer_kinds(before: Sequence[str], rows: Iterable[Sequence[JSON]]) -> list[str]:
    """Return the kind of each column that holds both the kind `before` and these rows without loss."""
    kinds = list(before)
    for row in rows:
        for index, value in enumerate(row):
            kinds[index] = common_kind(kinds[index], value_kind(value))
    return kinds


def column_type(kind: str) -> str:
    """Return the type of a column whose values are of this kind: bool, int64, double, or string."""
    return _TYPES.get(kind, "string")


def convert(column_type: str, value: JSON) -> JSON:
    """Return the value as a column of this type stores it: JSON text if nested, None for NaN and infinity."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if column_type == "string":
        return codec.clean(cell(value))
    return float(value) if column_type == "double" else value
