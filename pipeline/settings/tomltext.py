"""A TOML text by its places: the line of each key, and small edits that leave all else byte for byte.

tomllib gives the values and forgets where they stand. The text has been read by tomllib before, so what is here may
rely on its being valid.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pipeline.settings.texts import as_toml, key_text

#: the keys from the root to a value; an int is a place in an array of tables
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
    """A key with its value, or an item of a list: the path, and from where to where it stands.

    `key` is the last part of the key, None for an item; `whole` is what goes where it is taken out.
    """

    path: Keys
    key: tuple[int, int] | None
    value: tuple[int, int]
    whole: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Edit:
    """Text that takes the place of a part of another."""

    start: int
    end: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class _Statement:
    """The header of a table, or a key of `table` with its value, which begins at `start`; a header has no nodes."""

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
    """Every key and every item, in the order of the text."""
    return [node for statement in _statements(text) for node in statement.nodes]


def key_lines(text: str) -> dict[Keys, int]:
    """The 1-based line of every table and key. Keys within an inline table are left out: `line_of` gives its line."""
    lines: dict[Keys, int] = {}
    for one in _statements(text):
        line = text.count("\n", 0, one.start) + 1
        # A table that was only named in passing, as task is by [task.labels], stands there until it has its own line.
        for length in range(1, len(one.key)):
            lines.setdefault((*one.table, *one.key[:length]), line)
        lines[(*one.table, *one.key)] = line
    return lines


def line_of(lines: Mapping[Keys, int], path: Keys) -> int | None:
    """The line of the key, or of the nearest table around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def key_parts(key: str) -> tuple[str, ...]:
    """The names of a dotted key. Raises ValueError where it is none."""
    found = []
    value: Any = tomllib.loads(f"{key} = 0")
    while isinstance(value, dict):
        ((name, value),) = value.items()
        found.append(name)
    return tuple(found)


def split_pair(text: str) -> tuple[tuple[str, ...], str] | None:
    """The key and the rest of `key=rest`; None where no key stands before a `=`."""
    pair = _PAIR.match(text.lstrip())
    return (key_parts(pair[1]), text.lstrip()[pair.end() :].strip()) if pair else None


def pair_of(text: str) -> tuple[tuple[str, ...], str] | None:
    """The same, and None also where what stands before the `=` is no key."""
    try:
        return split_pair(text)
    except ValueError:
        return None


def _enter(names: tuple[str, ...], is_array: bool, arrays: dict[Keys, int]) -> Keys:
    """The path of a table header, with the place of each array of tables on the way."""
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
    """The text with all of the edits, none of which overlap."""
    for edit in sorted(edits, key=lambda one: one.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def value_of_node(text: str, node: Node) -> Any:
    """The value that stands there."""
    return tomllib.loads(f"x = {text[node.value[0] : node.value[1]]}")["x"]


def with_value(node: Node, value: Any) -> Edit:
    """The node with another value."""
    return Edit(*node.value, as_toml(value, limit=1_000_000))


def with_key(node: Node, name: str) -> Edit:
    """The node under another name."""
    assert node.key is not None
    return Edit(*node.key, key_text(name))


def without(node: Node) -> Edit:
    """The node taken out."""
    return Edit(*node.whole)


def _pair(text: str, pair: re.Match[str], above: Keys) -> tuple[Node, list[Node], int]:
    path = (*above, *key_parts(pair[1]))
    *_, last = re.finditer(_PART, pair[1])
    key = (pair.start(1) + last.start(), pair.start(1) + last.end())
    begin = _skip(text, pair.end())
    below, end = _value(text, begin, path)
    return Node(path, key, (begin, end), (pair.start(), end)), below, end


def _value(text: str, place: int, path: Keys) -> tuple[list[Node], int]:
    """What is within the value that begins here, and where it ends."""
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
        # The last one goes with the comma before it, any other with the one behind it, and one that has lines of its
        # own with these lines.
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
    """The lines from begin to end, with a comment behind them, if nothing else is in them."""
    start = text.rfind("\n", 0, begin) + 1
    rest = _LINE_END.match(text, end)
    is_alone = not text[start:begin].strip(" \t") and rest is not None and text[: rest.end()].endswith("\n")
    return (start, rest.end()) if is_alone and rest is not None else None


def _line(text: str, node: Node) -> tuple[int, int]:
    """The lines of a pair, with the comment behind it."""
    return _own_lines(text, *node.whole) or node.whole


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def below(found: Sequence[Node], path: Keys) -> Iterator[Node]:
    """The nodes whose path begins so and is longer; a "*" is any place in a list."""
    for node in found:
        if len(node.path) > len(path) and all(a in ("*", b) for a, b in zip(path, node.path, strict=False)):
            yield node
