"""Finds the line of each key in a TOML text, and makes small edits that leave the rest byte for byte.

tomllib returns values without their places. It has read the text before, so this module may assume valid TOML.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pipeline.settings.texts import as_toml, key_text

#: The keys from the root to a value. A number is an index in an array of tables.
Keys: TypeAlias = tuple[str | int, ...]

_BASIC = r'"(?:\\.|[^"\\\n])*"'
_LITERAL = r"'[^'\n]*'"
_PART = rf"(?:[A-Za-z0-9_-]+|{_BASIC}|{_LITERAL})"
_KEY = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_HEADER = re.compile(rf"(\[\[?)[ \t]*({_KEY})[ \t]*\]\]?")
_PAIR = re.compile(rf"({_KEY})[ \t]*=")
_SCALAR = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|[^\[\]{},#\s]+(?: \d\d:[^\[\]{},#\s]+)?",  # a date and its time may stand apart
    re.DOTALL,
)
_COMMA = re.compile(r"(?:[ \t\r\n]+|#[^\n]*\n)*,[ \t]*")
_LINE_END = re.compile(r"[ \t\r]*(?:#[^\n]*)?(?:\n|$)")


@dataclass(frozen=True, slots=True)
class Node:
    """A key with its value, or an item of a list: its path, and the spans of its parts in the text.

    `key` is the last part of the key, None for an item. `whole` is the span to delete if the node is removed.
    """

    path: Keys
    key: tuple[int, int] | None
    value: tuple[int, int]
    whole: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Edit:
    """A replacement for a span of the text."""

    start: int
    end: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class _Statement:
    """The header of a table, or a key of `table` with its value. It begins at `start`. A header has no nodes."""

    table: Keys
    key: Keys
    start: int
    nodes: Sequence[Node] = ()


def _statements(text: str) -> Iterator[_Statement]:
    arrays: dict[Keys, int] = {}
    table: Keys = ()
    place = _skip(text, 0)
    while place < len(text):
        if header := _HEADER.match(text, place):
            table = _enter(key_parts(header[2]), header[1] == "[[", arrays)
            yield _Statement((), table, place)
            place = header.end()
        elif pair := _PAIR.match(text, place):
            node, inner, end = _pair(text, pair, table)
            yield _Statement(table, key_parts(pair[1]), place, [replace(node, whole=_line(text, node)), *inner])
            place = end
        else:
            return
        place = _skip(text, place)


def nodes(text: str) -> list[Node]:
    """Return every key and every item, in the order of the text."""
    return [node for statement in _statements(text) for node in statement.nodes]


def key_lines(text: str) -> dict[Keys, int]:
    """Return the line (from 1) of every table and key, except of keys within an inline table."""
    lines: dict[Keys, int] = {}
    for one in _statements(text):
        line = text.count("\n", 0, one.start) + 1
        # A table that was only named in passing, as task is by [task.labels], stands there until it has its own line.
        for length in range(1, len(one.key)):
            lines.setdefault((*one.table, *one.key[:length]), line)
        lines[(*one.table, *one.key)] = line
    return lines


def line_of(lines: Mapping[Keys, int], path: Keys) -> int | None:
    """Return the line of the key, or of the nearest table around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def key_parts(key: str) -> tuple[str, ...]:
    """Split a dotted key into its names. Raises ValueError if it is not a key."""
    found = []
    value: Any = tomllib.loads(f"{key} = 0")
    while isinstance(value, dict):
        ((name, value),) = value.items()
        found.append(name)
    return tuple(found)


def split_pair(text: str) -> tuple[tuple[str, ...], str] | None:
    """Split `key=rest` into the key and the rest; None if there is no key before a `=`."""
    pair = _PAIR.match(text.lstrip())
    return (key_parts(pair[1]), text.lstrip()[pair.end() :].strip()) if pair else None


def pair_of(text: str) -> tuple[tuple[str, ...], str] | None:
    """Do the same, but return None also if the text before the `=` is not a key."""
    try:
        return split_pair(text)
    except ValueError:
        return None


