"""Generates random values that a JSON Schema allows."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.codec import dumps
from pipeline.rehearsal.seeded_random import SeededRandom
from pipeline.rehearsal.string_values import quote_for, text_for

Schema = Mapping[str, Any]
Choose = Callable[[Sequence[Any], SeededRandom], Any]  #: Picks one of an enum's values.

#: Below this depth, short branches and arrays are preferred, so that a recursive schema comes to an end.
_DEEP = 4
#: Below this depth, or after this many values, nothing more is made: such a schema has no finite value.
_BOTTOM = 40
_MOST_VALUES = 5000
_UNIQUE_TRIES = 30
#: References and parts followed for one value. They double at each level of a schema that contains itself twice.
_MOST_STEPS = 100_000
#: The longest list that is made, and the longest unless minItems is greater.
MOST_ITEMS, _USUAL_ITEMS = 1_000, 50
_PROBES = 4


def any_of(values: Sequence[Any], rng: SeededRandom) -> Any:
    """Return one of the values."""
    return values[rng.below(len(values))]


class ValueGenerator:
    """Makes values for one schema.

    Supports enum, const, the types with their bounds, properties, items, anyOf, oneOf, allOf, and `$ref` within the
    document. Supports patterns and formats as far as possible, and ignores other keywords.
    """

    def __init__(self, root: Schema) -> None:
        self._root = root
        # Mutable state: the numbers of values made and schemas followed for this value, and the text that it is about.
        self._made = 0
        self._steps = 0
        self._source = ""

    def fill(self, rng: SeededRandom, choose: Choose = any_of, source: str = "") -> Any:
        """Return a value; the same one for the same seeds. Strings that must be quotes are taken from `source`."""
        self._made = self._steps = 0
        self._source = source
        return self._value(self._root, rng, choose, 0)

    def fault(self) -> str | None:
        """Return why no value can be made; None if one can."""
        try:
            for seed in range(_PROBES):
                self.fill(SeededRandom("probe", seed))
        except Exception as error:  # any failure is a fault of the schema, which may contain anything
            return f"it cannot be understood ({type(error).__name__}: {error})"
        return None

    def properties(self) -> dict[str, Schema]:
        """Return the schemas of an object's fields, with references resolved."""
        self._steps = 0
        fields = self._plain(self._root).get("properties", {})
        return {name: self._plain(schema) for name, schema in fields.items()}

    def _plain(self, schema: Any) -> Schema:
        """Return the schema without `$ref` and allOf at its top level; an empty one for `true`."""
        if not isinstance(schema, Mapping):
            return {}
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise ValueError("its references do not come to an end")
        hops = 0
        while "$ref" in schema and hops < _BOTTOM:
            siblings = {word: value for word, value in schema.items() if word != "$ref"}
            schema = {**self._resolve(schema["$ref"]), **siblings}
            hops += 1
        if "allOf" in schema:
            merged = {word: value for word, value in schema.items() if word != "allOf"}
            for part in schema["allOf"]:
                merged = _merge(merged, self._plain(part))
            schema = merged
        return dict(schema)

    def _resolve(self, ref: object) -> Schema:
        target: Any = self._root
        for step in str(ref).removeprefix("#").strip("/").split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            target = target.get(name, {}) if isinstance(target, Mapping) and name else target
        return target if isinstance(target, Mapping) else {}

    def _value(self, schema: Any, rng: SeededRandom, choose: Choose, depth: int) -> Any:
        self._made += 1
        if depth > _BOTTOM or self._made > _MOST_VALUES:
            return None
        schema = self._plain(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return choose(schema["enum"], rng)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                rest = {name: value for name, value in schema.items() if name != word}
                return self._value(_merge(rest, self._branch(schema[word], rng, depth)), rng, choose, depth + 1)
        return self._typed(schema, rng, choose, depth)

    def _branch(self, branches: Sequence[Any], rng: SeededRandom, depth: int) -> Schema:
        plain = [self._plain(branch) for branch in branches]
        if depth >= _DEEP:
            return min(plain, key=_weight)
        values = [branch for branch in plain if branch.get("type") != "null"]
        # A null is a possible but uninteresting answer, so it is drawn one time in four.
        if len(values) == len(plain) or not values or rng.below(4):
            plain = values or plain
        else:
            plain = [branch for branch in plain if branch.get("type") == "null"]
        return plain[rng.below(len(plain))]

    def _typed(self, schema: Schema, rng: SeededRandom, choose: Choose, depth: int) -> Any:
        match _type(schema, rng, depth):
            case "object":
                return self._object(schema, rng, choose, depth)
            case "array":
                return self._array(schema, rng, choose, depth)
            case "integer":
                return _integer(schema, rng)
            case "number":
                return _number(schema, rng)
            case "boolean":
                return bool(rng.below(2))
            case "null":
                return None
        return quote_for(schema, self._source, rng) or text_for(schema, rng)

    def _object(self, schema: Schema, rng: SeededRandom, choose: Choose, depth: int) -> dict[str, Any]:
        fields = schema.get("properties", {})
        required = schema.get("required", [])
        names = list(fields) if depth < _DEEP else [name for name in fields if name in required]
        names += [name for name in required if name not in fields]
        other = schema.get("additionalProperties", {})
        return {name: self._value(fields.get(name, other), rng, choose, depth + 1) for name in names}

    def _array(self, schema: Schema, rng: SeededRandom, choose: Choose, depth: int) -> list[Any]:
        first = schema.get("prefixItems", [])
        if not first and schema.get("items") is False:
            return []
        length = _length(schema, rng, depth)
        if schema.get("uniqueItems") is True:
            return self._unique(schema.get("items", {}), length, rng, depth)
        item = self._plain(schema.get("items", {}))
        if not first and "const" not in item and 0 < length <= len(item.get("enum", ())):
            return _different(item["enum"], length, rng, choose)
        items = [*first[:length], *[schema.get("items", {})] * (length - len(first))]
        return [self._value(item, rng, choose, depth + 1) for item in items]

    def _unique(self, item: Any, length: int, rng: SeededRandom, depth: int) -> list[Any]:
        values: dict[bytes, Any] = {}
        for _ in range(length * _UNIQUE_TRIES):
            if len(values) == length:
                break
            value = self._value(item, rng, any_of, depth + 1)
            values.setdefault(dumps(value), value)
        return list(values.values())


def _different(values: Sequence[Any], length: int, rng: SeededRandom, choose: Choose) -> list[Any]:
    """Return this many distinct values of an enum, because a list of labels has no repeats."""
    left = list(values)
    chosen: list[Any] = []
    while len(chosen) < length:
        chosen.append(left.pop(left.index(choose(left, rng))))
    return chosen


def _length(schema: Schema, rng: SeededRandom, depth: int) -> int:
    least = int(schema.get("minItems", 0))
    if least > MOST_ITEMS:
        raise ValueError(f"minItems is {least:,}; the rehearsal makes lists of up to {MOST_ITEMS:,}")
    most = min(int(schema.get("maxItems", max(least, 3))), max(least, _USUAL_ITEMS))
    if depth >= _DEEP or most <= least:
        return min(least, most)
    least = max(least, 1)  # an empty list shows little
    return least + rng.below(most - least + 1)


def _merge(one: Schema, other: Schema) -> dict[str, Any]:
    merged = {**one, **other}
    if "properties" in one and "properties" in other:
        merged["properties"] = {**one["properties"], **other["properties"]}
    if "required" in one and "required" in other:
        merged["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    return merged


def _weight(schema: Schema) -> int:
    """Rank a branch by how much may follow below it; the smallest ends soonest."""
    kind = schema.get("type")
    if kind == "null" or "const" in schema or "enum" in schema:
        return 0
    if kind == "array":
        return 2 if not schema.get("minItems") else 3
    return 4 if kind == "object" or kind is None else 1


def _type(schema: Schema, rng: SeededRandom, depth: int) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        values = [one for one in kind if one != "null"]
        if "null" in kind and (not values or depth >= _DEEP or not rng.below(4)):
            return "null"
        return str(values[0])
    if kind is not None:
        return str(kind)
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if "minimum" in schema or "maximum" in schema else "string"


def _integer(schema: Schema, rng: SeededRandom) -> int:
    low, high = _bounds(schema, 1)
    step = schema.get("multipleOf")
    if step and float(step).is_integer():
        first = math.ceil(low / step)
        return int((first + rng.below(max(1, math.floor(high / step) - first + 1))) * step)
    return math.ceil(low) + rng.below(max(1, math.floor(high) - math.ceil(low) + 1))


def _number(schema: Schema, rng: SeededRandom) -> float:
    step = schema.get("multipleOf")
    low, high = _bounds(schema, step or 0)
    if step:
        first = math.ceil(low / step)
        return float((first + rng.below(max(1, math.floor(high / step) - first + 1))) * step)
    value = low + (high - low) * (0.05 + 0.9 * rng.unit())
    rounded = round(value, 2)
    return rounded if low < rounded < high else value


def _bounds(schema: Schema, open_by: float) -> tuple[float, float]:
    """Return the least and greatest value; 0 to 100 without bounds. An exclusive bound moves inward by `open_by`."""
    low = max(float(schema.get("minimum", -math.inf)), float(schema.get("exclusiveMinimum", -math.inf)) + open_by)
    high = min(float(schema.get("maximum", math.inf)), float(schema.get("exclusiveMaximum", math.inf)) - open_by)
    if math.isinf(low):
        low = min(0.0, high - 100 if not math.isinf(high) else 0.0)
    return low, low + 100 if math.isinf(high) else high
