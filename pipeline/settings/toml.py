"""Writes the settings as TOML: each value with its origin, and secrets only as set or not set."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tomli_w

from pipeline.settings.layers import DEFAULT
from pipeline.settings.root import Settings
from pipeline.settings.rows import Row, explain
from pipeline.settings.schema import section_at
from pipeline.settings.texts import key_text, one_line
from pipeline.settings.tomltext import Keys

#: A list of up to this many characters is written on one line.
WIDE = 80
#: For values without a TOML form, such as None within a table, or records that a program supplies.
_PYTHON = "given in Python"


def to_toml(settings: Settings) -> str:
    """Write a config with the same settings, wherever the values came from, except for secrets."""
    *rows, api_key = explain(settings)
    tables: dict[Keys, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.path[:-1], []).append(row)
    records = bool(settings._no_input)
    blocks = ["\n".join(_table(path, rows, records)) for path, rows in tables.items()]
    return "\n\n".join([*blocks, f"# API key: {api_key.value}{_place(api_key)}"]) + "\n"


def _table(path: Keys, rows: Sequence[Row], records: bool) -> Iterator[str]:
    """Yield the lines of a table of the config; tables within it come after its own keys."""
    yield f"[{_dotted(path)}]"
    below = _below({str(row.path[-1]): row.value for row in rows}, ordered=section_at(Settings, path) is None)
    for row in rows:
        if row.path[-1] not in below:
            yield _line(row, records and row.path == ("input", "path"))
    for row in rows:
        if row.path[-1] in below:
            _blank, first, *others = _within(row.path, row.value)
            yield from ("", f"{first}{_place(row)}", *others)


def _below(table: Mapping[str, Any], *, ordered: bool = True) -> set[str]:
    """Return the keys that get headers of their own, after all others.

    In a free table the order is the user's, of a schema's fields for one: a key before a plain one gets none.
    """
    found: set[str] = set()
    for name, value in table.items():
        if _is_table(value):
            found.add(name)
        elif ordered:
            found.clear()
    return found


def _line(row: Row, given: bool) -> str:
    name = str(row.path[-1])
    if row.hidden and row.value == "set":
        line = _comment(name, "set, and not shown")
    elif given or (row.value is None and section_at(Settings, row.path[:-1]) is None):
        line = _comment(name, _PYTHON)
    elif row.hidden or row.value is None:
        line = _comment(name, "not set")
        return line if row.origin == str(DEFAULT) else f"{line}{_place(row)}"
    else:
        line = _pair(name, row.value)
    return f"{line}{_place(row)}"


def _place(row: Row) -> str:
    return f"  # {one_line(row.origin)}"


def _comment(name: str, state: str) -> str:
    return f"# {one_line(key_text(name))}: {state}"


def _is_table(value: Any) -> bool:
    """Whether the value gets a header of its own, or several."""
    is_array = isinstance(value, list) and all(isinstance(one, dict) for one in value)
    return bool(value) and (is_array or isinstance(value, dict))


def _within(path: Keys, value: Any) -> Iterator[str]:
    """Yield the lines of a free table or an array of tables, each with a blank line and a header before it."""
    head = "[[{}]]" if isinstance(value, list) else "[{}]"
    for table in value if isinstance(value, list) else [value]:
        below = _below(table)
        if len(below) < len(table) or isinstance(value, list):
            yield from ("", head.format(_dotted(path)))
        for name, item in table.items():
            if name not in below:
                yield _pair(name, item)
        for name in table:
            if name in below:
                yield from _within((*path, name), table[name])


def _pair(name: str, value: Any) -> str:
    """Write `name = value`, or a comment if TOML has no form for it."""
    try:
        text = _written(value)
        # tomllib checks that the text reads back as the same value.
        if repr(tomllib.loads(f"x = {text}")["x"]) == repr(value):
            return f"{_key(name)} = {text}"
    except (TypeError, ValueError):  # None, or half of a character
        pass
    return _comment(name, _PYTHON)


def _written(value: Any, *, inline: bool = False) -> str:
    """Write the value, on one line if `inline`. Raises TypeError and ValueError for values without a TOML form."""
    if isinstance(value, dict):
        items = ", ".join(f"{_key(name)} = {_written(item, inline=True)}" for name, item in value.items())
        return f"{{ {items} }}" if items else "{}"
    if isinstance(value, list):
        texts = [_written(item, inline=True) for item in value]
        line = f"[{', '.join(texts)}]"
        return line if inline or len(line) <= WIDE else "[\n" + "".join(f"    {text},\n" for text in texts) + "]"
    # A text over several lines would lose its carriage returns.
    lines = isinstance(value, str) and not inline and "\r" not in value
    text = tomli_w.dumps({"x": value}, multiline_strings=lines).removeprefix("x = ").removesuffix("\n")
    text.encode()
    return text


def _key(name: str) -> str:
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")


def _dotted(path: Iterable[str | int]) -> str:
    return ".".join(_key(str(part)) for part in path)
