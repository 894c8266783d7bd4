"""Defines which columns the files of rows have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

from pipeline import codec
from pipeline.records import JSON, Outcome, Status

#: The columns of failed.csv before those carried from the record.
ABOUT = ("key", "source", "line", "status", "code", "message", "attempts")
#: The column that shows who corrected or confirmed a row.
REVIEWED = "reviewed"


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one file: the statuses of its outcomes, and the titles of their values."""

    statuses: frozenset[Status]
    titles: tuple[str, ...]
    carried: tuple[str, ...]
    labels: tuple[str, ...] = ()
    about: bool = False

    def rows(self, outcome: Outcome) -> list[list[JSON]]:
        """Return the values under the titles, one list per row; None for a missing value."""
        values: list[JSON] = list(map(outcome.record.fields.get, self.carried))
        if self.about:
            return [[*_about(outcome), *values]]
        if not self.labels:
            return [values]
        if outcome.rows is None:
            return [[*values, *map((outcome.label or {}).get, self.labels)]]
        common = outcome.label or {}
        return [[*values, *map({**common, **row}.get, self.labels)] for row in outcome.rows]


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns and format of the files of rows.

    `labels` are the task's columns, `columns` those carried from the records. Unless `fixed`, fields that appear
    later are added at the end of `columns`. `found` are a callback's columns, `failed` those carried to failed.csv.
    `order` is "completion" or "input". `formats` are csv, jsonl, and parquet. With `escape_formulas`, a text cell that
    a spreadsheet would take for a formula begins with an apostrophe. With `reviewed`, the last column shows who
    corrected or confirmed the row. `corrected` is the version of the reviews whose corrections the rows contain.
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...] = ()
    fixed: bool = False
    formats: tuple[str, ...] = ("csv",)
    order: str = "completion"
    escape_formulas: bool = False
    found: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    reviewed: bool = False
    corrected: int = 0

    def label_table(self) -> Table:
        """Return the table of labels.*: the carried columns, the label's, the callback's, then the reviewer."""
        labels = self.labels + self.found + (REVIEWED,) * self.reviewed
        titles = distinct(self.columns, labels) + labels
        return Table(frozenset({Status.LABELLED}), titles, self.columns, labels)

    def failed_table(self) -> Table:
        """Return the table of failed.csv: what happened, then the carried columns."""
        carried = self.columns if self.fixed else self.failed
        titles = ABOUT + distinct(carried, ABOUT)
        return Table(frozenset(Status) - {Status.LABELLED}, titles, carried, about=True)

    def grown(self, outcomes: Sequence[Outcome]) -> Layout:
        """Return the layout with the new columns of these outcomes; the same object if there are none."""
        labelled = [outcome for outcome in outcomes if outcome.status is Status.LABELLED]
        known = {*self.labels, *self.found, REVIEWED} if self.reviewed else {*self.labels, *self.found}
        new = _new(chain.from_iterable(map(_labels, labelled)), known)
        layout = replace(self, found=self.found + new) if new else self
        return layout if self.fixed else layout._carrying(outcomes)

    def _carrying(self, outcomes: Sequence[Outcome]) -> Layout:
        fields: dict[bool, list[Mapping[str, JSON]]] = {True: [], False: []}
        for outcome in outcomes:
            fields[outcome.status is Status.LABELLED].append(outcome.record.fields)
        columns, failed = _new(fields[True], set(self.columns)), _new(fields[False], set(self.failed))
        if not (columns or failed):
            return self
        return replace(self, columns=self.columns + columns, failed=self.failed + failed)

    def following(self, before: Layout | None) -> Layout:
        """Return this layout with the columns that earlier rows added, in their order."""
        if before is None:
            return replace(self, failed=self.columns)
        extra = tuple(name for name in before.labels + before.found if name not in self.labels)
        if self.fixed:
            return replace(self, found=extra, corrected=before.corrected)
        return replace(
            self,
            corrected=before.corrected,
            columns=_joined(before.columns, self.columns),
            failed=_joined(before.failed, self.columns),
            found=extra,
        )

    def knows_rows_of(self, before: Layout) -> bool:
        """Whether this layout has the columns of all rows that `before` had seen."""
        return self.fixed or not before.fixed

    def to_text(self) -> str:
        """Return the text that the ledger saves."""
        values = asdict(self)
        # Earlier versions can still read the ledger of a run that nobody has reviewed.
        new = ("reviewed", "corrected")
        return codec.dumps({name: value for name, value in values.items() if value or name not in new}).decode()

    @classmethod
    def from_text(cls, text: str) -> Layout:
        """Read what `to_text` returned."""
        values: dict[str, Any] = codec.loads_exact(text)
        for name, value in values.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


def _about(outcome: Outcome) -> tuple[JSON, ...]:
    record, problem = outcome.record, outcome.problem
    code, message = (problem.code, problem.message) if problem else (None, None)
    return (record.key, record.source, record.line, outcome.status.value, code, message, outcome.attempts)


def _labels(outcome: Outcome) -> Iterable[Mapping[str, JSON]]:
    return (outcome.label or {}, *(outcome.rows or ()))


def _new(mappings: Iterable[Mapping[str, JSON]], known: AbstractSet[str]) -> tuple[str, ...]:
    """Return the names that are not known yet, in order of appearance."""
    new: dict[str, None] = {}
    for mapping in mappings:
        if not mapping.keys() <= known:
            new.update((name, None) for name in mapping if name not in known)
    return tuple(new)


def _joined(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*first, *second]))


def distinct(carried: Sequence[str], reserved: Sequence[str]) -> tuple[str, ...]:
    """Return titles for carried columns: a name that is taken becomes `input_<name>`."""
    used = set(reserved) | set(carried)
    titles = []
    for name in carried:
        title = name
        while title in reserved or (title != name and title in used):
            title = f"input_{title}"
        used.add(title)
        titles.append(title)
    return tuple(titles)
