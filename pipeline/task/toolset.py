"""What a task offers the model: its tools, from whichever form they were given in."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import TaskError
from pipeline.task.callback import make_callback
from pipeline.task.importing import load
from pipeline.task.labels import labels_tool
from pipeline.task.options import FunctionOptions, TaskOptions, ToolOptions
from pipeline.task.schema import Tool, make_tool
from pipeline.task.tools import Naming, Offer, offer_of


def offers_of(options: TaskOptions) -> tuple[Offer, ...]:
    """The offers of the task: one, or several. Raises TaskError."""
    forms = {
        "task.labels": options.labels,
        "task.function": options.function,
        "task.python": options.python,
        "task.tools": options.tools,
    }
    given = [name for name, value in forms.items() if value is not None]
    if len(given) != 1:
        raise TaskError(f"{' and '.join(given) or 'none'} of {', '.join(forms)} is given: expected exactly one")
    if options.tools is not None:
        return _several(options, options.tools)
    return (_with_callback(_only(options), options.callback, options, "task.callback"),)


def _only(options: TaskOptions) -> Offer:
    if options.python is not None:
        naming = Naming(options.python, options.name, options.description, options.strict)
        return offer_of(load(options.python, options.base), naming)
    if options.function is not None:
        tool = _function_tool(options, options.function)
    else:
        labels = options.labels or {}
        tool = labels_tool(labels, name=options.name, description=options.description, strict=options.strict)
    return Offer(tool, tool.columns)


def _several(options: TaskOptions, tools: Sequence[ToolOptions]) -> tuple[Offer, ...]:
    if not tools:
        raise TaskError("task.tools is empty: expected at least one tool")
    if options.name is not None or options.description is not None:
        raise TaskError("task.name and task.description are those of one tool: give each of task.tools its own")
    offers = tuple(_tool(options, one, number) for number, one in enumerate(tools, start=1))
    names = [offer.name for offer in offers]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TaskError(f"task.tools has {', '.join(map(repr, twice))} twice: each tool needs a name of its own")
    return offers


def _tool(options: TaskOptions, one: ToolOptions, number: int) -> Offer:
    forms = {"labels": one.labels, "parameters": one.parameters, "python": one.python}
    given = [name for name, value in forms.items() if value is not None]
    if len(given) != 1:
        listed = " and ".join(given) or "none"
        raise TaskError(f"task.tools, number {number}: {listed} of {', '.join(forms)} is given: expected exactly one")
    if one.python is not None:
        key = f"task.tools, number {number}: python"
        naming = Naming(one.python, one.name, one.description, options.strict, key)
        offer = offer_of(load(one.python, options.base, key), naming)
    else:
        if one.name is None:
            raise TaskError(f"task.tools, number {number}: has no name: expected one, such as name = 'set_topic'")
        tool = _named_tool(options, one, one.name)
        offer = Offer(tool, tool.columns)
    key = "task.callback" if one.callback is None else f"task.tools, number {number}: callback"
    return _with_callback(offer, one.callback or options.callback, options, key)


def _named_tool(options: TaskOptions, one: ToolOptions, name: str) -> Tool:
    if one.labels is not None:
        return labels_tool(one.labels, name=name, description=one.description, strict=options.strict)
    return make_tool(dict(one.parameters or {}), name=name, description=one.description, strict=options.strict)


def _with_callback(offer: Offer, reference: str | None, options: TaskOptions, key: str) -> Offer:
    if reference is None:
        return offer
    if offer.callback is not None:
        raise TaskError(f"{key} is {reference!r}, but the tool {offer.name} already has one: remove one of them")
    function = load(reference, options.base, key)
    if not callable(function):
        raise TaskError(f"{key} is {reference!r}, which cannot be called: expected a function (label, record)")
    extra = getattr(function, "extra_columns", None)
    declared = (
        tuple(extra) if isinstance(extra, list | tuple) and all(isinstance(name, str) for name in extra) else None
    )
    return replace(offer, callback=make_callback(function, declared))


def _function_tool(options: TaskOptions, function: FunctionOptions) -> Tool:
    return make_tool(
        dict(function.parameters),
        name=options.name or function.name,
        description=options.description or function.description,
        strict=options.strict,
    )