def _enter(names: tuple[str, ...], is_array: bool, arrays: dict[Keys, int]) -> Keys:
    """Return the path of a table header, with the index in each array of tables on the way."""
    path: Keys = ()
    for name in names[:-1]:
        path = (*path, name)
        path = (*path, arrays[path]) if path in arrays else path
    path = (*path, names[-1])
    if is_array:
        arrays[path] = arrays.get(path, -1) + 1
        path = (*path, arrays[path])
    return path


def edited(text: str, edits: Sequence[Edit]) -> str:
    """Apply the edits, which must not overlap."""
    for edit in sorted(edits, key=lambda one: one.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def value_of_node(text: str, node: Node) -> Any:
    """Return the value of a node."""
    return tomllib.loads(f"x = {text[node.value[0] : node.value[1]]}")["x"]


def with_value(node: Node, value: Any) -> Edit:
    """Replace the value of a node."""
    return Edit(*node.value, as_toml(value, limit=1_000_000))


def with_key(node: Node, name: str) -> Edit:
    """Rename a node."""
    assert node.key is not None
    return Edit(*node.key, key_text(name))


def without(node: Node) -> Edit:
    """Remove a node."""
    return Edit(*node.whole)


def _pair(text: str, pair: re.Match[str], above: Keys) -> tuple[Node, list[Node], int]:
    path = (*above, *key_parts(pair[1]))
    *_, last = re.finditer(_PART, pair[1])
    key = (pair.start(1) + last.start(), pair.start(1) + last.end())
    begin = _skip(text, pair.end())
    below, end = _value(text, begin, path)
    return Node(path, key, (begin, end), (pair.start(), end)), below, end


def _value(text: str, place: int, path: Keys) -> tuple[list[Node], int]:
    """Return the nodes within the value that begins here, and where it ends."""
    if text[place] not in "[{":
        scalar = _SCALAR.match(text, place)
        assert scalar is not None
        return [], scalar.end()
    close, step = ("]", _item) if text[place] == "[" else ("}", _inner_pair)
    found: list[Node] = []
    before, place, number = place, _skip(text, place + 1), 0
    while text[place] != close:
        node, below, end = step(text, place, path, number)
        comma = _COMMA.match(text, end)
        # Removing the last item removes the comma before it; removing any other one removes the comma after it.
        # An item on lines of its own goes with these lines.
        whole = (place, comma.end()) if comma else (before if number else place, end)
        found += [replace(node, whole=_own_lines(text, place, comma.end() if comma else end) or whole), *below]
        before, number = end, number + 1
        place = _skip(text, comma.end() if comma else end)
    return found, place + 1


def _item(text: str, place: int, path: Keys, number: int) -> tuple[Node, list[Node], int]:
    below, end = _value(text, place, (*path, number))
    return Node((*path, number), None, (place, end), (place, end)), below, end


def _inner_pair(text: str, place: int, path: Keys, _number: int) -> tuple[Node, list[Node], int]:
    pair = _PAIR.match(text, place)
    assert pair is not None
    return _pair(text, pair, path)


def _own_lines(text: str, begin: int, end: int) -> tuple[int, int] | None:
    """Return the lines from begin to end, with a comment after them, if they contain nothing else."""
    start = text.rfind("\n", 0, begin) + 1
    rest = _LINE_END.match(text, end)
    is_alone = not text[start:begin].strip(" \t") and rest is not None and text[: rest.end()].endswith("\n")
    return (start, rest.end()) if is_alone and rest is not None else None


def _line(text: str, node: Node) -> tuple[int, int]:
    """Return the lines of a pair, with the comment after it."""
    return _own_lines(text, *node.whole) or node.whole


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def below(found: Sequence[Node], path: Keys) -> Iterator[Node]:
    """Yield the nodes below a path. A "*" in it is any index of a list."""
    for node in found:
        if len(node.path) > len(path) and all(a in ("*", b) for a, b in zip(path, node.path, strict=False)):
            yield node
