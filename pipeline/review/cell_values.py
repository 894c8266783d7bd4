"""Reads the cells of a file that a person has filled in as values of label fields.

A spreadsheet changes how a value is written: TRUE for true, 1.0 for 1, other line ends. Texts that it would run as a
formula were written with an apostrophe in front. A value that is only written differently is not a change.
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
#: The most values of a field that a message names.
_VALUES_IN_MESSAGE = 12


def is_empty(value: JSON) -> bool:
    """Whether nothing was filled in."""
    return value is None or (isinstance(value, str) and not value.strip())


def is_checked(value: JSON) -> bool:
    """Whether the cell has a mark: anything but nothing, 0, no, and false."""
    return not is_empty(value) and str(value).strip().lower() not in _NO


def unescape(text: str) -> str:
    """Return the text with plain line ends, without the apostrophe in front of a formula."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text[1:] if text[:1] == "'" and safe_cell(text[1:]) == text else text


def matches_cell(content: JSON, value: JSON) -> bool:
    """Whether a cell contains this value, as our files or a spreadsheet write it."""
    if not isinstance(content, str):
        return codec.canonical(content) == codec.canonical(value)
    text = cell(value)
    if content == text or unescape(content) in (text, unescape(text)):
        return True
    return isinstance(value, bool | int | float) and any(codec.is_same(other, value) for other in _readings(content))


def is_equal(one: JSON, other: JSON) -> bool:
    """Whether two values of a label are equal. Lists of labels are compared without their order."""
    if isinstance(one, list) and isinstance(other, list):
        return sorted(map(codec.canonical, one)) == sorted(map(codec.canonical, other))
    return codec.canonical(one) == codec.canonical(other)


def parse_cell(content: JSON, field: LabelColumn) -> JSON:
    """Return the value of the field in a cell. Raises ValueError, whose message names the allowed values."""
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
    """Yield the values other than text that the text may represent."""
    text = unescape(text).strip()
    if (word := text.lower()) in _BOOLEANS:
        yield _BOOLEANS[word]
    if _WHOLE.fullmatch(text):  # with all its digits, which a float may lose
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
