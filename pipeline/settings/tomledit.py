"""Small edits of a TOML text: a value or a key gets another word, or goes, and all else stays byte for byte.

The text has been read by tomllib before, so what is here may rely on its being valid.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.settings.places import HEADER, PAIR, PART, SPACE, Keys, enter, key_parts
from pipeline.settings.texts import as_toml, key_text

_SCALAR = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|[^\[\]{},#\s]+",
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


def nodes(text: str) -> list[Node]:
    """Every key and every item, in the order of the text."""
    found: list[Node] = []
    arrays: dict[Keys, int] = {}
    table: Keys = ()
    place = _skip(text, 0)
    while place < len(text):
        if header := HEADER.match(text, place):
            table = enter(key_parts(header[2]), header[1] == "[[", arrays)
            place = header.end()
        elif pair := PAIR.match(text, place):
            node, below, place = _pair(text, pair, table)
            found += [replace(node, whole=_line(text, node)), *below]
        else:
            return found
        place = _skip(text, place)
    return found


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
    *_, last = re.finditer(PART, pair[1])
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
    pair = PAIR.match(text, place)
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
    found = SPACE.match(text, place)
    return found.end() if found else place


def below(found: Sequence[Node], path: Keys) -> Iterator[Node]:
    """The nodes whose path begins so and is longer; a "*" is any place in a list."""
    for node in found:
        if len(node.path) > len(path) and all(a in ("*", b) for a, b in zip(path, node.path, strict=False)):
            yield node
