"""Selects the rows of an outcome to export, and the text and class by which it is split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import SetupError, did_you_mean, list_names
from pipeline.records import JSON, Outcome
from pipeline.store import Table, cell
from pipeline.task import Expression

#: The name in `where` for whether a person has reviewed the record.
REVIEWED = "reviewed"


class Where:
    """The rows that an expression selects. Raises SetupError for one that cannot work.

    It can use the record's fields, the label's columns (also as `record` and `label`), and `reviewed`.
    """

    def __init__(self, text: str | None, reviewed: frozenset[str]) -> None:
        self._expression = None if text is None else Expression(text, "--where")
        self._reviewed = reviewed
        # Mutable state: names that some record has, and names in the expression that some record lacks.
        self._present_names: set[str] = set()
        self._missing_names: set[str] = set()

    def __call__(self, outcome: Outcome, label: Mapping[str, JSON]) -> bool:
        """Whether to export the row; False if the expression is undefined for its values."""
        if self._expression is None:
            return True
        record = outcome.record
        known = {**self._expression.values_of(record.fields, label), REVIEWED: record.key in self._reviewed}
        self._present_names |= known.keys()
        if lacking := self._expression.required_fields - known.keys():
            self._missing_names |= lacking
            return False
        try:
            return self._expression(known)
        except Exception:  # for example, a null compared with a number
            return False

    def check(self) -> None:
        """Raise SetupError if the expression contains a name that no record has."""
        for name in sorted(self._missing_names - self._present_names):
            available = f"{list_names(sorted(self._present_names))}{did_you_mean(name, self._present_names)}"
            raise SetupError(f"--where: no record has {name!r}; there are {available}")


def check_names(options: Mapping[str, str | None], known: Sequence[str]) -> None:
    """Raise SetupError if an option names a field that no record has; `known` is empty if there is no record."""
    for option, name in options.items():
        if name is not None and known and name not in known:
            raise SetupError(f"{option}: no record has {name!r}{did_you_mean(name, known)}; it has {list_names(known)}")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a labeled record are exported, and the text and class by which it is split.

    `texts` are the fields that form its text; without any, all fields that contain a text, except `key`.
    """

    where: Where
    texts: tuple[str, ...]
    key: str | None
    by: str | None

    def labels(self, outcome: Outcome) -> list[Mapping[str, JSON]]:
        """Return the label of each row of the record."""
        common = outcome.label or {}
        return [common] if outcome.rows is None else [{**common, **row} for row in outcome.rows]

    def wanted(self, outcome: Outcome) -> list[bool]:
        """Return for each row whether it is exported."""
        return [self.where(outcome, label) for label in self.labels(outcome)]

    def text_of(self, fields: Mapping[str, JSON]) -> str:
        """Return the text by which a record with these fields is compared; blank if there is nothing to learn from."""
        if self.texts:
            return "\n".join(cell(fields.get(name)) for name in self.texts)
        return "\n".join(value for name, value in fields.items() if name != self.key and isinstance(value, str))

    def label(self, outcome: Outcome, wanted: Sequence[bool]) -> str:
        """Return the class of the record: that of its first exported row."""
        if self.by is None:
            return ""
        label = next(one for one, take in zip(self.labels(outcome), wanted, strict=True) if take)
        return cell(label[self.by] if self.by in label else outcome.record.fields.get(self.by))


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of the files' rows: their titles, and a function that returns a record's rows, or why it has none."""

    titles: tuple[str, ...]
    rows: Callable[[Outcome, Sequence[bool]], list[list[JSON]] | str]
    escapes: bool = False


def table_shape(table: Table, *, escapes: bool) -> Shape:
    """Return the form of labels.*."""

    def rows(outcome: Outcome, wanted: Sequence[bool]) -> list[list[JSON]]:
        return [row for row, take in zip(table.rows(outcome), wanted, strict=True) if take]

    return Shape(table.titles, rows, escapes)


def text_shape(selection: Selection, by: str, field: str, *, escapes: bool) -> Shape:
    """Return the form of rows with label and text."""

    def rows(outcome: Outcome, wanted: Sequence[bool]) -> list[list[JSON]] | str:
        labels = [label.get(by) for label, take in zip(selection.labels(outcome), wanted, strict=True) if take]
        pairs = [[label, outcome.record.fields.get(field)] for label in labels if label is not None]
        return pairs or "no_label"

    return Shape(("label", "text"), rows, escapes)
