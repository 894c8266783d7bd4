"""Builds the function that is offered to the model: its definition, and the check of its arguments."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import jsonschema_rs
from jsonschema_rs import ValidationErrorKind as Kind

from pipeline import codec
from pipeline.errors import InvalidAnswerError, TaskError
from pipeline.records import JSON
from pipeline.task.lint import lint
from pipeline.task.schema_tree import Schema, is_object, transform

#: The most strict-mode findings in a message. The first ones show what to do about the rest.
MAX_FINDINGS = 3
#: Arguments, and the text they were read from -> the label. Raises InvalidAnswerError.
Check = Callable[[JSON, str], dict[str, JSON]]

DEFAULT_NAME = "set_label"
MAX_VALUES = 20  #: of an enum, in a message
MAX_FAULTS = 3
#: The longest arguments whose faults are listed one by one.
MOST_CHARS_IN_DETAIL = 30_000
MAX_VALUE_CHARS = 200
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Tool:
    """The function offered to the model. `columns` are the schema's top-level properties, in order."""

    name: str
    definition: Schema
    schema: Schema
    columns: tuple[str, ...]
    check: Check


def make_tool(schema: Schema, *, name: str, description: str | None, strict: bool, check: Check | None = None) -> Tool:
    """Build the tool for a schema. Raises TaskError for a schema that cannot work.

    In strict mode, an object without `additionalProperties` gets `additionalProperties: false`. Nothing else changes.
    `check` replaces the plain check against the schema.
    """
    if not _NAME.fullmatch(name):
        raise TaskError(f"the function's name is {name!r}: expected 1 to 64 letters (a-z), digits, '_' or '-'")
    sound = validate_schema(schema, name=name, strict=strict)
    function: Schema = {"name": name}
    if description:
        function["description"] = description
    if strict:
        function["strict"] = True
    function["parameters"] = sound
    return Tool(
        name=name,
        definition={"type": "function", "function": function},
        schema=sound,
        columns=tuple(sound["properties"]),
        check=check or schema_check(sound),
    )


def validate_schema(schema: Schema, *, name: str, strict: bool) -> Schema:
    """Return the schema to send. Require a valid object with properties that fits strict mode if `strict`."""
    schema = _copy_schema(schema, name)
    if schema.get("type") != "object":
        raise TaskError(
            f'the schema of {name} has a root of type {schema.get("type")!r}: expected "object" with properties'
        )
    if not schema.get("properties"):
        raise TaskError(f"the schema of {name} has no properties: each one is a label column, so there is none")
    if not strict:
        return schema
    strict_schema: Schema = transform(schema, _close)
    if findings := lint(strict_schema):
        listed = "".join(f"\n  {finding}" for finding in findings[:MAX_FINDINGS])
        if len(findings) > MAX_FINDINGS:
            listed += f"\n  and {len(findings) - MAX_FINDINGS} more"
        raise TaskError(f"the schema of {name} does not fit strict mode (fix it, or set model.strict = false):{listed}")
    return strict_schema


def schema_check(schema: Schema) -> Check:
    """Return a check of arguments against the schema alone."""
    validate, columns = validator(schema), tuple(schema["properties"])

    def check(value: JSON, text: str) -> dict[str, JSON]:
        validate(value, text)
        return order_columns(value, columns)

    return check


def validator(schema: Schema) -> Callable[[JSON, str], None]:
    """Return a function that raises InvalidAnswerError, with path and expectation, for a value that does not fit.

    It also takes the text that the value was read from. For a long text it gives no details: the validator creates all
    faults before it returns the first, and 200,000 bad items take it half a minute.
    """
    compiled = compile_schema(schema)
    is_valid = compiled.is_valid

    def validate(value: JSON, text: str) -> None:
        try:
            if is_valid(value):
                return
            if len(text) > MOST_CHARS_IN_DETAIL:
                raise InvalidAnswerError(f"the arguments ({len(text):,} characters) do not fit the schema")
            faults = [_fault(error) for error in islice(compiled.iter_errors(value), MAX_FAULTS)]
        except ValueError as error:
            # The value is nested too deeply for the validator.
            faults = [str(error)]
        raise InvalidAnswerError("; ".join(faults))

    return validate


def compile_schema(schema: Schema) -> "jsonschema_rs.Validator":  # quoted: the lowest versions have no such name
    """Compile the schema. Nothing is fetched: references must point into the schema itself."""
    try:
        return jsonschema_rs.validator_for(schema, retriever=_refuse_fetch)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise TaskError(f"the JSON Schema cannot be used: {_first_line(error)}") from error


def order_columns(label: dict[str, JSON], columns: tuple[str, ...]) -> dict[str, JSON]:
    """Return the label with its keys in the order of `columns`, and all other keys after them."""
    if tuple(label) == columns:
        return label
    return {name: label[name] for name in columns if name in label} | label


def short(value: JSON) -> str:
    """Format a value for a message: its repr, truncated."""
    text = repr(value)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"


def format_path(path: Sequence[str | int]) -> str:
    """Format a path for people: `items[0].name`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "the arguments"


def _copy_schema(schema: Schema, name: str) -> Schema:
    """Copy the schema, so that nobody else can change it. Raises TaskError if it is not valid."""
    try:
        plain = codec.plain(schema)
        jsonschema_rs.meta.validate(plain)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, TypeError, ValueError) as error:
        steps = "/".join(map(str, getattr(error, "instance_path", ())))
        raise TaskError(f"the JSON Schema of {name} is not valid at #/{steps}: {_first_line(error)}") from error
    if not isinstance(plain, dict):
        raise TaskError(f"the JSON Schema of {name} is {short(plain)}: expected an object")
    return plain


def _close(node: Schema) -> Schema:
    if is_object(node) and "properties" in node and "additionalProperties" not in node:
        return {**node, "additionalProperties": False}
    return node


def _refuse_fetch(uri: str) -> JSON:
    raise ValueError(f"{uri} is outside the schema; put it into $defs")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _fault(error: jsonschema_rs.ValidationError) -> str:
    return f"{format_path(error.instance_path)}: {_reason(error)}"


def _reason(error: jsonschema_rs.ValidationError) -> str:
    match error.kind:
        case Kind.Enum(options=options):
            more = f" (and {len(options) - MAX_VALUES} more)" if len(options) > MAX_VALUES else ""
            return f"{short(error.instance)} is not one of {list(options[:MAX_VALUES])!r}{more}"
        case Kind.Required(property=name):
            return f"{name!r} is required, but missing"
        case Kind.AnyOf(context=branches) | Kind.OneOfNotValid(context=branches):
            reasons = [_fault(branch[0]) for branch in branches[:MAX_FAULTS] if branch]
            return f"{short(error.instance)} fits none of the forms it may have ({' | '.join(reasons)})"
        case _:
            text = error.message
            return text if len(text) <= 2 * MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]} … {text[-MAX_VALUE_CHARS:]}"
