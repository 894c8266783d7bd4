"""Where each key of a TOML text stands: tomllib gives the values and forgets the lines.

The text has been read by tomllib before, so what is here may rely on its being valid.
"""

import re
import tomllib
from collections.abc import Mapping
from typing import Any, TypeAlias

#: the keys from the root to a value; an int is a place in an array of tables
Keys: TypeAlias = tuple[str | int, ...]

_BASIC = r'"(?:\\.|[^"\\\n])*"'
_LITERAL = r"'[^'\n]*'"
PART = rf"(?:[A-Za-z0-9_-]+|{_BASIC}|{_LITERAL})"
_KEY = rf"{PART}(?:[ \t]*\.[ \t]*{PART})*"
SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
HEADER = re.compile(rf"(\[\[?)[ \t]*({_KEY})[ \t]*\]\]?")
PAIR = re.compile(rf"({_KEY})[ \t]*=")
#: the pieces of a value. A string of three quotes may end in five: two of them are its own.
_PIECE = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    rf"|{_BASIC}|{_LITERAL}|#[^\n]*"
    r"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<end>\n)"
    r"""|[^\[\]{}"'#\n]+""",
    re.DOTALL,
)


def key_lines(text: str) -> dict[Keys, int]:
    """The 1-based line of every table and key. Keys within an inline table are left out: `line_of` gives its line."""
    lines: dict[Keys, int] = {}
    arrays: dict[Keys, int] = {}
    table: Keys = ()
    place = _skip(SPACE, text, 0)
    while place < len(text):
        line = text.count("\n", 0, place) + 1
        if header := HEADER.match(text, place):
            table = enter(key_parts(header[2]), header[1] == "[[", arrays)
            _note(lines, (), table, line)
            place = header.end()
        elif pair := PAIR.match(text, place):
            _note(lines, table, key_parts(pair[1]), line)
            place = _value_end(text, pair.end())
        else:  # not TOML: what was found so far is better than nothing
            return lines
        place = _skip(SPACE, text, place)
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
    pair = PAIR.match(text.lstrip())
    return (key_parts(pair[1]), text.lstrip()[pair.end() :].strip()) if pair else None


def pair_of(text: str) -> tuple[tuple[str, ...], str] | None:
    """The same, and None also where what stands before the `=` is no key."""
    try:
        return split_pair(text)
    except ValueError:
        return None


def _skip(pattern: re.Pattern[str], text: str, place: int) -> int:
    match = pattern.match(text, place)
    return match.end() if match else place


def _note(lines: dict[Keys, int], table: Keys, key: Keys, line: int) -> None:
    # A table that was only named in passing, as task is by [task.labels], stands there until it has a line of its own.
    for length in range(1, len(key)):
        lines.setdefault((*table, *key[:length]), line)
    lines[(*table, *key)] = line


def enter(names: tuple[str, ...], is_array: bool, arrays: dict[Keys, int]) -> Keys:
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


def _value_end(text: str, place: int) -> int:
    depth = 0
    while piece := _PIECE.match(text, place):
        if piece["end"] and depth == 0:
            break
        depth += bool(piece["open"]) - bool(piece["close"])
        place = piece.end()
    return place
