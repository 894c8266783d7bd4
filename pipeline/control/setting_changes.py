"""Decides which settings may change during a run, and formats the changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline import codec
from pipeline.records import JSON

#: The settings that may change during a session. The others decide what a label is, or how the files look.
LIVE_TABLES = ("limits.", "notify.")
#: Live keys that no order sets, because write access to the run folder must not allow anyone to run programs.
FILE_ONLY_KEYS = frozenset({"notify.command"})
#: Keys whose values may contain a secret. A change of one is reported without them.
HIDDEN_KEYS = frozenset({"notify.url", "notify.command"})


class SettingChange(NamedTuple):
    """A setting with another value. None: unset."""

    key: str
    old: JSON
    new: JSON


@dataclass(frozen=True, slots=True)
class SettingChanges:
    """The changes that are applied and those that are refused."""

    applied: list[SettingChange] = field(default_factory=list)
    refused: list[SettingChange] = field(default_factory=list)

    def lines(self, source: str, more: Mapping[str, str] | None = None) -> list[str]:
        """Return a line for each change, for people. `source` is where it was made: a file, or `set`.

        `more` contains further notes by key.
        """
        notes = more or {}
        applied = ["; ".join(filter(None, [applied_line(one, source), notes.get(one.key)])) for one in self.applied]
        return applied + [refused_line(one.key) for one in self.refused]


def sort_changes(old: Mapping[str, JSON], new: Mapping[str, JSON]) -> SettingChanges:
    """Return the differences of two flat tables, by whether they may be applied now. A missing key is None."""
    change = SettingChanges()
    for key in sorted({*old, *new}):
        shift = SettingChange(key, old.get(key), new.get(key))
        if not codec.is_same(shift.old, shift.new):
            (change.applied if key.startswith(LIVE_TABLES) else change.refused).append(shift)
    return change


class LiveSettings:
    """The current settings as a flat table, through all changes of a session."""

    def __init__(self, in_force: Mapping[str, JSON]) -> None:
        # Mutable state: the current values, and the refused ones, so that they are reported only once.
        self.in_force = dict(in_force)
        self._refused: dict[str, JSON] = {}

    def applied_by(self, new: Mapping[str, JSON]) -> list[SettingChange]:
        """Return the changes that `take` would apply."""
        return sort_changes(self.in_force, new).applied

    def take(self, new: Mapping[str, JSON]) -> SettingChanges:
        """Apply what may change. Return the changes to carry out and report, without those refused before."""
        change = sort_changes(self.in_force, new)
        news = [one for one in change.refused if one.key not in self._refused or self._refused[one.key] != one.new]
        # An undone change is forgotten, and is reported if made again.
        self._refused = {one.key: one.new for one in change.refused}
        self.in_force.update((one.key, one.new) for one in change.applied)
        return SettingChanges(change.applied, news)


def applied_line(shift: SettingChange, source: str) -> str:
    """Format an applied change: `limits.concurrency 64 -> 16 (config/a.toml)`."""
    if shift.key in HIDDEN_KEYS:
        return f"{shift.key} {'was unset' if shift.new is None else 'is another one'} ({source})"
    return f"{shift.key} {_value_text(shift.old)} -> {_value_text(shift.new)} ({source})"


def refused_line(key: str, *, lasting: bool = True) -> str:
    """Explain why a setting stays unchanged. `lasting`: the new value is in the config file, not in an order."""
    text = f"{key} cannot change during a run"
    return f"{text}; it takes effect with the next run" if lasting else text


def _value_text(value: JSON) -> str:
    return "none" if value is None else codec.dumps(value).decode()
