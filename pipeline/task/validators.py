"""Checks labels beyond their schema, by expressions and user functions. The model is asked again about failures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError
from jinja2.exceptions import SecurityError

from pipeline import codec
from pipeline.errors import CallbackError, InvalidAnswerError, RenderError, TaskError, did_you_mean, list_names
from pipeline.records import JSON, Record, ValidCall
from pipeline.task.callback import accepts_arguments, copy_record, display_name, is_async
from pipeline.task.expressions import FUNCTIONS, LABEL, RECORD, Expression
from pipeline.task.importing import import_object
from pipeline.task.options import ValidatorOptions

#: Label and record -> what is wrong with the label; None if nothing is.
Validator = Callable[[Mapping[str, JSON], Record], str | None]


class Validators:
    """Every validator of a task. Raises TaskError for one that cannot work.

    `tools` maps each tool to the fields of its label.
    """

    def __init__(self, validators: Sequence[ValidatorOptions], tools: Mapping[str, Sequence[str]], base: Path) -> None:
        self._by_tool: dict[str, list[Validator]] = {name: [] for name in tools}
        #: The record's fields that expressions name, and the message if one is missing.
        self._required_fields: dict[str, str] = {}
        for number, options in enumerate(validators, start=1):
            where = f"task.validators, number {number}"
            if options.tool is not None and options.tool not in tools:
                raise TaskError(
                    f"{where}: tool is {options.tool!r}, which the task does not have; it has {', '.join(tools)}"
                )
            for name in [options.tool] if options.tool is not None else tools:
                self._by_tool[name].append(self._build(options, where, name, tools, base))

    def require_fields(self, record: Record) -> None:
        """Raise RenderError if an expression names a field that neither the label nor the record has.

        Checked before sending, because the model could not fix it.
        """
        for name, fault in self._required_fields.items():
            if name not in record.fields:
                there = list_names(record.fields) + did_you_mean(name, record.fields)
                raise RenderError(f"{fault}, and the record's fields are {there}")

    def _build(
        self, options: ValidatorOptions, where: str, tool: str, tools: Mapping[str, Sequence[str]], base: Path
    ) -> Validator:
        if (options.expression is None) == (options.python is None):
            raise TaskError(f"{where}: expected either expression or python")
        if options.python is not None:
            return _function_validator(import_object(options.python, base, f"{where}: python"), options, where)
        expression = Expression(options.expression or "", where)
        if both := sorted(expression.ambiguous & set(tools[tool])):
            raise TaskError(
                f"{where}: {options.expression!r} uses {both[0]!r}, which is a field of the label and also a word of "
                f"expressions: write {LABEL}.{both[0]} for the field"
            )
        if functions := sorted(expression.ambiguous & FUNCTIONS.keys()):
            raise TaskError(
                f"{where}: {options.expression!r} uses the function {functions[0]!r} without calling it: "
                f"write {LABEL}.{functions[0]} or {RECORD}.{functions[0]} for a field of that name"
            )
        for name in sorted((expression.label_fields | expression.required_fields) - set(tools[tool])):
            others = [other for other, fields in tools.items() if name in fields]
            hint = f" (give it tool = {others[0]!r}?)" if others else ""
            of_tool = f" of {tool}" if len(tools) > 1 else ""
            there = f"the label{of_tool} has {', '.join(tools[tool])}{hint}"
            fault = f"{where}: {options.expression!r} names {name!r}; {there}"
            if name in expression.label_fields:
                raise TaskError(fault)
            self._required_fields.setdefault(name, fault)
        return _expression_validator(expression, options, tools[tool])

    def check(self, valid_calls: Sequence[ValidCall], record: Record) -> None:
        """Raise InvalidAnswerError with all faults, or CallbackError if a validator itself fails."""
        faults = [
            fault
            for valid_call in valid_calls
            for check in self._by_tool[valid_call.tool]
            if (fault := check(valid_call.label, record)) is not None
        ]
        if faults:
            raise InvalidAnswerError("; ".join(faults))


def fingerprint(validators: Sequence[ValidatorOptions]) -> list[dict[str, JSON]] | None:
    """Return what affects the labels, for the fingerprint; None without validators."""
    return [
        {"expression": options.expression, "python": options.python, "tool": options.tool} for options in validators
    ] or None


def _expression_validator(expression: Expression, options: ValidatorOptions, fields: Sequence[str]) -> Validator:
    fault = options.message or f"the label does not fit the rule: {expression.text}"
    optional = dict.fromkeys(fields)

    def check(label: Mapping[str, JSON], record: Record) -> str | None:
        # A label's field hides the record's of the same name. A field that the model left out is null.
        whole = {**optional, **label}
        names = {**record.fields, **whole, LABEL: whole, RECORD: record.fields}
        try:
            fits = expression(names)
        except (UndefinedError, SecurityError) as error:
            there = ", ".join([*label, *record.fields])
            raise CallbackError(
                f"the validator {expression.text!r}: {error.message}; there are {there}, and the whole of each as "
                f"{LABEL} and {RECORD}"
            ) from error
        except Exception as error:
            # For example, a None instead of a text: the label does not fit, and the model is shown why.
            return f"{fault} ({type(error).__name__}: {error})"
        return None if fits else fault

    return check


def _function_validator(function: Any, options: ValidatorOptions, where: str) -> Validator:
    if not callable(function) or not accepts_arguments(function, 2) or is_async(function):
        raise TaskError(f"{where}: {options.python} must be a plain function that takes (label, record)")

    def fault(reason: str) -> str:
        return reason if reason.strip() else f"the validator {display_name(function)} refused the answer"

    def check(label: Mapping[str, JSON], record: Record) -> str | None:
        try:
            # Copies, so that the function cannot change the saved label and record.
            result = function(codec.plain(label), copy_record(record))
        except (ValueError, AssertionError) as error:
            return options.message or fault(str(error))
        except BaseException as error:  # even a SystemExit must not end the run
            raise CallbackError(f"the validator {options.python} raised {type(error).__name__}: {error}") from error
        if result is None or result is True:
            return None
        if result is False:
            return options.message or fault("")
        if isinstance(result, str):
            return fault(result)
        raise CallbackError(
            f"the validator {options.python} returned {result!r}: expected None, a bool, or what is wrong"
        )

    return check
