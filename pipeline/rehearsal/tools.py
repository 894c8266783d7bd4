"""Reads the functions that a request offers, and checks them as a server does."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.codec import loads
from pipeline.rehearsal.replies import ErrorReply, invalid
from pipeline.rehearsal.schema_values import ValueGenerator

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
#: Keywords that strict mode refuses.
_NOT_STRICT = ("default", "allOf", "not", "if")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """One function."""

    name: str
    generator: ValueGenerator
    description: str = ""


@dataclass(frozen=True, slots=True)
class ToolSet:
    """All functions of a request; `size_chars` is the length of their JSON."""

    tools: tuple[Tool, ...]
    size_chars: int

    def named(self, name: str) -> Tool | None:
        """Return the function with that name."""
        return next((tool for tool in self.tools if tool.name == name), None)


def read_tools(raw: bytes) -> ToolSet | ErrorReply:
    """Parse the JSON of `tools`, or return what is wrong with it."""
    tools = loads(raw)
    if not isinstance(tools, list) or not tools:
        return invalid("Invalid 'tools': expected an array with at least one function.", "tools")
    tools_by_name: dict[str, Tool] = {}
    for place, tool in enumerate(tools):
        read = _read_tool(tool, f"tools[{place}]")
        if isinstance(read, ErrorReply):
            return read
        if read.name in tools_by_name:
            return invalid(f"Invalid 'tools': the function name {read.name!r} is given twice.", f"tools[{place}]")
        tools_by_name[read.name] = read
    return ToolSet(tuple(tools_by_name.values()), len(raw))


def _read_tool(tool: Any, where: str) -> Tool | ErrorReply:
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        return invalid(f"Invalid value: '{where}.type' must be 'function'.", f"{where}.type")
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return invalid(f"Missing required parameter: '{where}.function'.", f"{where}.function")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = f"Invalid '{where}.function.name': {name!r} does not match '^[a-zA-Z0-9_-]{{1,64}}$'."
        return invalid(message, f"{where}.function.name")
    parameters = function.get("parameters", {"type": "object", "properties": {}})
    generator = ValueGenerator(parameters)
    fault = schema_fault(parameters, strict=function.get("strict") is True) or generator.fault()
    if fault:
        message = f"Invalid schema for function '{name}': {fault}"
        return invalid(message, f"{where}.function.parameters", "invalid_function_parameters")
    return Tool(name, generator, str(function.get("description") or ""))


def schema_fault(schema: Any, *, strict: bool) -> str | None:
    """Return what a server would report about a function's schema; None if it is valid."""
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        kind = schema.get("type") if isinstance(schema, Mapping) else schema
        return f"schema must be a JSON Schema of 'type: \"object\"', got {kind!r}."
    return next(_strict_faults(schema, ()), None) if strict else None


def _strict_faults(schema: Any, path: Path) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return
    where = f"In context={path!r}, "
    for word in _NOT_STRICT:
        if word in schema:
            yield f"{where}{word!r} is not permitted."
    if "properties" in schema or "object" in _kinds(schema) or not path:
        yield from (where + fault for fault in _object_faults(schema))
    for step, below in _below(schema):
        yield from _strict_faults(below, path + step)


def _object_faults(schema: Mapping[str, Any]) -> Iterator[str]:
    if schema.get("additionalProperties") is not False:
        yield "'additionalProperties' is required to be supplied and to be false."
    required = {name for name in schema.get("required", []) if isinstance(name, str)}
    for name in schema.get("properties", {}):
        if name not in required:
            yield f"'required' is required to be supplied and to hold every key in properties. Missing {name!r}."


def _kinds(schema: Mapping[str, Any]) -> Sequence[Any]:
    kind = schema.get("type")
    return kind if isinstance(kind, list) else [kind]


def _below(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    for word in ("properties", "$defs", "definitions"):
        inside = schema.get(word)
        if isinstance(inside, Mapping):
            yield from (((word, name), below) for name, below in inside.items())
    for word in ("anyOf", "oneOf"):
        branches = schema.get(word)
        if isinstance(branches, list):
            yield from (((word, str(place)), below) for place, below in enumerate(branches))
    if "items" in schema:
        yield ("items",), schema["items"]
