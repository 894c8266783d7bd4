"""What a task offers the model: its tools, from whichever form they were given in."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import TaskError
from pipeline.task.callback import make_callback
from pipeline.task.importing import import_object
from pipeline.task.labels import labels_tool
from pipeline.task.options import FunctionOptions, TaskOptions, ToolOptions
from pipeline.task.schema import Tool, make_tool
from pipeline.task.tools import ToolBinding, ToolNaming, bind_object


def build_tools(options: TaskOptions) -> tuple[ToolBinding, ...]:
    """The offers of the task: one, or several. Raises TaskError."""
    forms = {
        "task.labels": options.labels,
        "task.function": options.function,
        "task.python": options.python,
        "task.tools": options.tools,
    }
    present = [name for name, value in forms.items() if value is not None]
    if len(present) != 1:
        raise TaskError(f"{' and '.join(present) or 'none'} of {', '.join(forms)} is given: expected exactly one")
    if options.tools is not None:
        return _several(options, options.tools)
    return (_with_callback(_single_tool(options), options.callback, options, "task.callback"),)


def _single_tool(options: TaskOptions) -> ToolBinding:
    if options.python is not None:
        naming = ToolNaming(options.python, options.name, options.description, options.strict)
        return bind_object(import_object(options.python, options.base), naming)
    if options.function is not None:
        tool = _function_tool(options, options.function)
    else:
        labels = options.labels or {}
        tool = labels_tool(labels, name=options.name, description=options.description, strict=options.strict)
    return ToolBinding(tool, tool.columns)


def _several(options: TaskOptions, tools: Sequence[ToolOptions]) -> tuple[ToolBinding, ...]:
    if not tools:
        raise TaskError("task.tools is empty: expected at least one tool")
    if options.name is not None or options.description is not None:
        raise TaskError("task.name and task.description are those of one tool: give each of task.tools its own")
    bindings = tuple(_tool(options, spec, number) for number, spec in enumerate(tools, start=1))
    names = [binding.name for binding in bindings]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise TaskError(f"task.tools has {', '.join(map(repr, duplicates))} twice: each tool needs a name of its own")
    return bindings


def _tool(options: TaskOptions, spec: ToolOptions, number: int) -> ToolBinding:
    forms = {"labels": spec.labels, "parameters": spec.parameters, "python": spec.python}
    present = [name for name, value in forms.items() if value is not None]
    if len(present) != 1:
        listed = " and ".join(present) or "none"
        raise TaskError(f"task.tools, number {number}: {listed} of {', '.join(forms)} is given: expected exactly one")
    if spec.python is not None:
        key = f"task.tools, number {number}: python"
        naming = ToolNaming(spec.python, spec.name, spec.description, options.strict, key)
        binding = bind_object(import_object(spec.python, options.base, key), naming)
    else:
        if spec.name is None:
            raise TaskError(f"task.tools, number {number}: has no name: expected one, such as name = 'set_topic'")
        tool = _named_tool(options, spec, spec.name)
        binding = ToolBinding(tool, tool.columns)
    key = "task.callback" if spec.callback is None else f"task.tools, number {number}: callback"
    return _with_callback(binding, spec.callback or options.callback, options, key)


def _named_tool(options: TaskOptions, spec: ToolOptions, name: str) -> Tool:
    if spec.labels is not None:
        return labels_tool(spec.labels, name=name, description=spec.description, strict=options.strict)
    return make_tool(dict(spec.parameters or {}), name=name, description=spec.description, strict=options.strict)


def _with_callback(binding: ToolBinding, reference: str | None, options: TaskOptions, key: str) -> ToolBinding:
    if reference is None:
        return binding
    if binding.callback is not None:
        raise TaskError(f"{key} is {reference!r}, but the tool {binding.name} already has one: remove one of them")
    function = import_object(reference, options.base, key)
    if not callable(function):
        raise TaskError(f"{key} is {reference!r}, which cannot be called: expected a function (label, record)")
    extra = getattr(function, "extra_columns", None)
    declared = (
        tuple(extra) if isinstance(extra, list | tuple) and all(isinstance(name, str) for name in extra) else None
    )
    return replace(binding, callback=make_callback(function, declared))


def _function_tool(options: TaskOptions, function: FunctionOptions) -> Tool:
    return make_tool(
        dict(function.parameters),
        name=options.name or function.name,
        description=options.description or function.description,
        strict=options.strict,
    )
