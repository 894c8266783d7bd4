"""What a task's label fields may hold, read from the schemas of its tools, and how a person's value is read as one."""

import ast
import math
import re
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
            node = _follow_pointer(root, place.removeprefix("#/").split("/"))
        elif len(forms) > len(others) == 1:
            node = others[0]
        else:
            break
    return node if isinstance(node, Mapping) else {}


def _follow_pointer(root: Schema, steps: Sequence[str]) -> Any:
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


#: The name of the class of a label that is null, or not there.
NONE = "(none)"
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
#: What may stand between several labels in one cell.
_BETWEEN = ("|", ";", ",", "\n")


def has_value(value: JSON) -> bool:
    """Whether there is a value: an empty cell, or one of white space only, is not answered."""
    return value is not None and (type(value) is not str or (value != "" and not value.isspace()))


def as_class(field: MeasuredField, value: JSON) -> str:
    """The class that a value names. Texts count as they stand: case and white space tell classes apart.

    Only where the field holds numbers, or true and false, is another writing of the same value read: "1.0" as 1,
    "TRUE" as true.
    """
    name = class_name(value)
    if name in field.values or not isinstance(value, str):
        return name
    if field.is_bool and (word := value.strip().lower()) in ("true", "false"):
        return word
    if field.numbers is not None and (number := as_number(value)) is not None:
        return class_name(number)
    return name


def as_number(value: JSON) -> int | float | None:
    """The number, a whole one with all its digits, or None where it is none.

    A text may have a decimal comma, as where a spreadsheet writes semicolons between values. 1,000 may be either, and
    is no number.
    """
    if type(value) is float:  # nearly always, and there may be a million
        return value if math.isfinite(value) else None
    if isinstance(value, codec.Digits):
        value = value.text
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()) and not _THOUSANDS.fullmatch(value.strip()):
        value = value.replace(",", ".")
    try:
        number = float(value)
        if not math.isfinite(number):
            return None
        return int(value) if isinstance(value, int) or _WHOLE.fullmatch(str(value).strip()) else number
    except (ValueError, OverflowError):
        return None


def as_set(field: MeasuredField, value: JSON) -> frozenset[str]:
    """The classes that a value names.

    A list is one, and so is a text that holds a list as JSON or as Python write it; else a text is one class, or
    several with `|`, `;`, a comma, or a line break between them, if all parts are classes of the field.
    """
    if isinstance(value, str):
        value = _split_values(field, value)
    items = value if isinstance(value, list) else [value]
    return frozenset(as_class(field, item) for item in items if item is not None)


def _split_values(field: MeasuredField, text: str) -> JSON:
    if text in field.values:
        return text
    if text.lstrip().startswith("["):
        for read in (codec.loads, ast.literal_eval):
            try:
                splits = read(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(splits, list):
                return splits
    splits = [_parts(text, sign) for sign in _BETWEEN if sign in text]
    if field.values:
        splits = [parts for parts in splits if all(as_class(field, part) in field.values for part in parts)]
    return splits[0] if splits else text


def _parts(text: str, sign: str) -> Sequence[str]:
    return [part.strip() for part in text.split(sign) if part.strip()]
