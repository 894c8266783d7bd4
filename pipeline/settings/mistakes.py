"""Messages about wrong settings: one line each, all of them at once, and none contains a secret."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.errors import Mistake
from pipeline.settings.checks import REFUSED
from pipeline.settings.layers import PYTHON, Kind, MergedConfig, Root, ValueOrigin
from pipeline.settings.schema import choices, field_of, is_secret, keys, kinds_at, section_at, takes_at
from pipeline.settings.suggestions import removed_key_advice, suggest_key
from pipeline.settings.texts import as_toml, closest_match, dotted, kind_of, one_line, redact
from pipeline.settings.tomltext import Keys, line_of

_FIRST_WORD = re.compile(r"[^\s=]+")
_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def mistakes_of(error: ValidationError, merged: MergedConfig) -> tuple[Mistake, ...]:
    """Return every mistake that pydantic found, in our words: those of the file by line, then the others."""
    found = list(merged.mistakes)
    for fault in error.errors(include_url=False):
        found += _mistakes_of(fault["type"], fault["loc"], fault.get("ctx", {}), merged)
    return in_order(found)


def in_order(found: Iterable[Mistake]) -> tuple[Mistake, ...]:
    """Remove repeated mistakes: a value that fits no member of a union is reported by each member."""
    first: dict[tuple[str, int | None, str], Mistake] = {}
    for one in found:
        first.setdefault((one.source, one.line, one.key), one)
    return tuple(sorted(first.values(), key=lambda one: (one.line is None, one.line or 0)))


def _mistakes_of(kind: str, loc: Keys, context: dict[str, Any], merged: MergedConfig) -> Iterator[Mistake]:
    if kind == REFUSED:
        for item, text in context["items"].items():
            path = (*loc, item) if item else loc
            yield _origin(merged, path).mistake(dotted(path), text)
    elif kind == "extra_forbidden":
        yield unknown(merged, loc)
    elif kind == "missing":
        yield missing(merged, loc)
    else:
        path = _key_of(merged.root, loc)
        yield _origin(merged, path).mistake(dotted(path), _wrong(merged, path))


def missing(merged: MergedConfig, path: Keys) -> Mistake:
    """Report a required key that is missing."""
    return _around(merged, path).mistake(dotted(path), f"missing; expected {takes_at(merged.root, path)}")


def _key_of(root: Root, loc: Keys) -> Keys:
    """Return the key for pydantic's location: the field, or an item of a free table."""
    found = field_of(root, loc)
    if not found:
        return loc
    path = found[0]
    # Below the field are an item's name, or pydantic's own names for the members of a union.
    is_item = len(loc) > len(path) and kinds_at(root, path) <= {"table", "nothing"}
    return loc[: len(path) + 1] if is_item else path


def _wrong(merged: MergedConfig, path: Keys) -> str:
    value, origin = merged.value(path), _origin(merged, path)
    kind = kind_of(value)
    if is_secret(path):
        got = kind
    else:
        got = redact(as_toml(value))
        if origin.kind in (Kind.FILE, Kind.PYTHON) and kind not in kinds_at(merged.root, path):
            got += f" ({kind})"
    found = field_of(merged.root, path)
    guess = _guess(value, choices(found[1])) if found else None
    return f"got {got}; expected {takes_at(merged.root, path)}" + (f"; did you mean {guess}?" if guess else "")


def _guess(value: Any, allowed: tuple[str, ...]) -> str | None:
    texts = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    return next((guess for text in texts if text not in allowed and (guess := closest_match(text, allowed))), None)


def unknown(merged: MergedConfig, path: Keys) -> Mistake:
    """Report a key that no table has, with the key that was probably meant."""
    return _origin(merged, path).mistake(dotted(path), _unknown(merged.root, path))


def _unknown(root: Root, path: Keys) -> str:
    if (advice := removed_key_advice(path)) is not None:
        return advice
    name, table = str(path[-1]), path[:-1]
    plain = name.lower().replace("_", "").replace("-", "")
    if plain in ("apikey", "openaiapikey") or path == ("model", "key"):
        return "an API key does not belong in the config; put it into the environment or .env (see model.api_key_env)"
    section = section_at(root, table)
    known = list(section.model_fields) if section else []
    guess = suggest_key(path, known, [*root.model_fields, *(key.name for key in keys(root))])
    where = f"in [{dotted(table)}]" if table else "tables"
    return f"unknown key; did you mean {guess}?" if guess else f"unknown key; known {where}: {', '.join(known)}"


def _origin(merged: MergedConfig, path: Keys) -> ValueOrigin:
    beneath = (origin for known, origin in merged.origins.items() if known[: len(path)] == path)
    if found := merged.origin(path):
        # In an array of tables, each key has its own line, although the array is one value.
        line = line_of(merged.lines, path) if found.kind is Kind.FILE else None
        return found if line is None else replace(found, line=line)
    # The file does not name the table, but something in it was set: `--set outptu.dir=x`.
    return _around(merged, path) if path in merged.lines else next(beneath, _around(merged, path))


def _around(merged: MergedConfig, path: Keys) -> ValueOrigin:
    """Return the place where a missing key would be."""
    if merged.config_path:
        return ValueOrigin(Kind.FILE, str(merged.config_path), line_of(merged.lines, path))
    return PYTHON


def not_toml(path: Path, text: str, error: ValueError) -> Mistake:
    """Report a text that tomllib cannot read, with the line, the column, and what is there."""
    reason = str(error)
    place = _PLACE.search(reason)
    rows = text.split("\n")
    line = int(place[1]) if place and place[1] else len(text.rstrip().split("\n"))
    column = f" at column {place[2]}" if place and place[2] else ""
    reason = reason[: place.start()] if place else reason
    row = rows[line - 1].strip() if line <= len(rows) else ""
    return Mistake(str(path), line, "", f"not TOML{column}: {one_line(reason)}: {_row(row)}")


def _row(row: str) -> str:
    name = _FIRST_WORD.match(row)
    return one_line(f"{name[0]} ***" if name and is_secret([name[0]]) else redact(row))


def no_file(path: Path) -> Mistake:
    """Report a config file that does not exist, with similar names."""
    folder = path if path.is_dir() else path.parent
    what = "is a folder, not a config file" if path.is_dir() else "no such file"
    if not folder.is_dir():
        return Mistake(str(path), None, "", f"{what}, nor a folder {folder}")
    here = sorted(str(file) for file in folder.glob("*.toml"))
    guess = closest_match(str(path), here)
    others = f"configs there: {', '.join(here)}" if here else "and no other *.toml there; `labelpipe init` writes one"
    return Mistake(str(path), None, "", f"{what}; {f'did you mean {guess}? ' if guess else ''}{others}")
