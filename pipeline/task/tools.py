"""Builds a tool from what `task.python` names: a Pydantic model, a tool with a schema, or an annotated function."""

import inspect
import sys
import typing
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pydantic

from pipeline import codec
from pipeline.errors import RenderError, TaskError
from pipeline.records import JSON, CallbackContext, Record
from pipeline.task.callback import Callback, accepts_arguments, copy_record, display_name, is_async, make_callback
from pipeline.task.models import Model, is_model, model_tool
from pipeline.task.schema import DEFAULT_NAME, Tool, make_tool, short
from pipeline.task.schema_tree import Schema

#: Parameters of a function that labelpipe fills, not the model.
RECORD, CALL = "record", "call"
_EXPECTED = (
    "expected a Pydantic model, a function with annotated parameters, "
    "or an object with a schema and __call__(label, record)"
)


@dataclass(frozen=True, slots=True)
class DynamicTool:
    """A schema that depends on the record: how to get it, and how to build a tool from it."""

    name: str
    columns: tuple[str, ...]
    schema_for: Callable[[Record], Schema]
    build: Callable[[Schema], Tool]
    description: Schema


@dataclass(frozen=True, slots=True)
class ToolBinding:
    """What the model is offered, one tool or one per record, and the callback for the label."""

    tool: Tool | DynamicTool
    callback: Callback | None = None

    @property
    def name(self) -> str:
        """The function's name, as the model sees it."""
        return self.tool.name


@dataclass(frozen=True, slots=True)
class ToolNaming:
    """The config's settings of the function, and their key. None leaves a setting to the tool."""

    reference: str
    name: str | None
    description: str | None
    strict: bool
    key: str

    @property
    def where(self) -> str:
        """The beginning of a message: the key of the config and its value."""
        return f"{self.key} is {self.reference!r}"


def bind_object(thing: Any, naming: ToolNaming) -> ToolBinding:
    """Build the tool from an imported object. Raises TaskError if it is not a tool."""
    try:
        return _bind(thing, naming)
    except TaskError:
        raise
    except Exception as error:
        # The user's code runs here: a property, a metaclass, anything.
        raise TaskError(f"{naming.where}, which raised {type(error).__name__}: {error}") from error


def _bind(thing: Any, naming: ToolNaming) -> ToolBinding:
    if is_model(thing):
        return ToolBinding(_model_tool(thing, naming))
    if inspect.isclass(thing):
        thing = _instance(thing, naming)
    if hasattr(thing, "schema"):
        return _bind_instance(thing, naming)
    if inspect.isfunction(thing) or inspect.ismethod(thing):
        return _bind_function(thing, naming)
    raise TaskError(f"{naming.where}, which is {short(thing)}: {_EXPECTED}")


def _model_tool(model: Model, naming: ToolNaming) -> Tool:
    return model_tool(model, name=naming.name or DEFAULT_NAME, description=naming.description, strict=naming.strict)


def _instance(kind: type, naming: ToolNaming) -> Any:
    try:
        return kind()
    except Exception as error:
        raise TaskError(
            f"{naming.where}, a class that cannot be made without arguments "
            f"({type(error).__name__}: {error}); {_EXPECTED}"
        ) from error


def _bind_instance(thing: Any, naming: ToolNaming) -> ToolBinding:
    named = replace(
        naming,
        name=naming.name or _text(thing, "name"),
        description=naming.description or _text(thing, "description") or _docstring(thing),
    )
    callback = make_callback(thing, _names(thing, "extra_columns")) if callable(thing) else None
    declared = _names(thing, "columns")
    tool: Tool | DynamicTool
    if is_model(thing.schema):
        tool = _model_tool(thing.schema, named)
    elif callable(thing.schema):
        tool = _dynamic_tool(thing.schema, named, declared)
    else:
        tool = _schema_tool(thing.schema, named)
    if declared is not None and set(declared) != set(tool.columns):
        raise TaskError(
            f"{naming.where}, whose columns are {list(declared)}, "
            f"but its schema has {list(tool.columns)}: remove the columns"
        )
    extra = callback.extra_columns if callback else None
    if both := [name for name in extra or () if name in tool.columns]:
        raise TaskError(f"the tool names {both} both as label columns and as extra_columns: expected either")
    return ToolBinding(tool, callback)


def _schema_tool(schema: Schema, naming: ToolNaming) -> Tool:
    return make_tool(schema, name=naming.name or DEFAULT_NAME, description=naming.description, strict=naming.strict)


