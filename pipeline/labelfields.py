"""The values of a label field: labels with their meanings, a text, or a number."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

#: The type of a label: a text, a number, or true or false.
Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Choice:
    """One label, its meaning ("" if none is given), and example texts."""

    value: Value
    meaning: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelField:
    """The values of one field of a label.

    `kind` is `one` of the choices, `several` of them (or none), a `text`, an `integer`, or a `number`. Numbers are from
    `low` to `high`, both included. `file` names the file of the choices until it has been read.
    """

    kind: Literal["one", "several", "text", "integer", "number"] = "one"
    choices: tuple[Choice, ...] = ()
    low: float | None = None
    high: float | None = None
    file: str | None = None

    @property
    def values(self) -> tuple[Value, ...]:
        """The labels, in order."""
        return tuple(choice.value for choice in self.choices)

    @property
    def without_meaning(self) -> tuple[Value, ...]:
        """The labels without a meaning, if any other label has one."""
        bare = tuple(choice.value for choice in self.choices if not choice.meaning)
        return bare if len(bare) < len(self.choices) else ()


def json_identity(value: object) -> tuple[bool, object]:
    """Return a key that distinguishes values as JSON does: 1 and 1.0 are equal, 1 and true are not."""
    return isinstance(value, bool), value


def plain_choices(values: Sequence[Any]) -> tuple[Choice, ...]:
    """Make labels without meanings."""
    return tuple(map(Choice, values))


@dataclass(frozen=True, slots=True)
class Rename:
    """New names for labels of one field, or one name for several of them, since a Unix time."""

    column: str
    pairs: tuple[tuple[Value, Value], ...]
    at: float = 0.0

    def field(self, field: LabelField) -> LabelField:
        """Return the field with the new names. A label that merges into another one goes, with its meaning."""
        names = new_names(field.values, self.pairs)
        choices = ((choice, names.get(json_identity(choice.value), choice.value)) for choice in field.choices)
        return replace(field, choices=tuple(replace(choice, value=new) for choice, new in choices if new is not None))


@dataclass(frozen=True, slots=True)
class Renamed:
    """The result of renaming labels. `records` have a new label, and `files` of the user were edited.

    `pairs` are old and new names; `notes` say what remains to be done by hand. With `dry_run` nothing was changed.
    """

    run_dir: str
    column: str
    pairs: tuple[tuple[str, str], ...]
    records: int
    files: tuple[str, ...]
    notes: tuple[str, ...]
    dry_run: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def new_names(values: Iterable[Any], pairs: Sequence[tuple[Value, Value]]) -> dict[tuple[bool, object], Value | None]:
    """Return the new names of the values that get one; None for a value that merges into an existing one."""
    new, away, marks = (
        renamer(pairs),
        {json_identity(old) for old, _ in pairs},
        [json_identity(value) for value in values],
    )
    present = set(marks) - away
    names: dict[tuple[bool, object], Value | None] = {}
    for mark in marks:
        if mark in away:
            name = new(mark[1])
            names[mark] = None if json_identity(name) in present else name
            present.add(json_identity(name))
    return names


def renamer(pairs: Iterable[tuple[Value, Value]], *, loosely: bool = False) -> Callable[[Any], Any]:
    """Return a function that renames a value, or the values of a list without repeats.

    With `loosely`, case and white space around a text do not matter, as in a model's answer.
    """
    exact = {json_identity(old): new for old, new in pairs}
    loose = {old.strip().casefold(): new for (_, old), new in exact.items() if loosely and isinstance(old, str)}

    def of(value: Any) -> Any:
        if isinstance(value, list):
            renamed = [of(one) for one in value]
            return renamed if renamed == value else _unique(renamed)
        if not isinstance(value, str | int | float):
            return value
        if json_identity(value) in exact:
            return exact[json_identity(value)]
        return loose.get(value.strip().casefold(), value) if isinstance(value, str) and loose else value

    return of


def _unique(values: list[Any]) -> list[Any]:
    """Return the values without repeats. A value that is not a label stays, for the validation to refuse."""
    known = {json_identity(one): one for one in reversed(values) if isinstance(one, str | int | float)}
    return [*reversed(known.values()), *(one for one in values if not isinstance(one, str | int | float))]
