"""Counts how the labels of two runs differ, field by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import SetupError, list_names
from pipeline.gold import NONE, MeasuredField, as_number, class_name
from pipeline.measure.disagreements import DifferenceWriter, Disagreement
from pipeline.measure.field_tally import CONFIDENCE, OTHERS
from pipeline.measure.gold_pairs import label_value
from pipeline.measure.measured_run import MeasuredRun
from pipeline.quality import cohen_kappa, wilson
from pipeline.records import JSON
from pipeline.store import LabelRow

#: The most distinct changes of a label; further ones are counted as one.
CHANGES_MOST = 10_000
#: How a record is counted, by whether the first and the second run have labeled it.
_LABELLED_BY = {(True, True): "both", (True, False): "only_a", (False, True): "only_b", (False, False): "neither"}


@dataclass(slots=True)
class AnswerCosts:
    """The cost and time of one run's answers, for records that both runs have labeled. All of it is mutable."""

    n: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    latency_s: float = 0.0
    answers: int = 0

    def add(self, row: LabelRow) -> None:
        """Count one record."""
        self.n += 1
        if row.cost_usd is None:
            self.unpriced += 1
        else:
            self.cost_usd += row.cost_usd
        if row.latency_s:
            self.answers += 1
            self.latency_s += row.latency_s

    def facts(self) -> dict[str, Any]:
        """Return the means; None for unknown ones."""
        return {
            "cost_per_record_usd": self.cost_usd / self.n if self.n and not self.unpriced else None,
            "latency_mean_s": self.latency_s / self.answers if self.answers else None,
        }


class LabelComparison:
    """Reads the records of both runs and counts how their labels differ."""

    def __init__(
        self, one: MeasuredRun, other: MeasuredRun, differing: DifferenceWriter, only: Sequence[str] = ()
    ) -> None:
        self._other, self._differing = other, differing
        wanted = [one.field(name).name for name in only] or list(one.fields)
        common = [name for name in wanted if name in other.fields]
        if not common:
            raise SetupError(
                f"the runs have no label field in common: {one.run_dir.path} has {list_names(one.fields)}, "
                f"{other.run_dir.path} has {list_names(other.fields)}"
            )
        rows = one.row_fields | other.row_fields
        # Mutable state: the counts of each field, the records by which run has labeled them, and the answers' costs.
        self.tallies = {
            name: _FieldAgreement(joint_field(one.fields[name], other.fields[name], rows)) for name in common
        }
        self._listed = _listed_fields(self.tallies)
        self.counts: Counter[str] = Counter()
        self.sides = (AnswerCosts(), AnswerCosts())

    def add(self, rows: Sequence[tuple[LabelRow, LabelRow | None]], golds: Mapping[tuple[str, str], JSON]) -> None:
        """Count further records. `golds` are the right labels, by key and field, as far as they are known."""
        differences = []
        for mine, theirs in rows:
            if theirs is None:
                self.counts["not_in_b"] += 1
                continue
            labelled_by = mine.label is not None, theirs.label is not None
            self.counts[_LABELLED_BY[labelled_by]] += 1
            if not all(labelled_by):
                continue
            self.sides[0].add(mine)
            self.sides[1].add(theirs)
            for name, tally in self.tallies.items():
                one, other = label_value(mine, None, name), label_value(theirs, None, name)
                if not tally.add(one, other) and name in self._listed:
                    gold = golds.get((mine.key, name))
                    differences.append((Disagreement(mine.key, mine.key, name, one, other, gold=gold), mine.fields))
        if differences:
            self._differing.add(differences)

    async def records(self, *, all_of_a: bool) -> dict[str, int]:
        """Return how many records there are, by which run has labeled them.

        Without `all_of_a`, only some records of the first run were read, so those that it lacks are unknown.
        """
        counts = {name: self.counts[name] for name in _LABELLED_BY.values()}
        compared = sum(counts.values())
        theirs = sum((await self._other.ledger.count_by_status()).values()) if all_of_a else compared
        return {**counts, "not_in_b": self.counts["not_in_b"], "not_in_a": theirs - compared}


def _listed_fields(tallies: Mapping[str, _FieldAgreement]) -> frozenset[str]:
    """Return the fields whose differences are listed. Free texts and a model's confidence nearly always differ."""
    names = [name for name, one in tallies.items() if one.label_field.kind != "text" and name != CONFIDENCE]
    return frozenset(names or tallies)


def joint_field(one: MeasuredField, other: MeasuredField, rows: frozenset[str]) -> MeasuredField:
    """Return a field that fits both runs: with the classes of both, or a list if records have rows."""
    if one.name in rows:
        return replace(one, kind="set")
    kind = one.kind if one.kind == other.kind else "text"
    return replace(one, kind=kind, values=tuple(dict.fromkeys([*one.values, *other.values])), numbers=None)


@dataclass(slots=True)
class _FieldAgreement:
    """One label field of two runs. Mutable state: all of it but the field."""

    label_field: MeasuredField
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    n: int = 0
    same: int = 0
    apart: float = 0.0
    numbers: int = 0
    added: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, one: JSON, other: JSON) -> bool:
        """Count a record's two labels; return whether they are equal."""
        self.n += 1
        if self.label_field.kind == "set":
            mine, theirs = _names(one), _names(other)
            self.added.update(theirs - mine)
            self.dropped.update(mine - theirs)
            is_same = mine == theirs
        else:
            is_same = self._add_value(one, other)
        self.same += is_same
        return is_same

    def _add_value(self, one: JSON, other: JSON) -> bool:
        mine, theirs = _name(one), _name(other)
        if self.label_field.kind == "class":
            pair = (mine, theirs)
            is_known = pair in self.pairs or len(self.pairs) < CHANGES_MOST
            self.pairs[pair if is_known else (OTHERS, f"{OTHERS} ")] += 1
        elif self.label_field.kind == "number":
            a, b = as_number(one), as_number(other)
            if a is not None and b is not None:
                self.numbers += 1
                self.apart += abs(a - b)
                return a == b
        return mine == theirs

    def facts(self) -> dict[str, Any]:
        """Return the figures as plain values, for JSON."""
        low, high = wilson(self.same, self.n)
        changes: dict[str, dict[str, int]] = {}
        for (mine, theirs), count in self.pairs.most_common():
            if mine != theirs:
                changes.setdefault(mine, {})[theirs.strip()] = count
        facts: dict[str, Any] = {
            "kind": self.label_field.kind,
            "n": self.n,
            "same": self.same,
            "agreement": self.same / self.n if self.n else None,
            "agreement_low": low if self.n else None,
            "agreement_high": high if self.n else None,
            "kappa": cohen_kappa(self.pairs),
            "changes": changes,
        }
        if self.label_field.kind == "set":
            facts |= {"added": dict(self.added.most_common()), "dropped": dict(self.dropped.most_common())}
        if self.numbers:
            facts["mean_difference"] = self.apart / self.numbers
        return facts


def _name(value: JSON) -> str:
    return NONE if value is None else class_name(value)


def _names(value: JSON) -> frozenset[str]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    return frozenset(map(class_name, items))