def _dynamic_tool(
    schema_for: Callable[[Any], Any], naming: ToolNaming, declared: tuple[str, ...] | None
) -> DynamicTool:
    if not accepts_arguments(schema_for, 1):
        raise TaskError(f"{naming.where}: its schema cannot be called with (record)")
    columns = declared or _columns_without_record(schema_for, naming)
    name = naming.name or DEFAULT_NAME
    description = {
        "python": naming.reference,
        "name": name,
        "description": naming.description,
        "strict": naming.strict,
        "columns": list(columns),
    }

    def build(schema: Schema) -> Tool:
        tool = _schema_tool(schema, naming)
        if unknown := [name for name in tool.columns if name not in columns]:
            raise TaskError(f"it has the properties {unknown}, which the tool's columns {list(columns)} do not name")
        return tool

    return DynamicTool(name, columns, partial(_schema_for_record, schema_for), build, description)


def _schema_for_record(schema_for: Callable[[Any], Any], record: Record) -> Schema:
    try:
        schema = schema_for(copy_record(record))
    except BaseException as error:  # even a SystemExit must not end the run
        raise RenderError(f"the tool's schema(record) raised {type(error).__name__}: {error}") from error
    if not isinstance(schema, dict):
        raise RenderError(f"the tool's schema(record) returned {short(schema)}: expected a JSON Schema as a dict")
    return schema


def _columns_without_record(schema_for: Callable[[Any], Any], naming: ToolNaming) -> tuple[str, ...]:
    try:
        columns = make_tool(schema_for(None), name=DEFAULT_NAME, description=None, strict=False).columns
    except Exception as error:
        raise TaskError(
            f"{naming.where}: its schema depends on the record, so the label columns are not "
            f"known (schema(None) raised {type(error).__name__}); give the tool columns, such as columns = ('label',)"
        ) from error
    return columns


def _bind_function(function: Callable[..., Any], naming: ToolNaming) -> ToolBinding:
    model, injected = _parameters(function, naming)
    named = replace(
        naming,
        name=naming.name or function.__name__,
        description=naming.description or inspect.getdoc(function),
    )

    def run(label: dict[str, JSON], record: Record, call: CallbackContext) -> Any:
        instance = model.model_validate_json(codec.dumps(label))
        arguments = {name: getattr(instance, name) for name in model.model_fields}
        available = {RECORD: record, CALL: call}
        return function(**arguments, **{name: available[name] for name in injected})

    return ToolBinding(_model_tool(model, named), Callback(run, is_async(function)))


def _parameters(function: Callable[..., Any], naming: ToolNaming) -> tuple[Model, tuple[str, ...]]:
    """Return a Pydantic model of what the model fills, and the names of what labelpipe fills."""
    parameters = dict(inspect.signature(function).parameters)
    injected = tuple(name for name in (RECORD, CALL) if _is_ours(parameters.get(name)))
    for name in injected:
        del parameters[name]
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise TaskError(f"{naming.where}: an annotation of it cannot be read: {error}") from error
    fields: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name not in hints or parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TaskError(
                f"{naming.where}: its parameter {str(parameter)!r} needs a name and an "
                "annotation, such as label: Literal['yes', 'no'] (or give it a schema)"
            )
        fields[name] = (hints[name], ... if parameter.default is parameter.empty else parameter.default)
    return _create_model(display_name(function), fields, naming), injected


def _is_ours(parameter: inspect.Parameter | None) -> bool:
    """Whether labelpipe fills a parameter named record or call; not if it is annotated as a field of the label."""
    if parameter is None or parameter.name == RECORD:
        return parameter is not None
    kind = parameter.annotation
    ours = (inspect.Parameter.empty, CallbackContext, "CallbackContext")
    return kind in ours or str(kind).endswith(".CallbackContext")


def _create_model(name: str, fields: dict[str, Any], naming: ToolNaming) -> Model:
    config = pydantic.ConfigDict(extra="forbid", protected_namespaces=())
    try:
        with warnings.catch_warnings():
            # A parameter may have the name of a Pydantic method, such as "schema" or "copy".
            warnings.simplefilter("ignore")
            model: Model = pydantic.create_model(name, __config__=config, **fields)
    except Exception as error:
        raise TaskError(f"{naming.where}: its parameters make no schema: {error}") from error
    return model


def _text(thing: Any, name: str) -> str | None:
    value = getattr(thing, name, None)
    if value is None or isinstance(value, str):
        return value
    raise TaskError(f"the tool {display_name(thing)} has {name} = {short(value)}: expected a text")


def _names(thing: Any, name: str) -> tuple[str, ...] | None:
    value = getattr(thing, name, None)
    if value is None:
        return None
    if isinstance(value, list | tuple) and value and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise TaskError(f"the tool {display_name(thing)} has {name} = {short(value)}: expected a list of names")


def _docstring(thing: Any) -> str | None:
    owner = thing if inspect.isroutine(thing) else type(thing)
    doc = owner.__doc__ or ""
    # Ignore docstrings that the standard library wrote, as dataclass does.
    written = owner.__module__ not in sys.stdlib_module_names and not doc.startswith(f"{owner.__name__}(")
    return inspect.cleandoc(doc) if doc and written else None
