"""`compare`: compares the labels of the same records in two runs. Makes no call, and changes neither run."""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError
from pipeline.measure.disagreements import DifferenceWriter
from pipeline.measure.evaluate import (
    EvaluateOptions,
    OpenGold,
    batches_of,
    gold_facts,
    has_corrections,
    open_gold_of,
    require_compared,
)
from pipeline.measure.field_tally import FieldTally
from pipeline.measure.gold_pairs import BLOCK, Pair, label_value
from pipeline.measure.label_changes import AnswerCosts, LabelComparison, joint_field
from pipeline.measure.measured_run import MeasuredRun, open_measured_run
from pipeline.progress import show_count
from pipeline.quality import mcnemar_exact
from pipeline.records import JSON
from pipeline.store import LabelRow, diff
from pipeline.threads import in_daemon

#: Parts of the fingerprint that describe the input or the ledger, not the requests.
_NOT_ASKED = frozenset({"input", "simulated"})


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """The options of `compare`.

    `column`           where gold is, as for `evaluate`; without gold the runs are only compared with each other
    `field`            the label field of each column; without columns, the only label fields to compare
    `differences`      the file for the records on which the runs differ
    `ordered`, `sets`, `quiet`  as for `evaluate`
    """

    column: Sequence[str] = ()
    field: Sequence[str] = ()
    differences: str | Path | None = None
    ordered: Sequence[str] = ()
    sets: Sequence[str] = ()
    quiet: bool = True

    @property
    def evaluating(self) -> EvaluateOptions:
        """The options about gold."""
        return EvaluateOptions(column=self.column, field=self.field, ordered=self.ordered, sets=self.sets)


async def compare(
    a: str | Path,
    b: str | Path,
    gold: str | Path | None = None,
    options: CompareOptions | None = None,
    *,
    keys: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compare the labels of two runs on the records that both have, or only on `keys`; return plain values.

    Gold is a file, or the fields of the first run's input that `column` names. Raises SetupError.
    """
    options = options or CompareOptions()
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(open_measured_run(run, options.ordered)) for run in (a, b)]
        if one.run_dir.path.resolve() == other.run_dir.path.resolve():
            raise SetupError(f"{one.run_dir.path} is named twice; name two runs")
        has_gold = gold is not None or bool(options.column)
        differing = DifferenceWriter(
            "--differences", options.differences, one, _titles(one, other), gold=gold, more=["gold"] * has_gold
        )
        changes = LabelComparison(one, other, differing, options.field if not options.column else ())
        judged = await compare_with_gold(one, other, gold, options.evaluating, stack) if has_gold else None
        golds = {} if judged is None else judged.differing
        with differing, show_count("comparing", quiet=options.quiet) as count:
            async with aclosing(_common_records(one, other, keys, fields=differing.wants_fields)) as batches:
                async for rows in batches:
                    changes.add(rows, golds)
                    count(len(rows))
        if not changes.counts["both"]:
            raise SetupError(
                f"{one.run_dir.path} and {other.run_dir.path} have no record in common that both have labelled: are "
                "they runs of the same input, with the same input.key?"
            )
        return {
            "runs": [await _run_facts(run, side) for run, side in zip((one, other), changes.sides, strict=True)],
            "differ_in": _differ_in(one.manifest, other.manifest),
            "fields_only": {
                side: [name for name in mine.fields if name not in yours.fields]
                for side, mine, yours in (("a", one, other), ("b", other, one))
            },
            "records": await changes.records(all_of_a=keys is None),
            "gold": None if judged is None else await in_daemon(lambda: gold_facts(judged.gold)),
            "columns": {
                name: {**tally.facts(), "gold": None if judged is None else judged.facts(name)}
                for name, tally in changes.tallies.items()
            },
            "differences": await differing.facts(),
        }


def _titles(one: MeasuredRun, other: MeasuredRun) -> tuple[str, str]:
    """Return the runs' column titles: the names of their folders if these differ, otherwise the paths."""
    names = one.run_dir.path.resolve().name, other.run_dir.path.resolve().name
    reserved = {"key", "text", "field", "gold"} & {*names}
    return names if names[0] != names[1] and not reserved else (str(one.run_dir.path), str(other.run_dir.path))


def _differ_in(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, JSON]]:
    """Return the parts of the fingerprint in which the requests of the runs differ."""
    before, now = (
        {name: part for name, part in (manifest.get("fingerprint") or {}).items() if name not in _NOT_ASKED}
        for manifest in (one, other)
    )
    return [{"part": change.part, "a": change.old, "b": change.new} for change in diff(before, now)]


# -- the records of both ----------------------------------------------------------------------------------------------


async def _common_records(
    one: MeasuredRun, other: MeasuredRun, keys: Sequence[str] | None, *, fields: bool
) -> AsyncGenerator[list[tuple[LabelRow, LabelRow | None]], None]:
    """Yield the records of the first run, or those of `keys`, each with the second run's row, if any."""
    seq = at = 0
    while True:
        if keys is None:
            rows = await one.ledger.labels_after(seq, BLOCK, fields=fields)
        else:
            rows_by_key = await one.ledger.labels_of(keys[at : at + BLOCK], fields=fields)
            rows, at = list(rows_by_key.values()), at + BLOCK
        if not rows and (keys is None or at >= len(keys)):
            return
        seq = rows[-1].seq if rows else seq
        theirs = await other.ledger.labels_of([row.key for row in rows])
        yield [(row, theirs.get(row.key)) for row in rows]


# -- each run ---------------------------------------------------------------------------------------------------------


async def _run_facts(run: MeasuredRun, side: AnswerCosts) -> dict[str, Any]:
    counts, totals = await run.ledger.count_by_status(), await run.ledger.totals()
    summary = run.run_dir.read_summary() or {}
    return {
        "run_dir": str(run.run_dir.path),
        "model": (run.manifest.get("fingerprint") or {}).get("model"),
        "simulated": run.simulated,
        "running": run.running,
        "corrected": await in_daemon(lambda: has_corrections(run.run_dir)),
        **{status.value: count for status, count in counts.items()},
        "cost_usd": None if totals.unpriced else totals.cost_usd,
        **side.facts(),
        "session_s": summary.get("session_s"),
        "session_records": summary.get("session_records"),
    }


@dataclass(slots=True)
class GoldComparison:
    """Both runs against gold, field by field. Mutable state: the counts.

    `differing` is the gold of records on which the runs differ, by key and field.
    """

    gold: OpenGold
    tallies: Mapping[str, tuple[FieldTally, FieldTally]]
    right: Mapping[str, Counter[tuple[bool, bool]]]
    differing: dict[tuple[str, str], JSON] = field(default_factory=dict)
    unlabelled: int = 0

    def facts(self, name: str) -> dict[str, Any] | None:
        """Return the figures of one field; None if there is no gold for it."""
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
    """Compare both runs with gold, on the records that both have labeled. Raises SetupError."""
    open_gold = await open_gold_of(one, gold, options, stack)
    fields_by_column = {column: name for column, name in open_gold.fields.items() if name in other.fields}
    if not fields_by_column:
        names = " or ".join(open_gold.fields.values())
        raise SetupError(f"gold is about {names}, and {other.run_dir.path} has no such label field")
    rows = one.row_fields if not open_gold.names_rows else frozenset[str]()
    tallies = {}
    for column, name in fields_by_column.items():
        kind = joint_field(one.fields[name], other.fields[name], rows).kind
        first, second = (FieldTally(replace(run.fields[name], kind=kind), column) for run in (one, other))
        tallies[name] = first, second
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
