"""Reads from a task's tool schemas what its label fields may contain, and reads people's values as such values."""

import ast
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipeline import codec
from pipeline.records import JSON

#: One of a list, several of a list, a number, a text; "unknown" if the schema is too vague.
Kind = Literal["class", "set", "number", "text", "unknown"]
Schema = Mapping[str, Any]

#: The names that a gold column may have for its label field: in any file, and in a file that the user calls gold.
GOLD_NAMES = ("{}", "gold_{}", "{}_gold")
MORE_GOLD_NAMES = (*GOLD_NAMES, "true_{}", "{}_true", "correct_{}", "right_{}")
#: The column that names the called tool.
TOOL = "tool"
#: A range with at most this many whole numbers is a list of ordered classes, such as stars.
SCALE_MOST = 21
#: Texts without a list of values are classes if they are at most this long, this few are distinct, and each occurs
#: about twice.
CLASS_CHARS, CLASSES_MOST = 60, 100
#: The most references to follow in a row.
_STEPS = 20
_KINDS: Mapping[str, Kind] = {"array": "set", "integer": "number", "number": "number", "boolean": "class"}


@dataclass(frozen=True, slots=True)
class MeasuredField:
    """A label field as it is measured.

    `values` are the names of its classes, in order; () without a list. `is_ordered`: they have an order. `numbers` are
    the values behind the names if all are numbers; otherwise their places count. `is_bool`: they are true and false.
    `former` maps the names of classes before a rename to the current ones.
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
        """The number or place of each class."""
        return dict(self.numbers) if self.numbers is not None else {name: at for at, name in enumerate(self.values)}


def find_field(column: str, fields: Iterable[str], names: Sequence[str] = GOLD_NAMES) -> str | None:
    """Return the label field that a gold column belongs to by its name; None if there is none."""
    return next((field for field in fields if column in (name.format(field) for name in names)), None)


def only_field(fields: Mapping[str, MeasuredField]) -> str | None:
    """Return the only label field, or the only one with a list: there is no gold for a reason or a confidence."""
    names = [name for name, one in fields.items() if one.values] if len(fields) > 1 else list(fields)
    return names[0] if len(names) == 1 else None


def class_name(value: JSON) -> str:
    """Return the name of a class. 1, 1.0, and "1" are the same class, and so are true and "true"."""
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
    """Return the label fields by column. `tools` are function definitions as in a request; `rows` is `task.rows`.

    `ordered` are the fields whose values are listed from lowest to highest.
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
    """Yield the columns of a schema: its properties, with the list `rows` replaced by the properties of its items."""
    for name, node in (root.get("properties") or {}).items():
        if name != rows:
            yield name, node
            continue
        item = _resolved(root, _resolved(root, node).get("items") or {})
        yield from (item.get("properties") or {name: item}).items()


def _resolved(root: Schema, node: Any) -> Schema:
    """Return the node behind its references and, if it may also be null, its other form."""
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
    """Return the listed values without null: an enum, a constant, or alternative constants."""
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
    """Return the field. If its schema is too vague, infer the kind from values that it has had."""
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


#: The class of a label that is null or missing.
NONE = "(none)"
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
#: The separators between several labels in one cell.
_BETWEEN = ("|", ";", ",", "\n")


def has_value(value: JSON) -> bool:
    """Whether there is a value. An empty or blank cell has none."""
    return value is not None and (type(value) is not str or (value != "" and not value.isspace()))


def as_class(field: MeasuredField, value: JSON) -> str:
    """Return the class that a value names. Texts count exactly: case and white space distinguish classes.

    Only if the field contains numbers or booleans are other spellings of a value accepted: "1.0" for 1, "TRUE" for
    true.
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
    """Return the number, with all digits if it is whole; None if it is not a number.

    A text may have a decimal comma, as in spreadsheets that separate values by semicolons. 1,000 is ambiguous and does
    not count as a number.
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
    """Return the classes that a value names.

    The value may be a list, or a text that contains a list in JSON or Python form. Any other text is one class, or
    several separated by `|`, `;`, a comma, or a line break if all parts are classes of the field.
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
