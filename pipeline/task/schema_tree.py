"""Traverses a JSON Schema, and knows which keywords hold subschemas and which hold data."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = dict[str, Any]

#: Keywords that hold subschemas by name. A property called "default" is not a `default` keyword.
_BY_NAME = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ITEMS = ("items", "contains", "unevaluatedItems")
_SINGLE = (*_ITEMS, "additionalProperties", "unevaluatedProperties", "propertyNames", "not", "if", "then", "else")
#: A boolean is also a schema: true accepts anything, false nothing.
_BOOLEANS: dict[bool, Schema] = {True: {}, False: {"not": {}}}


def child_schemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    """Yield each direct subschema, with its step as in a JSON pointer."""
    for keyword in _BY_NAME:
        named = schema.get(keyword)
        if isinstance(named, dict):
            yield from ((f"{keyword}/{_escape(name)}", _as_schema(sub)) for name, sub in named.items())
    for keyword in _LISTS:
        listed = schema.get(keyword)
        if isinstance(listed, list):
            yield from ((f"{keyword}/{place}", _as_schema(sub)) for place, sub in enumerate(listed))
    for keyword in _SINGLE:
        if isinstance(schema.get(keyword), dict):
            yield keyword, schema[keyword]


def iter_schemas(schema: Schema, path: str = "#") -> Iterator[tuple[str, Schema]]:
    """Yield the schema and every subschema in it, each with its JSON pointer."""
    yield path, schema
    for step, sub in child_schemas(schema):
        yield from iter_schemas(sub, f"{path}/{step}")


def transform(schema: Any, change: Callable[[Schema], Schema]) -> Any:
    """Return a copy in which `change` was applied to every subschema, the innermost first."""
    if not isinstance(schema, dict):
        return schema
    copy = dict(schema)
    for keyword in _BY_NAME:
        if isinstance(copy.get(keyword), dict):
            copy[keyword] = {name: transform(sub, change) for name, sub in copy[keyword].items()}
    for keyword in _LISTS:
        if isinstance(copy.get(keyword), list):
            copy[keyword] = [transform(sub, change) for sub in copy[keyword]]
    for keyword in _SINGLE:
        if keyword in copy:
            copy[keyword] = transform(copy[keyword], change)
    return change(copy)


def types_of(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the value of `type` as a tuple; empty if there is none."""
    declared = schema.get("type", ())
    return (declared,) if isinstance(declared, str) else tuple(declared)


def is_object(schema: Mapping[str, Any]) -> bool:
    """Whether it describes an object."""
    return "object" in types_of(schema) or "properties" in schema


def _as_schema(sub: Any) -> Schema:
    if isinstance(sub, bool):
        return _BOOLEANS[sub]
    return sub if isinstance(sub, dict) else {}


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
