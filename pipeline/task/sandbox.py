"""Runs Jinja over data: a dot is a field, a call is a method, and no other Python object is ever a value."""

from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import wraps
from typing import Any

from jinja2 import StrictUndefined, TemplateRuntimeError, Undefined, nodes, pass_environment
from jinja2.environment import Environment
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from jinja2.visitor import NodeTransformer

from pipeline.errors import did_you_mean, list_names

#: The types of data, which can be printed and have no attributes in a template.
_DATA = (str, int, float, list, tuple, Mapping)
#: Types that yield data one at a time.
_LAZY = (Iterator, KeysView, ItemsView, ValuesView)
_BARE = frozenset({str, int, float, bool, list, tuple, type(None)})
_KINDS = {str: "a text", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
#: Stands for the method in a method call. No template can contain this name.
_METHOD = "method of"


class UndefinedField(StrictUndefined):
    """A missing value. Any use except a test whether it is defined raises, even printing a list that contains it."""

    __slots__ = ()
    __repr__ = Undefined._fail_with_undefined_error

    @property
    def _undefined_message(self) -> str:
        owner, name = self._undefined_obj, self._undefined_name
        if self._undefined_hint or owner is missing:
            return self._undefined_hint or f"{name!r} is undefined"
        if isinstance(owner, Mapping):
            hint = _method_hint(owner, name) or did_you_mean(name, owner)
            return f"{name!r} is no field there; the fields are {list_names(owner)}{hint}"
        what = _KINDS.get(type(owner), "a list")
        return f"{name!r} was looked for in {what}, which has no fields{_method_hint(owner, name)}"


def _method_hint(owner: Any, name: Any) -> str:
    is_method = isinstance(name, str) and not name.startswith("_") and callable(getattr(owner, name, None))
    return f" (for the method write {name}())" if is_method else ""


class DataEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which the names of data and of Python are separate.

    `order.items` is always the field; `order.items()` is the method, even if there is such a field. Other than the
    data, `functions` are the only names.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(undefined=UndefinedField, autoescape=False, keep_trailing_newline=True, finalize=_finalize)
        # If a record lacks a field named "range" or "dict", that must be an error, not Jinja's function.
        self.globals.clear()
        self.globals.update(functions)
        self.filters = {name: _listing(function) for name, function in self.filters.items()}
        self.filters |= {_METHOD: _method, "attr": pass_environment(DataEnvironment.getattr)}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return the field `obj.attribute`. What is not data, such as a `loop`, keeps its attributes."""
        if isinstance(obj, Mapping) or type(obj) in _BARE:
            return self._field(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return `obj[argument]`, also for filters such as map(attribute=...)."""
        if isinstance(argument, str) and (isinstance(obj, Mapping) or type(obj) in _BARE):
            return self._field(obj, argument)
        return super().getitem(obj, argument)

    def _field(self, obj: Any, name: str) -> Any:
        if isinstance(obj, Mapping) and name in obj:
            return obj[name]
        return self.undefined(obj=obj, name=name)

    def method(self, obj: Any, name: str) -> Any:
        """Return what `obj.name(...)` calls."""
        return super().getattr(obj, name)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as Jinja's
        return _to_list(super().call(__context, __obj, *args, **kwargs))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        # All compiled code passes here: templates and expressions.
        return super()._generate(_Methods().visit(source), *args, **kwargs)


class _Methods(NodeTransformer):
    """Separates calls from lookups, because only a call may reach a method."""

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        called = node.node
        if isinstance(called, nodes.Getattr):
            name = nodes.Const(called.attr, lineno=called.lineno)
            node.node = nodes.Filter(called.node, _METHOD, [name], [], None, None, lineno=called.lineno)
            node.node.environment = called.environment
        return node


@pass_environment
def _method(environment: Environment, owner: Any, name: str) -> Any:
    assert isinstance(environment, DataEnvironment)
    return environment.method(owner, name)


def called_methods(tree: nodes.Template) -> list[nodes.Getattr]:
    """Return the `owner.name` of each `owner.name(...)`, which is not a field."""
    return [call.node for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Getattr)]


def _listing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a filter return a list instead of a generator, which would be printed as an address in memory."""

    @wraps(function)
    def listing(*args: Any, **kwargs: Any) -> Any:
        return _to_list(function(*args, **kwargs))

    return listing


def _to_list(value: Any) -> Any:
    return list(value) if isinstance(value, _LAZY) else value


def _finalize(value: Any) -> Any:
    """Return the value to print. Raises if it is not data."""
    if value is None:
        return ""
    if isinstance(value, _DATA):
        return value
    if isinstance(value, Undefined):
        return str(value)  # raises if it is missing
    what = f"{type(value).__name__} {getattr(value, 'name', '')}".rstrip()
    raise TemplateRuntimeError(f"{what} is not data, so it cannot be printed")
