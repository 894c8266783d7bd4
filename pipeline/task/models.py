"""Turns a Pydantic model into a tool: its schema fits strict mode, and its validators check the answers."""

import inspect
from dataclasses import replace
from typing import Any

import pydantic

from pipeline import codec
from pipeline.errors import CallbackError, InvalidAnswerError, TaskError
from pipeline.records import JSON
from pipeline.task.lint import FORMATS
from pipeline.task.schema import MAX_FAULTS, Check, Tool, format_path, make_tool, order_columns, short, validator
from pipeline.task.schema_tree import Schema, is_object, transform

#: Keywords that strict mode refuses and that the model checks itself.
_LEFT_TO_THE_MODEL = frozenset({"default", "discriminator", "uniqueItems", "minProperties", "maxProperties"})
_TYPE_NAMES: dict[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}

#: If an answer has more faults than this, only their number is reported.
MOST_IN_DETAIL = 1_000

Model = type[pydantic.BaseModel]


def is_model(thing: object) -> bool:
    """Whether it is a Pydantic model class."""
    return inspect.isclass(thing) and issubclass(thing, pydantic.BaseModel)


def model_tool(model: Model, *, name: str, description: str | None, strict: bool) -> Tool:
    """Build the tool whose arguments are checked by the schema and then by the model. Raises TaskError."""
    schema = model_schema(model, strict=strict)
    if description is None:
        description = schema.get("description")
    schema.pop("description", None)
    tool = make_tool(schema, name=name, description=description, strict=strict)
    columns = _columns(model)
    return replace(tool, columns=columns, check=_model_check(model, tool.schema, columns))


def model_schema(model: Model, *, strict: bool) -> Schema:
    """Return the model's JSON Schema without titles; in strict mode with every property required and no default.

    Constraints that strict mode refuses are left to the model.
    """
    try:
        schema = model.model_json_schema(by_alias=True, mode="validation")
    except Exception as error:
        raise TaskError(f"the model {model.__name__} has no JSON Schema: {error}") from error
    return _resolve_root(transform(schema, _strict_node if strict else _without_title))


def _columns(model: Model) -> tuple[str, ...]:
    # The label is the model's output, with computed fields and without excluded ones.
    try:
        output_schema = _resolve_root(model.model_json_schema(by_alias=True, mode="serialization"))
    except Exception as error:
        raise TaskError(f"the model {model.__name__} cannot be written as JSON: {error}") from error
    return tuple(output_schema.get("properties", ()))


def _resolve_root(schema: Schema) -> Schema:
    # The schema of a model that refers to itself is a $ref, but the root must be an object.
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return schema
    target: Schema = schema["$defs"][reference.removeprefix("#/$defs/")]
    return {**target, "$defs": schema["$defs"]}


def _model_check(model: Model, schema: Schema, columns: tuple[str, ...]) -> Check:
    fits = validator(schema)

    def check(value: JSON, text: str) -> dict[str, JSON]:
        fits(value, text)
        return order_columns(_validate(model, text), columns)

    return check


def _validate(model: Model, text: str) -> dict[str, JSON]:
    try:
        instance = model.model_validate_json(text)
        label: dict[str, JSON] = codec.plain(instance.model_dump(mode="json", by_alias=True))
    except pydantic.ValidationError as error:
        raise InvalidAnswerError(_faults(error)) from error
    except BaseException as error:  # even a validator's SystemExit must not end the run
        raise CallbackError(f"the model {model.__name__} raised {type(error).__name__}: {error}") from error
    return label


def _faults(error: pydantic.ValidationError) -> str:
    if (count := error.error_count()) > MOST_IN_DETAIL:  # listing one of them would create all of them
        return f"{count:,} values do not fit the model {error.title}"
    details = error.errors(include_url=False)[:MAX_FAULTS]
    return "; ".join(f"{format_path(fault['loc'])}: {fault['msg']}, got {short(fault['input'])}" for fault in details)


def _without_title(node: Schema) -> Schema:
    return {key: value for key, value in node.items() if key != "title"}


def _strict_node(node: Schema) -> Schema:
    strict: Schema = {key: value for key, value in _without_title(node).items() if key not in _LEFT_TO_THE_MODEL}
    if strict.get("format", "email") not in FORMATS:
        del strict["format"]
    if "oneOf" in strict and "anyOf" not in strict:
        # A tagged union: the tags exclude each other, so "one of" and "any of" mean the same.
        strict["anyOf"] = strict.pop("oneOf")
    if is_object(strict) and "properties" in strict:
        strict["required"] = list(strict["properties"])
        strict.setdefault("additionalProperties", False)
    return _wrap_reference(_with_type(strict))


def _with_type(node: Schema) -> Schema:
    values: list[Any] = node.get("enum", [node["const"]] if "const" in node else [])
    names = list(dict.fromkeys(_TYPE_NAMES.get(type(value), "") for value in values))
    if "type" in node or not values or "" in names:
        return node
    return {"type": names[0] if len(names) == 1 else names, **node}


def _wrap_reference(node: Schema) -> Schema:
    # A $ref must be alone. A union of one means the same and may carry a description.
    if "$ref" not in node or not node.keys() - {"$ref", "$defs"}:
        return node
    others = {key: value for key, value in node.items() if key != "$ref"}
    return {**others, "anyOf": [{"$ref": node["$ref"]}]}
