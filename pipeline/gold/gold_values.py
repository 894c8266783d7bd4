"""A person's value, which in a CSV is always a text, as what the label field holds."""

import ast
import math
import re
from collections.abc import Sequence

from pipeline import codec
from pipeline.gold.label_fields import MeasuredField, class_name
from pipeline.records import JSON

#: The name of the class of a label that is null, or not there.
NONE = "(none)"
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
#: What may stand between several labels in one cell.
_BETWEEN = ("|", ";", ",", "\n")


def has_value(value: JSON) -> bool:
    """Whether there is a value: an empty cell, or one of white space only, is not answered."""
    return value is not None and (type(value) is not str or (value != "" and not value.isspace()))


def as_class(field: MeasuredField, value: JSON) -> str:
    """The class that a value names. Texts count as they stand: case and white space tell classes apart.

    Only where the field holds numbers, or true and false, is another writing of the same value read: "1.0" as 1,
    "TRUE" as true.
    """
    name = class_name(value)
    if name in field.values or not isinstance(value, str):
        return name
    if field.is_bool and (word := value.strip().lower()) in ("true", "false"):
        return word
    if field.numbers is not None and (number := as_number(value)) is not None:
        return class_name(number)
    return name


def as_number(value: JSON) -> int | float | None:
    """The number, a whole one with all its digits, or None where it is none.

    A text may have a decimal comma, as where a spreadsheet writes semicolons between values. 1,000 may be either, and
    is no number.
    """
    if type(value) is float:  # nearly always, and there may be a million
        return value if math.isfinite(value) else None
    if isinstance(value, codec.Digits):
        value = value.text
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()) and not _THOUSANDS.fullmatch(value.strip()):
        value = value.replace(",", ".")
    try:
        number = float(value)
        if not math.isfinite(number):
            return None
        return int(value) if isinstance(value, int) or _WHOLE.fullmatch(str(value).strip()) else number
    except (ValueError, OverflowError):
        return None


def as_set(field: MeasuredField, value: JSON) -> frozenset[str]:
    """The classes that a value names.

    A list is one, and so is a text that holds a list as JSON or as Python write it; else a text is one class, or
    several with `|`, `;`, a comma, or a line break between them, if all parts are classes of the field.
    """
    if isinstance(value, str):
        value = _parted(field, value)
    items = value if isinstance(value, list) else [value]
    return frozenset(as_class(field, item) for item in items if item is not None)


def _parted(field: MeasuredField, text: str) -> JSON:
    if text in field.values:
        return text
    if text.lstrip().startswith("["):
        for read in (codec.loads, ast.literal_eval):
            try:
                splits = read(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(splits, list):
                return splits
    splits = [_parts(text, sign) for sign in _BETWEEN if sign in text]
    if field.values:
        splits = [parts for parts in splits if all(as_class(field, part) in field.values for part in parts)]
    return splits[0] if splits else text


def _parts(text: str, sign: str) -> Sequence[str]:
    return [part.strip() for part in text.split(sign) if part.strip()]
