"""What a task's label fields may hold, read from the schemas of its tools: by that, each is measured."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipeline import codec
from pipeline.records import JSON

#: One of a list, several of a list, a number, a text; "unknown" where the schema says too little.
Kind = Literal["class", "set", "number", "text", "unknown"]
Schema = Mapping[str, Any]

#: What a column of gold may be called beside the name of its label field: where it is looked for, and where somebody
#: has named the file as gold.
GOLD_NAMES = ("{}", "gold_{}", "{}_gold")
MORE_GOLD_NAMES = (*GOLD_NAMES, "true_{}", "{}_true", "correct_{}", "right_{}")
#: The column that names the tool which was called.
TOOL = "tool"
#: Whole numbers in a range of so many are classes in an order, as stars are.
SCALE_MOST = 21
#: Texts without a list of values are classes where they are so short, so few are distinct, and each comes twice or so.
CLASS_CHARS, CLASSES_MOST = 60, 100
#: References in a schema that are followed, one after the other.
_STEPS = 20
_KINDS: Mapping[str, Kind] = {"array": "set", "integer": "number", "number": "number", "boolean": "class"}


@dataclass(frozen=True, slots=True)
class MeasuredField:
    """A label field as it is measured.

    `values` are the classes of its list, by name and in its order; () where it has no list. `is_ordered`: they have an
    order. `numbers` are the values behind the names where all are numbers, else their places. `is_bool`: true and
    false. `former` are names that classes had before they were renamed, with those that they have now.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    is_ordered: bool = False
    is_bool: bool = False
    numbers: Mapping[str, float] | None = None
    former: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def order(self) -> dict[str, float]:
        """The number, or the place, of each of its classes."""
        return dict(self.numbers) if self.numbers is not None else {name: at for at, name in enumerate(self.values)}


def find_field(column: str, fields: Iterable[str], names: Sequence[str] = GOLD_NAMES) -> str | None:
    """The label field that a column of gold is about by its name; None where the name does not tell."""
    return next((field for field in fields if column in (name.format(field) for name in names)), None)


def only_field(fields: Mapping[str, MeasuredField]) -> str | None:
    """The only label field, or the only one with a list of values: a reason or a confidence beside it has no gold."""
    names = [name for name, one in fields.items() if one.values] if len(fields) > 1 else list(fields)
    return names[0] if len(names) == 1 else None


def class_name(value: JSON) -> str:
    """The name of a class: 1, 1.0 and "1" are one, and so are true and "true"."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return codec.dumps(value).decode()


def fields_of_tools(
    tools: Sequence[Schema], rows: str | None = None, ordered: Iterable[str] = ()
) -> dict[str, MeasuredField]:
    """The label fields by column. `tools` are function definitions as a request has them; `rows` is `task.rows`.

    `ordered` are the fields whose list of values goes from the lowest to the highest.
    """
    fields: dict[str, MeasuredField] = {}
    functions = [tool["function"] for tool in tools if isinstance(tool.get("function"), Mapping)]
    if len(functions) > 1:
        fields[TOOL] = _listed_field(TOOL, [function["name"] for function in functions])
    for function in functions:
        root = function.get("parameters") or {}
        prefix = f"{function['name']}_" if len(functions) > 1 else ""
        for name, node in _properties(root, rows):
            fields[prefix + name] = _field(prefix + name, _resolved(root, node), root)
    wanted = set(ordered)
    return {name: replace(field, is_ordered=True) if name in wanted else field for name, field in fields.items()}


def _properties(root: Schema, rows: str | None) -> Iterator[tuple[str, Schema]]:
    """The columns of a schema: its properties, and those of an item where a list of them gives the rows."""
    for name, node in (root.get("properties") or {}).items():
        if name != rows:
            yield name, node
            continue
        item = _resolved(root, _resolved(root, node).get("items") or {})
        yield from (item.get("properties") or {name: item}).items()


def _resolved(root: Schema, node: Any) -> Schema:
    """The node behind its references; of a form that may also be null the other one."""
    for _ in range(_STEPS):
        if not isinstance(node, Mapping):
            return {}
        forms = [form for key in ("anyOf", "oneOf") for form in node.get(key) or () if isinstance(form, Mapping)]
        others = [form for form in forms if form.get("type") != "null"]
        place = node.get("$ref")
        if isinstance(place, str) and place.startswith("#/"):
            node = _at(root, place.removeprefix("#/").split("/"))
        elif len(forms) > len(others) == 1:
            node = others[0]
        else:
            break
    return node if isinstance(node, Mapping) else {}


def _at(root: Schema, steps: Sequence[str]) -> Any:
    node: Any = root
    for step in steps:
        node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
    return node


def _field(name: str, node: Schema, root: Schema) -> MeasuredField:
    if values := _values(node):
        return _listed_field(name, values)
    kinds = node.get("type", ())
    types = [one for one in ([kinds] if isinstance(kinds, str) else kinds) if one != "null"]
    kind = _KINDS.get(types[0], "unknown") if len(types) == 1 else "unknown"
    if kind == "set":
        item = _resolved(root, node.get("items") or {})
        return replace(_listed_field(name, _values(item)), kind="set")
    if types == ["boolean"]:
        return _listed_field(name, [True, False])
    if types == ["integer"] and (scale := _scale(node)):
        return _listed_field(name, scale)
    return MeasuredField(name, kind)


def _values(node: Schema) -> list[JSON]:
    """The values of a list, without null: an enum, a constant, or constants to choose from."""
    if isinstance(node.get("enum"), list):
        return [value for value in node["enum"] if value is not None]
    if "const" in node:
        return [node["const"]]
    forms = [form for key in ("anyOf", "oneOf") for form in node.get(key) or () if isinstance(form, Mapping)]
    constants = [value for form in forms if form.get("type") != "null" for value in (_values(form) or [None])]
    return constants if constants and None not in constants else []


def _scale(node: Schema) -> list[JSON]:
    low, high = node.get("minimum"), node.get("maximum")
    if not isinstance(low, int) or not isinstance(high, int) or not 0 < high - low < SCALE_MOST:
        return []
    return list(range(low, high + 1))


def _listed_field(name: str, values: Sequence[JSON]) -> MeasuredField:
    names = tuple(dict.fromkeys(map(class_name, values)))
    is_bool = bool(values) and all(isinstance(value, bool) for value in values)
    are_numbers = bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    numbers = {class_name(value): float(value) for value in values} if are_numbers else None
    return MeasuredField(name, "class", names, is_ordered=are_numbers, is_bool=is_bool, numbers=numbers)


def infer_kind(field: MeasuredField, examples: Sequence[JSON]) -> MeasuredField:
    """The field, its kind found out by values that it was seen to have where the schema says too little."""
    if field.kind != "unknown":
        return field
    values = [value for value in examples if value is not None]
    if any(isinstance(value, list) for value in values):
        return replace(field, kind="set")
    if values and all(isinstance(value, bool) for value in values):
        return _listed_field(field.name, [True, False])
    if values and all(map(codec.is_number, values)):
        return replace(field, kind="number")
    names = {class_name(value) for value in values}
    few = len(names) <= min(CLASSES_MOST, len(values) // 2)
    is_class = few and all(len(name) <= CLASS_CHARS for name in names)
    return replace(field, kind="class" if is_class else "text")
