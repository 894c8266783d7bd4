"""Two runs against the same gold."""

from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError
from pipeline.measure.evaluate import EvaluateOptions, OpenGold, batches_of, open_gold_of, require_compared
from pipeline.measure.field_tally import FieldTally
from pipeline.measure.gold_pairs import Pair, label_value
from pipeline.measure.label_changes import joint_field
from pipeline.measure.measured_run import MeasuredRun
from pipeline.quality import mcnemar_exact
from pipeline.records import JSON
from pipeline.store import LabelRow


@dataclass(slots=True)
class GoldComparison:
    """Both runs against gold, field by field. What is counted changes.

    `differing` is the gold of records on which the runs differ, by key and field.
    """

    gold: OpenGold
    tallies: Mapping[str, tuple[FieldTally, FieldTally]]
    right: Mapping[str, Counter[tuple[bool, bool]]]
    differing: dict[tuple[str, str], JSON] = field(default_factory=dict)
    unlabelled: int = 0

    def facts(self, name: str) -> dict[str, Any] | None:
        """The figures of one field; None where gold says nothing of it."""
        if name not in self.tallies:
            return None
        one, other = (tally.facts() for tally in self.tallies[name])
        right = self.right[name]
        figures = ("accuracy", "accuracy_low", "accuracy_high", "kappa", "macro_f1", "weighted_f1", "mae", "jaccard")
        return {
            "n": right.total(),
            "a": {figure: one[figure] for figure in figures if figure in one},
            "b": {figure: other[figure] for figure in figures if figure in other},
            "both_right": right[True, True],
            "only_a_right": right[True, False],
            "only_b_right": right[False, True],
            "both_wrong": right[False, False],
            "p_value": mcnemar_exact(right[True, False], right[False, True]) if right.total() else None,
            "unlabelled": self.unlabelled,
            "examples": one["examples"],
            "no_label": one["no_label"],
        }


async def compare_with_gold(
    one: MeasuredRun, other: MeasuredRun, gold: str | Path | None, options: EvaluateOptions, stack: AsyncExitStack
) -> GoldComparison:
    """The runs against gold, on the records that both have labelled. Raises SetupError."""
    open_gold = await open_gold_of(one, gold, options, stack)
    named = {column: name for column, name in open_gold.fields.items() if name in other.fields}
    if not named:
        names = " or ".join(open_gold.fields.values())
        raise SetupError(f"gold is about {names}, and {other.run_dir.path} has no such label field")
    rows = one.row_fields if not open_gold.names_rows else frozenset[str]()
    as_set = {name: joint_field(one.fields[name], other.fields[name], rows) for name in named.values()}
    tallies = {
        name: (
            FieldTally(replace(one.fields[name], kind=as_set[name].kind), column),
            FieldTally(replace(other.fields[name], kind=as_set[name].kind), column),
        )
        for column, name in named.items()
    }
    judged = GoldComparison(open_gold, tallies, {name: Counter() for name in tallies})
    has_examples = bool(one.examples or other.examples)
    async with aclosing(batches_of(one, open_gold, fields=has_examples)) as batches:
        async for pairs in batches:
            theirs = await other.ledger.labels_of([pair.row.key for pair in pairs], fields=has_examples)
            for pair in pairs:
                _compare_pair(judged, pair, theirs.get(pair.row.key), (one, other))
    require_compared(one, open_gold)
    return judged


def _compare_pair(
    judged: GoldComparison, pair: Pair, theirs: LabelRow | None, runs: tuple[MeasuredRun, MeasuredRun]
) -> None:
    if any(run.examples and run.examples.has(pair.row.key, pair.row.fields) for run in runs):
        for mine, _ in judged.tallies.values():
            mine.examples += mine.column in pair.values
        return
    if pair.row.label is None or theirs is None or theirs.label is None:
        judged.unlabelled += 1
        return
    for name, (mine, other) in judged.tallies.items():
        gold = pair.values.get(mine.column)
        if gold is None:
            continue
        one, two = label_value(pair.row, pair.place, name), label_value(theirs, pair.place, name)
        if one != two and pair.place is None:
            judged.differing[pair.row.key, name] = gold
        a, b = mine.add(gold, one), other.add(gold, two)
        if a is not None and b is not None:
            judged.right[name][a, b] += 1
