"""Renames labels in the text of a config and leaves its comments and layout alone."""

import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.errors import ConfigError
from pipeline.labelfields import Rename, json_identity, new_names, renamer
from pipeline.settings.labelforms import ANY_OF, is_any_of
from pipeline.settings.tomltext import Edit, Keys, Node, edited, nodes, value_of_node, with_key, with_value, without

_EXAMPLES = ("task", "examples")


def renamed_config(text: str, rename: Rename) -> str:
    """Return a config's text with the new names in [task.labels] and [[task.examples]]. Raises ConfigError."""
    found, table = nodes(text), tomllib.loads(text)
    edits = [*_of_labels(text, found, table, rename), *_of_examples(text, found, rename)]
    made = edited(text, edits)
    try:
        is_right = tomllib.loads(made) == _renamed(table, rename)
    except ValueError:
        is_right = False
    if not is_right:
        raise ConfigError(
            f"task.labels.{rename.column}: it is written in a way that cannot be edited here; put the new names into "
            "the config yourself, then run the same command again"
        )
    return made


def _of_labels(text: str, found: Sequence[Node], table: Any, rename: Rename) -> Iterator[Edit]:
    root: Keys = ("task", "labels", rename.column)
    form = table.get("task", {}).get("labels", {}).get(rename.column)
    root = (*root, ANY_OF) if is_any_of(form) else root
    here = [node for node in found if node.path[:-1] == root]
    values = [node.path[-1] if node.key else value_of_node(text, node) for node in here]
    names = new_names(values, rename.pairs)
    for node, value in zip(here, values, strict=True):
        name = names.get(json_identity(value), value)
        if name is None:
            yield without(node)
        elif name != value:
            yield with_key(node, str(name)) if node.key else with_value(node, name)


def _of_examples(text: str, found: Sequence[Node], rename: Rename) -> Iterator[Edit]:
    new = renamer(rename.pairs)
    for node in found:
        path = node.path
        is_label = path[:2] == _EXAMPLES and path[3:5] == ("label", rename.column)
        value = value_of_node(text, node) if is_label and len(path) <= 6 else None
        if not isinstance(value, list) and new(value) != value:
            yield with_value(node, new(value))


def _renamed(table: Any, rename: Rename) -> Any:
    """Do the same to the values of the text."""
    task = dict(table.get("task", {}))
    if rename.column in task.get("labels", {}):
        task["labels"] = {**task["labels"], rename.column: _renamed_form(task["labels"][rename.column], rename)}
    if "examples" in task:
        new = renamer(rename.pairs)
        task["examples"] = [renamed_example(one, rename.column, new) for one in task["examples"]]
    return {**table, "task": task} if task else table


def _renamed_form(form: Any, rename: Rename) -> Any:
    if is_any_of(form):
        return {ANY_OF: _renamed_form(form[ANY_OF], rename)}
    if isinstance(form, dict):
        names = new_names(form, rename.pairs)
        found = {name: names.get(json_identity(name), name) for name in form}
        return {new: form[name] for name, new in found.items() if new is not None}
    if isinstance(form, list):
        names = new_names(form, rename.pairs)
        return [new for value in form if (new := names.get(json_identity(value), value)) is not None]
    return form


def renamed_example(example: Any, column: str, new: Callable[[Any], Any]) -> Any:
    """Return an example with the label's new name."""
    label = example.get("label") if isinstance(example, dict) else None
    if not isinstance(label, dict) or column not in label:
        return example
    value = label[column]
    value = [new(one) for one in value] if isinstance(value, list) else new(value)
    return {**example, "label": {**label, column: value}}
