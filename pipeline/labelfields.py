"""What a label field may hold: its labels with their meanings, a text, or a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

#: what a label is: a text, a number, true or false
Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Choice:
    """One label, what it means ("" where nothing is said), and texts that have it."""

    value: Value
    meaning: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelField:
    """What one field of a label holds.

    `kind` is `one` of the choices, `several` of them (none, too), a `text`, an `integer`, or a `number`. The last two
    are from `low` to `high`, both included. `file` names the file of the choices until it has been read.
    """

    kind: Literal["one", "several", "text", "integer", "number"] = "one"
    choices: tuple[Choice, ...] = ()
    low: float | None = None
    high: float | None = None
    file: str | None = None

    @property
    def values(self) -> tuple[Value, ...]:
        """Its labels, in their order."""
        return tuple(choice.value for choice in self.choices)

    @property
    def without_meaning(self) -> tuple[Value, ...]:
        """The labels that have no meaning, if any other one has."""
        bare = tuple(choice.value for choice in self.choices if not choice.meaning)
        return bare if len(bare) < len(self.choices) else ()


def mark_of(value: object) -> tuple[bool, object]:
    """What tells values apart as JSON does: 1 and 1.0 are equal, 1 and true are not."""
    return isinstance(value, bool), value


def plain_choices(values: Sequence[Any]) -> tuple[Choice, ...]:
    """Labels without meanings."""
    return tuple(map(Choice, values))
