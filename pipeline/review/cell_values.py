"""The cells of a file that a person has filled in, read as values of label fields.

A spreadsheet changes how a value is written: TRUE for true, 1.0 for 1, another line end. And it is given texts with an
apostrophe before what it would run as a formula. What is written otherwise and means the same is no change.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches

from pipeline import codec
from pipeline.records import JSON
from pipeline.store import cell, safe_cell
from pipeline.task import LabelColumn
from pipeline.units import shorten_list

_BOOLEANS = {"true": True, "false": False}
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d{1,400}", re.ASCII)
_NO = frozenset({"", "0", "false", "no", "n"})
_SPLITS = (";", "|", ",")
#: values of a field that are named where a cell has none of them
_VALUES_IN_MESSAGE = 12


def is_empty(value: JSON) -> bool:
    """Whether nothing was filled in."""
    return value is None or (isinstance(value, str) and not value.strip())


def is_checked(value: JSON) -> bool:
    """Whether a mark was put here: anything but nothing, 0, no and false."""
    return not is_empty(value) and str(value).strip().lower() not in _NO


def unescape(text: str) -> str:
    """The text without the apostrophe that stands before a formula, with plain line ends."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text[1:] if text[:1] == "'" and safe_cell(text[1:]) == text else text


def matches_cell(content: JSON, value: JSON) -> bool:
    """Whether a cell says this value, as the files write it or as a spreadsheet may."""
    if not isinstance(content, str):
        return codec.canonical(content) == codec.canonical(value)
    text = cell(value)
    if content == text or unescape(content) in (text, unescape(text)):
        return True
    return isinstance(value, bool | int | float) and any(codec.is_same(other, value) for other in _readings(content))


def is_equal(one: JSON, other: JSON) -> bool:
    """Whether two values of a label are the same: for a list of labels in any order."""
    if isinstance(one, list) and isinstance(other, list):
        return sorted(map(codec.canonical, one)) == sorted(map(codec.canonical, other))
    return codec.canonical(one) == codec.canonical(other)


def parse_cell(content: JSON, field: LabelColumn) -> JSON:
    """The value of the field that a cell says. Raises ValueError, which says what it may be."""
    readings = _of_text(content, field) if isinstance(content, str) else iter([content])
    for value in readings:
        if field.accepts(value):
            return value
    raise ValueError(f"{_shortened(content)} is not a value of {field.name}{_expected(content, field)}")


def _of_text(content: str, field: LabelColumn) -> Iterator[JSON]:
    text = unescape(content)
    for written in (content, text, text.strip()):
        yield from (value for value in field.values if cell(value) == written)
    yield text
    yield text.strip()
    yield from _readings(text)
    if field.is_list:
        for mark in _SPLITS:
            yield [part.strip() for part in text.split(mark) if part.strip()]


def _readings(text: str) -> Iterator[JSON]:
    """What the text may mean that is no text."""
    text = unescape(text).strip()
    if (word := text.lower()) in _BOOLEANS:
        yield _BOOLEANS[word]
    if _WHOLE.fullmatch(text):  # with all its digits, which a float may not hold
        yield int(text)
    elif _NUMBER.fullmatch(text):
        number = float(text.replace(",", "."))
        if number.is_integer():
            yield int(number)
        yield number
    try:
        yield codec.loads_exact(text)
    except ValueError:
        return


def _expected(content: JSON, field: LabelColumn) -> str:
    values = [cell(value) for value in field.values]
    if not values:
        kind = field.schema.get("type")
        return f": expected {kind}" if isinstance(kind, str) else ""
    near = get_close_matches(str(content), values, n=1)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f": expected {shorten_list(values, _VALUES_IN_MESSAGE)}"


def _shortened(value: JSON) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
