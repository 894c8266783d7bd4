"""Builds the tools of a task from any of their forms in the config."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import TaskError
from pipeline.task.callback import make_callback
from pipeline.task.importing import import_object
from pipeline.task.labels import labels_tool
from pipeline.task.options import TaskOptions, ToolOptions
from pipeline.task.schema import make_tool
from pipeline.task.tools import ToolBinding, ToolNaming, bind_object


def build_tools(options: TaskOptions) -> tuple[ToolBinding, ...]:
    """Build the tools of the task, each with its callback. Raises TaskError."""
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
    tool = options.function or ToolOptions(labels=options.labels, python=options.python)
    name, description = options.name or tool.name, options.description or tool.description
    return (_bind(options, replace(tool, name=name, description=description), "task."),)


def _several(options: TaskOptions, tools: Sequence[ToolOptions]) -> tuple[ToolBinding, ...]:
    if not tools:
        raise TaskError("task.tools is empty: expected at least one tool")
    if options.name is not None or options.description is not None:
        raise TaskError("task.name and task.description are those of one tool: give each of task.tools its own")
    bindings = tuple(
        _one_of_several(options, tool, f"task.tools, number {number}: ") for number, tool in enumerate(tools, start=1)
    )
    names = [binding.name for binding in bindings]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise TaskError(f"task.tools has {', '.join(map(repr, duplicates))} twice: each tool needs a name of its own")
    return bindings


def _one_of_several(options: TaskOptions, tool: ToolOptions, where: str) -> ToolBinding:
    forms = {"labels": tool.labels, "parameters": tool.parameters, "python": tool.python}
    present = [name for name, value in forms.items() if value is not None]
    if len(present) != 1:
        listed = " and ".join(present) or "none"
        raise TaskError(f"{where}{listed} of {', '.join(forms)} is given: expected exactly one")
    if tool.python is None and tool.name is None:
        raise TaskError(f"{where}has no name: expected one, such as name = 'set_topic'")
    return _bind(options, tool, where)


def _bind(options: TaskOptions, tool: ToolOptions, where: str) -> ToolBinding:
    """Build a tool and its callback. Messages put `where` before the name of a key."""
    if tool.python is not None:
        key = f"{where}python"
        naming = ToolNaming(tool.python, tool.name, tool.description, options.strict, key)
        binding = bind_object(import_object(tool.python, options.base, key), naming)
    else:
        if tool.labels is not None:
            made = labels_tool(tool.labels, name=tool.name, description=tool.description, strict=options.strict)
        else:
            schema = dict(tool.parameters or {})
            made = make_tool(schema, name=tool.name or "", description=tool.description, strict=options.strict)
        binding = ToolBinding(made)
    key = "task.callback" if tool.callback is None else f"{where}callback"
    return _with_callback(binding, tool.callback or options.callback, options, key)


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
