"""The keys of the config, read from the models: what each takes, and its default."""

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from pipeline.settings.checks import Takes
from pipeline.settings.texts import AUTO, dotted

Model: TypeAlias = type[BaseModel]

#: `kind_of` a value -> the annotations that accept it.
_KINDS: Mapping[Any, frozenset[str]] = {
    str: frozenset({"text"}),
    SecretStr: frozenset({"text"}),
    bool: frozenset({"true or false"}),
    int: frozenset({"whole number"}),
    float: frozenset({"number", "whole number"}),
    list: frozenset({"list"}),
    dict: frozenset({"table"}),
    type(None): frozenset({"nothing"}),
}
_ANY = frozenset({"text", "true or false", "whole number", "number", "list", "table"})


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the config. `default` is None if the key is unset or `required`."""

    path: tuple[str, ...]
    takes: str
    default: Any
    required: bool

    @property
    def name(self) -> str:
        return dotted(self.path)

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "LABELPIPE_" + "__".join(self.path).upper()


@cache
def keys(root: Model) -> tuple[Key, ...]:
    """Return every key, in the order of the models."""
    return tuple(_keys(root))


def _keys(root: Model, path: tuple[str, ...] = ()) -> Iterator[Key]:
    for name, field in root.model_fields.items():
        here = (*path, name)
        if section := _section(field.annotation):
            yield from _keys(section, here)
        else:
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            yield Key(here, takes(field), default, field.is_required())


def section_at(root: Model, path: Sequence[str | int]) -> Model | None:
    """Return the model of the table at `path`; None if there is no such table, or a free one.

    A number in the path is an index in an array of tables.
    """
    section: Model | None = root
    item: Model | None = None
    for name in path:
        if isinstance(name, int):
            section, item = item, None
            continue
        field = section.model_fields.get(name) if section else None
        section, item = (_section(field.annotation), _section_of_list(field.annotation)) if field else (None, None)
    return section


def field_of(root: Model, path: Sequence[str | int]) -> tuple[tuple[str | int, ...], FieldInfo] | None:
    """Return the field at or above `path`, with its own path; None if `path` is unknown."""
    for length in range(len(path), 0, -1):
        section = section_at(root, path[: length - 1])
        if section and (field := section.model_fields.get(str(path[length - 1]))):
            return tuple(path[:length]), field
        if section:
            return None
    return None


def kinds_at(root: Model, path: Sequence[str | int]) -> frozenset[str]:
    """Return the kinds of value that the key takes; all kinds if the key is unknown."""
    found = field_of(root, path)
    if not found:
        return _ANY
    annotation: Any = found[1].annotation
    for _ in path[len(found[0]) :]:
        annotation = _item(annotation)
    kinds = frozenset[str]().union(*(_kinds(option) for option in _options(annotation)))
    marks = _marks(found[1].annotation, found[1].metadata)
    takes_none = any(isinstance(mark, Takes) and mark.none_is_text for mark in marks)
    return kinds - {"nothing"} | {AUTO} if takes_none else kinds


def _kinds(option: Any) -> frozenset[str]:
    if get_origin(option) is Literal:
        return _KINDS[str]
    if _section(option):
        return _KINDS[dict]
    return _KINDS.get(get_origin(option) or option, _ANY)


def _options(annotation: Any) -> list[Any]:
    """Return the members of a union, without their annotations."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [one for member in get_args(annotation) for one in _options(member)]
    return [annotation]


def _section(annotation: Any) -> Model | None:
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _section_of_list(annotation: Any) -> Model | None:
    """Return the model of the tables in an array of tables."""
    lists = [option for option in _options(annotation) if get_origin(option) is list]
    return _section(get_args(lists[0])[0]) if lists else None


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Return the allowed values of a key, or of the items of its list."""
    for option in _options(field.annotation):
        inner = get_args(option)[0] if get_origin(option) is list else option
        if get_origin(inner) is Literal:
            return get_args(inner)
    return ()


def takes(field: FieldInfo) -> str:
    """Describe what the key takes."""
    return _words(field.annotation, field.metadata, choices(field))


def takes_at(root: Model, path: Sequence[str | int]) -> str:
    """Describe what the key, or an item of a free table, takes."""
    found = field_of(root, path)
    if not found:
        return "nothing"
    field_path, field = found
    item = _item(field.annotation) if len(path) > len(field_path) else None
    return _words(item, [], ()) if item else takes(field)


def _words(annotation: Any, metadata: Sequence[Any], allowed: Sequence[str]) -> str:
    for mark in _marks(annotation, metadata):
        if isinstance(mark, Takes):
            return mark.words
    option = _options(annotation)[0]
    if allowed:
        names = ", ".join(allowed)
        return f"a list of {names}" if get_origin(option) is list else f"one of {names}"
    if option in (int, float):
        return ("a whole number" if option is int else "a number") + _bounds(metadata)
    return "a table" if _section(option) else {bool: "true or false", str: "text"}.get(option, "a value")


def _item(annotation: Any) -> Any:
    """Return the annotation of a free table's items; None for anything else."""
    options = [option for option in _options(annotation) if option is not type(None)]
    return get_args(options[0])[1] if len(options) == 1 and get_origin(options[0]) is dict else None


def _marks(annotation: Any, metadata: Sequence[Any]) -> list[Any]:
    """Yield the annotations, the outermost first."""
    marks: list[Any] = []
    for member in get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,):
        if get_origin(member) is Annotated:
            marks += get_args(member)[1:]
    return [*reversed(metadata), *reversed(marks)]


def _bounds(metadata: Sequence[Any]) -> str:
    bounds = {name: getattr(mark, name) for mark in metadata for name in ("ge", "gt", "le") if hasattr(mark, name)}
    if "ge" in bounds and "le" in bounds:
        return f" from {bounds['ge']:g} to {bounds['le']:g}"
    if "ge" in bounds:
        return f" of {bounds['ge']:g} or more"
    return f" above {bounds['gt']:g}" if "gt" in bounds else ""


_SECRET = re.compile(r"api_?-?key|secret|password|passwd|authorization|(^|[_-])token$", re.IGNORECASE)


_SECRETS = {("model", "headers"), ("notify", "url"), ("notify", "command"), ("output", "sql", "url")}


def is_secret(path: Sequence[str | int]) -> bool:
    """Whether the value may be a secret. If so, no message shows it, even if it is wrong."""
    named = {tuple(path[:2]), tuple(path[:3])}
    return bool(named & _SECRETS) or any(_SECRET.search(str(name)) for name in path)
