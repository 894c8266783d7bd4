"""Which settings may change while records are being labelled, and the lines that tell of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline import codec
from pipeline.records import JSON

#: The settings that are taken over while a session runs. The others decide what a label is, or how the files look.
LIVE_TABLES = ("limits.", "notify.")
#: Live keys that no order sets: whoever may write into the run folder is not therefore one who may run programs.
FILE_ONLY_KEYS = frozenset({"notify.command"})
#: Values that may hold a secret: a change of them is told without them.
HIDDEN_KEYS = frozenset({"notify.url", "notify.command"})


class SettingChange(NamedTuple):
    """A setting that has another value. None: unset."""

    key: str
    old: JSON
    new: JSON


@dataclass(frozen=True, slots=True)
class SettingChanges:
    """What is taken over and what is not, by key."""

    applied: list[SettingChange] = field(default_factory=list)
    refused: list[SettingChange] = field(default_factory=list)

    def lines(self, source: str, more: Mapping[str, str] | None = None) -> list[str]:
        """A line for each, for a person. `source` is where the change was made: a file, or `set`.

        `more` is what is to be said of a key beside old and new.
        """
        notes = more or {}
        applied = ["; ".join(filter(None, [applied_line(one, source), notes.get(one.key)])) for one in self.applied]
        return applied + [refused_line(one.key) for one in self.refused]


def sort_changes(old: Mapping[str, JSON], new: Mapping[str, JSON]) -> SettingChanges:
    """What differs between two flat tables, and whether it may change now. A key that is not there is None."""
    change = SettingChanges()
    for key in sorted({*old, *new}):
        shift = SettingChange(key, old.get(key), new.get(key))
        if not codec.is_same(shift.old, shift.new):
            (change.applied if key.startswith(LIVE_TABLES) else change.refused).append(shift)
    return change


class LiveSettings:
    """The settings in force, as a flat table, over all changes of a session."""

    def __init__(self, in_force: Mapping[str, JSON]) -> None:
        # All state that changes: what is in force, and what was refused, so that it is told once.
        self.in_force = dict(in_force)
        self._refused: dict[str, JSON] = {}

    def applied_by(self, new: Mapping[str, JSON]) -> list[SettingChange]:
        """What `take` would put into force."""
        return sort_changes(self.in_force, new).applied

    def take(self, new: Mapping[str, JSON]) -> SettingChanges:
        """Put into force what may change; gives what is to be done and told. What was refused before is left out."""
        change = sort_changes(self.in_force, new)
        news = [one for one in change.refused if one.key not in self._refused or self._refused[one.key] != one.new]
        # What was taken back is forgotten: made again, it is news.
        self._refused = {one.key: one.new for one in change.refused}
        self.in_force.update((one.key, one.new) for one in change.applied)
        return SettingChanges(change.applied, news)


def applied_line(shift: SettingChange, source: str) -> str:
    """`limits.concurrency 64 -> 16 (config/a.toml)`."""
    if shift.key in HIDDEN_KEYS:
        return f"{shift.key} {'was unset' if shift.new is None else 'is another one'} ({source})"
    return f"{shift.key} {_value_text(shift.old)} -> {_value_text(shift.new)} ({source})"


def refused_line(key: str, *, lasting: bool = True) -> str:
    """Why a setting stays as it is. `lasting`: the new value is in the config file, not in an order."""
    text = f"{key} cannot change during a run"
    return f"{text}; it takes effect with the next run" if lasting else text


def _value_text(value: JSON) -> str:
    return "none" if value is None else codec.dumps(value).decode()
