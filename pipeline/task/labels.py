"""Builds the tool from `task.labels`, the short form: one property for each label field."""

import math
from collections.abc import Iterable, Mapping, Sequence

from pipeline.errors import TaskError
from pipeline.labelfields import Choice, LabelField, json_identity, plain_choices
from pipeline.records import JSON
from pipeline.task.lint import MAX_ENUM_VALUES
from pipeline.task.schema import DEFAULT_NAME, Check, Tool, make_tool, schema_check, short
from pipeline.task.schema_tree import Schema

#: What `labelpipe init` writes if it knows no labels. Nobody wants training data with these.
PLACEHOLDER_LABELS = ("first label", "second label")
#: A field, or a list of its values, by name.
Labels = Mapping[str, LabelField | Sequence[JSON]]


def labels_tool(labels: Labels, *, name: str | None, description: str | None, strict: bool) -> Tool:
    """Build the tool with one property for each label field. Raises TaskError."""
    if not labels:
        raise TaskError("task.labels is empty: expected a name and its values, such as label = ['yes', 'no']")
    fields = {field: _field(field, values) for field, values in labels.items()}
    schema: Schema = {
        "type": "object",
        "properties": {name: _property(name, field) for name, field in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }
    return make_tool(
        schema,
        name=name or DEFAULT_NAME,
        description=description or _describe(fields),
        strict=strict,
        check=_normalizing_check(fields, schema),
    )


def _describe(labels: Iterable[str]) -> str:
    """Describe the function by the names of its fields."""
    *most, last = labels
    return f"Set {', '.join(most)} and {last} of the record." if most else f"Set the {last} of the record."


def _field(name: str, values: LabelField | Sequence[JSON]) -> LabelField:
    if isinstance(values, LabelField):
        return values
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TaskError(f"task.labels.{name} is {short(values)}: expected a list of values")
    return LabelField(choices=plain_choices(values))


def _property(name: str, field: LabelField) -> Schema:
    match field.kind:
        case "text":
            return {"type": "string"}
        case "integer":
            return {"type": "integer", "minimum": int(field.low or 0), "maximum": int(field.high or 0)}
        case "number":
            return {"type": "number", "minimum": field.low, "maximum": field.high}
        case "several":
            return {"type": "array", "items": _enum(name, field.values), **_meanings(field)}
    return {**_enum(name, field.values), **_meanings(field)}


def _meanings(field: LabelField) -> Schema:
    """Describe the labels, one per line. Return {} if none has a meaning or an example."""
    if not any(choice.meaning or choice.examples for choice in field.choices):
        return {}
    return {"description": "\n".join(map(_line, field.choices))}


def _line(choice: Choice) -> str:
    text = str(choice.value) if isinstance(choice.value, str) else repr(choice.value).lower()
    meaning = " ".join(choice.meaning.split())
    examples = "; ".join(" ".join(example.split()) for example in choice.examples)
    if meaning and examples and meaning[-1].isalnum():
        meaning += "."  # otherwise the examples read as part of its sentence
    explained = " ".join(filter(None, [meaning, f"Examples: {examples}" if examples else ""]))
    return f"- {text}: {explained}" if explained else f"- {text}"


def _normalizing_check(fields: Mapping[str, LabelField], schema: Schema) -> Check | None:
    """Return a check that sorts several labels in the config's order and turns 3.0 into 3; None if not needed."""
    several = {name: field.values for name, field in fields.items() if field.kind == "several"}
    whole = [name for name, field in fields.items() if field.kind == "integer"]
    if not several and not whole:
        return None
    fits = schema_check(schema)

    def check(value: JSON, text: str) -> dict[str, JSON]:
        label = fits(value, text)
        for name, values in several.items():
            answered = {json_identity(one) for one in label[name]}
            label[name] = [one for one in values if json_identity(one) in answered]
        return label | {name: int(label[name]) for name in whole}

    return check


def _enum(name: str, values: Sequence[JSON]) -> Schema:
    if not values:
        raise TaskError(f"task.labels.{name} is an empty list: expected at least one value")
    if placeholders := [value for value in values if value in PLACEHOLDER_LABELS]:
        raise TaskError(
            f"task.labels.{name} still has the placeholder {placeholders[0]!r}: replace it with your own labels"
        )
    if len(values) > MAX_ENUM_VALUES:
        raise TaskError(f"task.labels.{name} has {len(values)} values: an enum takes at most {MAX_ENUM_VALUES}")
    types = list(dict.fromkeys(_type(name, value) for value in values))
    _refuse_duplicates(name, values)
    return {"type": types[0] if len(types) == 1 else types, "enum": list(values)}


def _type(name: str, value: JSON) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float) and math.isfinite(value):
        return "number"
    if isinstance(value, str) and value.strip():
        return "string"
    raise TaskError(f"task.labels.{name} holds {value!r}: expected texts that are not blank, numbers, true or false")


def _refuse_duplicates(name: str, values: Sequence[JSON]) -> None:
    marks: set[tuple[bool, object]] = set()
    for value in values:
        if json_identity(value) in marks:
            raise TaskError(f"task.labels.{name} holds {value!r} twice: remove one of them")
        marks.add(json_identity(value))
