"""What an export takes from an outcome: whether it is wanted, what it is compared by, and the rows it becomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import SetupError, did_you_mean, list_names
from pipeline.records import JSON, Outcome
from pipeline.store import Table, cell
from pipeline.task import Expression

#: Whether a person has looked at the record, as `where` names it.
REVIEWED = "reviewed"


class Where:
    """The rows that an expression takes. Raises SetupError for one that cannot work.

    It knows the record's fields, the label's columns (also as `record` and `label`), and `reviewed`.
    """

    def __init__(self, text: str | None, reviewed: frozenset[str]) -> None:
        self._expression = None if text is None else Expression(text, "--where")
        self._reviewed = reviewed
        # All state that changes: names that some record has, and of those that the expression needs which one lacks.
        self._present_names: set[str] = set()
        self._missing_names: set[str] = set()

    def __call__(self, outcome: Outcome, label: Mapping[str, JSON]) -> bool:
        """Whether the row is wanted; where the expression cannot be worked out for its values, it is not."""
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
        except Exception:  # a null beside a number, for one
            return False

    def check(self) -> None:
        """Raise SetupError where the expression names what no record has."""
        for name in sorted(self._missing_names - self._present_names):
            available = f"{list_names(sorted(self._present_names))}{did_you_mean(name, self._present_names)}"
            raise SetupError(f"--where: no record has {name!r}; there are {available}")


def check_names(options: Mapping[str, str | None], known: Sequence[str]) -> None:
    """Raise SetupError where an option names a field that no record has; `known` is empty where there is no record."""
    for option, name in options.items():
        if name is not None and known and name not in known:
            raise SetupError(f"{option}: no record has {name!r}{did_you_mean(name, known)}; it has {list_names(known)}")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a labelled record are exported, and by which text and class it is judged.

    `texts` are the fields that its text is made of; without any, all fields that hold a text, `key` aside.
    """

    where: Where
    texts: tuple[str, ...]
    key: str | None
    by: str | None

    def labels(self, outcome: Outcome) -> list[Mapping[str, JSON]]:
        """The label of each row of the record."""
        common = outcome.label or {}
        return [common] if outcome.rows is None else [{**common, **row} for row in outcome.rows]

    def wanted(self, outcome: Outcome) -> list[bool]:
        """For each row whether it is exported."""
        return [self.where(outcome, label) for label in self.labels(outcome)]

    def text_of(self, fields: Mapping[str, JSON]) -> str:
        """What a record with these fields is compared by; blank where there is nothing to learn from."""
        if self.texts:
            return "\n".join(cell(fields.get(name)) for name in self.texts)
        return "\n".join(value for name, value in fields.items() if name != self.key and isinstance(value, str))

    def label(self, outcome: Outcome, wanted: Sequence[bool]) -> str:
        """The class of the record: that of its first row that is exported."""
        if self.by is None:
            return ""
        label = next(one for one, take in zip(self.labels(outcome), wanted, strict=True) if take)
        return cell(label[self.by] if self.by in label else outcome.record.fields.get(self.by))


@dataclass(frozen=True, slots=True)
class Shape:
    """The rows of the files: their titles, and the rows that a record gives; or why it gives none."""

    titles: tuple[str, ...]
    rows: Callable[[Outcome, Sequence[bool]], list[list[JSON]] | str]
    escapes: bool = False


def table_shape(table: Table, *, escapes: bool) -> Shape:
    """The rows of labels.*."""

    def rows(outcome: Outcome, wanted: Sequence[bool]) -> list[list[JSON]]:
        return [row for row, take in zip(table.rows(outcome), wanted, strict=True) if take]

    return Shape(table.titles, rows, escapes)


def text_shape(selection: Selection, by: str, field: str, *, escapes: bool) -> Shape:
    """Label and text."""

    def rows(outcome: Outcome, wanted: Sequence[bool]) -> list[list[JSON]] | str:
        labels = [label.get(by) for label, take in zip(selection.labels(outcome), wanted, strict=True) if take]
        pairs = [[label, outcome.record.fields.get(field)] for label in labels if label is not None]
        return pairs or "no_label"

    return Shape(("label", "text"), rows, escapes)
