"""Reads answers that are not in the right form, if only one reading is possible and it does no harm.

A call that is valid as it is never comes here. Each reading has a name and is counted, and `task.strict_answers`
refuses it. Calls are never read from the text.
"""

import json
import string
from collections.abc import Container, Iterator, Mapping
from typing import Any

from pipeline import codec
from pipeline.records import JSON
from pipeline.task.schema_tree import Schema

#: The readings, by their descriptions.
PREFIX = "functions. before the name"
FENCE = "a fence around the arguments"
TEXT_IN_TEXT = "arguments that are JSON within a JSON text"
SPELLING = "another case or white space in a value"

_PREFIX = "functions."
_FENCE = "```"
#: The most levels of JSON text within JSON text.
_MOST_WRAPS = 3


def normalize_tool_name(name: str, known: Container[str]) -> str:
    """Return the known tool that the name means, or the name itself if there is none."""
    if name in known:
        return name
    plain = name.strip().removeprefix(_PREFIX)
    return plain if plain in known else name


def unwrap_arguments(text: str) -> tuple[str, JSON, tuple[str, ...]]:
    """Return the JSON text in wrapped arguments, its value, and how it was wrapped. Raises JSONDecodeError."""
    readings = []
    if (within := _strip_fence(text)) is not None:
        text = within
        readings.append(FENCE)
    value = codec.loads_digits(text)
    for _ in range(_MOST_WRAPS):
        if not isinstance(value, str):
            break
        text, value = value, codec.loads_digits(value)
        readings.append(TEXT_IN_TEXT)
    return text, value, tuple(dict.fromkeys(readings))


def _strip_fence(text: str) -> str | None:
    """Return the text between fences, without the name of its language; None if there are no fences."""
    bare = text.strip()
    if len(bare) < 2 * len(_FENCE) or not (bare.startswith(_FENCE) and bare.endswith(_FENCE)):
        return None
    return bare[len(_FENCE) : -len(_FENCE)].lstrip(string.ascii_letters).strip()


def match_choices(value: JSON, schema: Schema) -> JSON:
    """Replace each text that differs from one choice of its enum only in case and outer white space by that choice."""
    return _match_choices(value, schema, schema)


def _match_choices(value: JSON, schema: Any, root: Schema) -> JSON:
    branches = list(_branches(schema, root))
    if isinstance(value, str):
        return _choice(value, branches)
    if isinstance(value, Mapping):
        return {name: _inner(inner, [_field(one, name) for one in branches], root) for name, inner in value.items()}
    if isinstance(value, list):
        return [_inner(inner, [one.get("items") for one in branches], root) for inner in value]
    return value


def _inner(value: JSON, schemas: list[Any], root: Schema) -> JSON:
    candidates = [schema for schema in schemas if isinstance(schema, Mapping)]
    # If the value may have several forms, choosing one would be a guess.
    return _match_choices(value, candidates[0], root) if len(candidates) == 1 else value


def _field(schema: Schema, name: str) -> Any:
    properties = schema.get("properties")
    return properties.get(name) if isinstance(properties, Mapping) else None


def _choice(value: str, branches: list[Schema]) -> str:
    choices = {one for schema in branches for one in [*schema.get("enum", ()), *_const(schema)] if isinstance(one, str)}
    if not choices or value in choices or any("enum" not in one and one.get("type") == "string" for one in branches):
        return value
    folded = value.strip().casefold()
    same = [one for one in choices if one.strip().casefold() == folded]
    return same[0] if len(same) == 1 else value


def _const(schema: Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else []


def _branches(schema: Any, root: Schema, depth: int = 8) -> Iterator[Schema]:
    """Yield the forms that a value may have, with references followed and alternatives separate."""
    if not isinstance(schema, Mapping) or depth == 0:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target: Any = root
        for step in reference.removeprefix("#/").split("/"):
            target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        yield from _branches(target, root, depth - 1)
        return
    alternatives = [one for keyword in ("anyOf", "oneOf") for one in schema.get(keyword, ())]
    for one in alternatives:
        yield from _branches(one, root, depth - 1)
    if not alternatives:
        yield dict(schema)


def find_repeated_key(text: str, value: JSON) -> str | None:
    """Return a key that occurs twice in one object of the text, with different values; None if there is none.

    `value` is the parsed text, in which the last value won. Each key has its colon, so a text with no more colons than
    keys has no repeated key. Few texts need the slow check.
    """
    if text.count(":") <= codec.keys_in(value):
        return None
    repeated: list[str] = []

    def pairs(items: list[tuple[str, JSON]]) -> dict[str, JSON]:
        values: dict[str, JSON] = {}
        for name, inner in items:
            if name in values and codec.canonical(values[name]) != codec.canonical(inner):
                repeated.append(name)
            values[name] = inner
        return values

    try:
        json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return None
    return repeated[0] if repeated else None
