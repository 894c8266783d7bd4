"""Finds what strict mode of function calling refuses, before a call is paid for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.task.schema_tree import Schema, child_schemas, is_object, iter_schemas, types_of

MAX_ENUM_VALUES = 1_000  #: in the whole schema
MAX_PROPERTIES = 5_000
MAX_NESTING = 10  #: objects within objects
MAX_LONG_ENUM_CHARS = 15_000  #: in total, in an enum of more than LONG_ENUM texts
LONG_ENUM = 250
MAX_NAME_CHARS = 120_000  #: property names, definition names, and enum texts in total

#: The formats that strict mode accepts.
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})

#: What to do -> the keywords that strict mode refuses.
_INSTEAD = {
    "remove it: every property is required, so a default is never used": "default",
    "use anyOf": "oneOf",
    "write the parts into one schema": "allOf",
    "express it with anyOf": "not if then else dependentRequired dependentSchemas dependencies",
    "use an object with a named property for each place": "prefixItems",
    "name each property in properties": "patternProperties propertyNames",
    "use additionalProperties: false": "unevaluatedProperties",
    "remove it; check it in a Pydantic model or in a callback of yours": "minProperties maxProperties unevaluatedItems "
    "contains minContains maxContains uniqueItems",
}
_REFUSED = {keyword: instead for instead, keywords in _INSTEAD.items() for keyword in keywords.split()}

Fault = tuple[str, str]  #: what is wrong, and how to fix it


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that strict mode refuses: where (a JSON pointer), what, and how to fix it."""

    path: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}; {self.fix}"


def lint(schema: Schema) -> list[Finding]:
    """Return everything in the schema that strict mode refuses."""
    findings = [Finding("#", *fault) for fault in _root(schema)]
    for path, node in iter_schemas(schema):
        findings += [Finding(path, *fault) for rule in _RULES for fault in rule(node)]
    return findings + [Finding("#", *fault) for fault in _totals(schema)]


def _root(schema: Schema) -> Iterator[Fault]:
    if types_of(schema) != ("object",):
        yield f"the root's type is {schema.get('type')!r}", 'the root must be of type "object"'
    if "anyOf" in schema:
        yield "anyOf at the root", "put the union into a property"


def _refused_keywords(node: Schema) -> Iterator[Fault]:
    for keyword in node:
        if keyword in _REFUSED:
            yield f"{keyword!r} is not allowed in strict mode", _REFUSED[keyword]


def _closed(node: Schema) -> Iterator[Fault]:
    if is_object(node) and node.get("additionalProperties") is not False:
        yield (
            f"additionalProperties is {node.get('additionalProperties', 'not set')!r}",
            "set additionalProperties: false and name each property",
        )


def _all_required(node: Schema) -> Iterator[Fault]:
    properties, required = node.get("properties", {}), node.get("required", [])
    if missing := [name for name in properties if name not in required]:
        yield (
            f"not required: {', '.join(missing)}",
            'add to required; for what may be absent use a union with null, such as type: ["string", "null"]',
        )
    if unknown := [name for name in required if name not in properties]:
        yield f"required, but not in properties: {', '.join(unknown)}", "add to properties or remove from required"


def _typed(node: Schema) -> Iterator[Fault]:
    if not {"type", "anyOf", "$ref", "oneOf", "allOf", "not"} & node.keys():
        yield "no type: anything would fit", "add a type"


def _lone_reference(node: Schema) -> Iterator[Fault]:
    reference = node.get("$ref")
    if reference is None:
        return
    if others := [key for key in node if key not in ("$ref", "$defs", "definitions")]:
        yield f"$ref beside {', '.join(others)}", 'a $ref stands alone; wrap it: "anyOf": [{"$ref": …}]'
    if not str(reference).startswith("#"):
        yield f"$ref to {reference!r}", "put that schema into $defs and refer to '#/$defs/…'"


def _item_type(node: Schema) -> Iterator[Fault]:
    if "array" in types_of(node) and not isinstance(node.get("items"), dict):
        yield "an array without items", "say what the items are"


def _known_format(node: Schema) -> Iterator[Fault]:
    name = node.get("format")
    if isinstance(name, str) and name not in FORMATS:
        yield f"format {name!r}", f"remove it, or use one of {', '.join(sorted(FORMATS))}"


def _enum_size(node: Schema) -> Iterator[Fault]:
    values = node.get("enum", ["any"])
    if not values:
        yield "an empty enum: nothing fits", "give it its values"
    texts = [value for value in values if isinstance(value, str)]
    chars = sum(map(len, texts))
    if len(texts) > LONG_ENUM and chars > MAX_LONG_ENUM_CHARS:
        yield (
            f"an enum of {len(texts)} texts with {chars} characters",
            f"over {LONG_ENUM} texts, at most {MAX_LONG_ENUM_CHARS} characters together: shorten them",
        )


_RULES: tuple[Callable[[Schema], Iterator[Fault]], ...] = (
    *(_refused_keywords, _closed, _all_required, _typed),
    *(_lone_reference, _item_type, _known_format, _enum_size),
)


def _totals(schema: Schema) -> Iterator[Fault]:
    nodes = [node for _path, node in iter_schemas(schema)]
    counted = (
        ("enum values", sum(len(node.get("enum", [])) for node in nodes), MAX_ENUM_VALUES),
        ("properties", sum(len(node.get("properties", {})) for node in nodes), MAX_PROPERTIES),
        ("levels of objects", _nesting(schema), MAX_NESTING),
        ("characters of names and enum texts", sum(map(_name_chars, nodes)), MAX_NAME_CHARS),
    )
    for what, count, most in counted:
        if count > most:
            yield f"{count} {what}", f"strict mode takes at most {most}: split the task, or set model.strict = false"


def _nesting(schema: Schema) -> int:
    """Return how deeply objects are nested. Definitions count separately."""
    definitions = [schema.get(key, {}) for key in ("$defs", "definitions")]
    roots = [schema, *(node for named in definitions for node in named.values())]
    return max(_depth(root) for root in roots if isinstance(root, dict))


def _depth(node: Schema) -> int:
    below = [_depth(sub) for step, sub in child_schemas(node) if not step.startswith(("$defs/", "definitions/"))]
    return is_object(node) + max(below, default=0)


def _name_chars(node: Schema) -> int:
    names: list[Any] = [*node.get("properties", {}), *node.get("$defs", {}), *node.get("definitions", {})]
    names += [value for value in [*node.get("enum", []), node.get("const")] if isinstance(value, str)]
    return sum(map(len, names))
