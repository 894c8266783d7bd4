"""Evaluates expressions over a record's or label's fields: one line of Jinja that can reach only data."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import TemplateSyntaxError, meta, nodes
from jinja2.lexer import TOKEN_WHITESPACE
from jinja2.parser import Parser

from pipeline.errors import TaskError
from pipeline.task.sandbox import DataEnvironment, called_methods

#: The names in an expression that are not fields.
LABEL, RECORD = "label", "record"
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "all": all,
    "any": any,
    "float": float,
    "int": int,
    "len": len,
    "lower": lambda text: str(text).lower(),
    "max": max,
    "min": min,
    "round": round,
    "sorted": sorted,
    "str": str,
    "sum": sum,
}

_ENVIRONMENT = DataEnvironment(FUNCTIONS)

#: Jinja's messages about what it found, one of them with a 0-based place.
_CHAR_AT = re.compile(r"(unexpected char .*) at (\d+)")
_NO_SUCH = re.compile(r"No (test|filter) named '(.*?)'")


class Expression:
    """A compiled expression. Raises TaskError for an invalid text, or one that reaches more than data.

    `names` are the names in it, except functions. `required_fields` are the fields that the label or the record must
    have; `label_fields` only the label's. `ambiguous` are words that stand for a value and may also be fields.
    """

    def __init__(self, text: str, where: str) -> None:
        self.text = text
        try:
            _expect_expression(text)
            self._evaluate = _ENVIRONMENT.compile_expression(text, undefined_to_none=False)
            tree = _ENVIRONMENT.parse("{{ (" + text + ") }}")
        except TemplateSyntaxError as error:
            raise TaskError(f"{where}: {text!r} is not an expression: {_locate(error, text)}") from error
        for lookup in tree.find_all(nodes.Getattr):
            if lookup.attr.startswith("__"):
                raise TaskError(f"{where}: {text!r} uses {lookup.attr!r}: only fields and what they hold can be used")
        self.ambiguous = frozenset(_bare_names(tree)) & {LABEL, RECORD, *FUNCTIONS}
        self.names = meta.find_undeclared_variables(tree) - FUNCTIONS.keys()
        optional = {node.name for node in _optional_nodes(tree) if isinstance(node, nodes.Name)}
        self.label_fields = frozenset(_attributes_of(tree, LABEL))
        self.required_fields = (self.names - {LABEL, RECORD} - optional) | set(_attributes_of(tree, RECORD))

    def __call__(self, values: Mapping[str, Any]) -> bool:
        """Whether it is true of these values, which it need not all use. Raises any error of the evaluation."""
        return bool(self._evaluate(**{name: values[name] for name in self.names if name in values}))

    def values_of(self, fields: Mapping[str, Any], label: Mapping[str, Any]) -> dict[str, Any]:
        """Return the names for a labeled record: its fields, its label's columns, and both as a whole.

        A bare `label` is the column of that name, if there is one. `label.topic` is a column of the label.
        """
        values = {**fields, **label}
        alone = self.ambiguous & values.keys()
        return {**values, **{name: whole for name, whole in ((LABEL, label), (RECORD, fields)) if name not in alone}}


def _bare_names(tree: nodes.Template) -> Iterable[str]:
    """Yield the names that stand for a value, that is, are neither called nor followed by a field."""
    used = [call.node for call in tree.find_all(nodes.Call)]
    used += [lookup.node for lookup in tree.find_all(nodes.Getattr)]
    used += [lookup.node for lookup in tree.find_all(nodes.Getitem)]
    return (name.name for name in tree.find_all(nodes.Name) if not any(name is other for other in used))


def _attributes_of(tree: nodes.Template, owner: str) -> Iterable[str]:
    """Yield the fields that are named as `owner.field`."""
    no_field = [*_optional_nodes(tree), *called_methods(tree)]
    for lookup in tree.find_all(nodes.Getattr):
        is_ours = isinstance(lookup.node, nodes.Name) and lookup.node.name == owner
        if is_ours and not any(lookup is other for other in no_field):
            yield lookup.attr


def _optional_nodes(tree: nodes.Template) -> Iterable[nodes.Node | None]:
    """Yield what may be missing: the subjects of `x is defined` and of `default`."""
    for test in tree.find_all(nodes.Test):
        if test.name in ("defined", "undefined"):
            yield test.node
    for changed in tree.find_all(nodes.Filter):
        if changed.name in ("default", "d"):
            yield changed.node


class RecordFilter:
    """Selects the records for which an expression is true. Raises TaskError for an invalid text.

    `required_fields` are fields that it names and that must not be missing in all records. `last_error` is the latest
    error for a record that has all of them.
    """

    def __init__(self, text: str, where: str) -> None:
        self._expression = Expression(text, where)
        self.required_fields = self._expression.required_fields | ({LABEL} & self._expression.names)
        # Mutable state.
        self.last_error = ""

    def __call__(self, fields: Mapping[str, Any]) -> bool | None:
        """Whether it is true of the record; None if that is unknown because a field is missing or null."""
        try:
            return self._expression({RECORD: fields, **fields})
        except Exception as error:
            if all(fields.get(name) is not None for name in self.required_fields):
                self.last_error = str(error)
            return None


def _expect_expression(text: str) -> None:
    """Raise a TemplateSyntaxError that gives the column of the mistake. Jinja itself gives the line at most."""
    parser = Parser(_ENVIRONMENT, text, state="variable")
    total = len(list(_ENVIRONMENT._tokenize(text, None, state="variable")))
    try:
        parser.parse_expression()
        if parser.stream.eos:
            return
        reason = "an operator or the end is expected"
    except TemplateSyntaxError as error:
        message = (error.message or "it cannot be read").replace("unexpected end of template, ", "").rstrip(".")
        reason = "something is missing" if message == "unexpected 'end of template'" else message
    at = total - len(list(parser.stream)) - (not parser.stream.eos)
    raise TemplateSyntaxError(f"{_place(text, at)}: {reason}", 1)


def _locate(error: TemplateSyntaxError, text: str) -> str:
    """Return Jinja's message with the column of the unexpected character or the unknown test or filter."""
    message = error.message or "it cannot be read"
    if match := _CHAR_AT.fullmatch(message):
        return f"column {int(match[2]) + 1}: {match[1]}"
    if match := _NO_SUCH.match(message):
        hint = f"; write {match[2].lower()}" if match[2] in ("None", "True", "False") else ""
        return f"column {text.find(match[2]) + 1}: there is no {match[1]} {match[2]!r}{hint}"
    return message


def _place(text: str, token: int) -> str:
    """Return the place of a token by number: `column 8 ('=')`."""
    column = 1
    for _line, kind, value in _ENVIRONMENT.lexer.tokeniter(text, None, state="variable"):
        if kind == TOKEN_WHITESPACE:
            column += len(value)
            continue
        if token == 0:
            hint = "; write == to compare" if value == "=" else ""
            return f"column {column} ({value!r}{hint})"
        column, token = column + len(value), token - 1
    return f"column {column} (the end)"
