"""`evaluate`: compares the labels of a run with gold. Makes no call, and does not change the run's labels."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import SetupError, did_you_mean, list_names
from pipeline.gold import KEY, GoldFile, as_number, only_field, open_gold
from pipeline.measure.disagreements import DifferenceWriter, Disagreement
from pipeline.measure.field_tally import AGREEMENT, CONFIDENCE, FieldTally
from pipeline.measure.gold_pairs import (
    ROW_KEY,
    GoldColumns,
    GoldCounts,
    Pair,
    grouping_keys,
    label_value,
    pairs_of_file,
    pairs_of_rows,
)
from pipeline.measure.measured_run import MeasuredRun, chosen_fields, gold_columns_in, gold_names, open_measured_run
from pipeline.parts import gold_source, read_keys
from pipeline.progress import show_count
from pipeline.records import JSON
from pipeline.store import RunDir, read_reviews
from pipeline.threads import in_daemon


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """The options of `evaluate`.

    `column`         the columns of the gold file, or without one the fields of the input, with gold
    `field`          the label field of each of these columns, if the names do not show it; without columns, the only
                     label fields to look for
    `disagreements`  the file for the records on which gold and label differ
    `confidence`     the label field with the model's confidence; unset: `confidence`, if it is a number, otherwise the
                     agreement of votes
    `ordered`        label fields whose values are listed from the lowest to the highest
    `sets`           how to read the gold file, by keys of [input]: `["input.encoding=cp1252"]`
    `without`        a file with the keys of gold that was used to choose the prompt: it proves nothing, so it is left
                     out
    `quiet`          show no count in a terminal
    """

    column: Sequence[str] = ()
    field: Sequence[str] = ()
    disagreements: str | Path | None = None
    confidence: str | None = None
    ordered: Sequence[str] = ()
    sets: Sequence[str] = ()
    quiet: bool = True
    without: str | Path | None = None


@dataclass(frozen=True, slots=True)
class OpenGold:
    """The source of gold: either `file` or `input`. `fields` are the label fields by column."""

    fields: Mapping[str, str]
    counts: GoldCounts
    file: GoldFile | None = None
    input: GoldColumns | None = None

    @property
    def names_rows(self) -> bool:
        """Whether the keys of gold are those of rows, not of records."""
        return self.file is not None and self.file.key_column == ROW_KEY


async def evaluate(
    run: str | Path | None = None, gold: str | Path | None = None, options: EvaluateOptions | None = None
) -> dict[str, Any]:
    """Compare the labels of a run with a gold file or, without one, with fields of its input; return plain values.

    Also saves the figures in the run folder. Raises SetupError.
    """
    options = options or EvaluateOptions()
    async with AsyncExitStack() as stack:
        measured_run = await stack.enter_async_context(open_measured_run(run, options.ordered))
        run_dir = measured_run.run_dir
        open_gold = await open_gold_of(measured_run, gold, options, stack)
        confidence = confidence_of(measured_run, options.confidence)
        differing = DifferenceWriter(
            "--disagreements", options.disagreements, measured_run, ("gold", "label"), gold=gold, more=["confidence"]
        )
        without = (
            await read_keys(Path(options.without), measured_run.key, "--without")
            if options.without
            else frozenset[str]()
        )
        evaluator = GoldEvaluator(measured_run, open_gold, confidence, differing, without)
        with differing, show_count("comparing", quiet=options.quiet) as count:
            async with aclosing(batches_of(measured_run, open_gold, fields=evaluator.wants_fields)) as batches:
                async for pairs in batches:
                    evaluator.add(pairs)
                    count(len(pairs))
            require_compared(measured_run, open_gold)
        facts = {
            "run_dir": str(run_dir.path),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "simulated": measured_run.simulated,
            "running": measured_run.running,
            "corrected": await in_daemon(lambda: has_corrections(run_dir)),
            "gold": await in_daemon(lambda: gold_facts(open_gold)),
            "columns": {tally.field.name: tally.facts() for tally in evaluator.tallies},
            "disagreements": await differing.facts(),
        }
    return {**facts, "kept": await asyncio.to_thread(_append_evaluation, run_dir, facts)}


def has_corrections(run_dir: RunDir) -> bool:
    """Whether people have checked labels; a draw without answers does not count. Waits for the disk."""
    reviews = read_reviews(run_dir.path)
    if reviews is None:
        return False
    with reviews:
        return bool(reviews.corrections())


# -- gold --------------------------------------------------------------------------------------------------------------


async def open_gold_of(
    run: MeasuredRun, gold: str | Path | None, options: EvaluateOptions, stack: AsyncExitStack
) -> OpenGold:
    """Open the requested gold until the stack is closed. Raises SetupError."""
    only = [run.field(name).name for name in options.field] if not options.column else []
    fields, counts = {} if only else chosen_fields(run, options.column, options.field), GoldCounts()
    if gold is None:
        fields = fields or _find_gold_columns(run, only)
        if run.field_names and (missing := [column for column in fields if column not in run.field_names]):
            raise SetupError(
                f"--column {missing[0]}: the records of {run.run_dir.path} have no such field"
                f"{did_you_mean(missing[0], run.field_names)}; they have {list_names(run.field_names)}. "
                "For gold in a separate file: --gold FILE"
            )
        return OpenGold(fields, counts, input=GoldColumns(run, list(fields), counts))
    keys = [*([ROW_KEY] if run.row_fields else []), *([run.key] if run.key else []), KEY]
    source = await in_daemon(lambda: gold_source(str(gold), options.sets, keys))
    only_one = only[0] if len(only) == 1 else only_field(run.fields) if not only else None
    # With one label field, the only column that is no field of the input must be its gold.
    beside = None if only_one is None else run.field_names
    opening = open_gold(source, keys=keys, wanted=list(fields), known=gold_names(run, only), beside=beside)
    file = await stack.enter_async_context(opening)
    fields = fields or gold_columns_in(run, file.columns, only) or {file.columns[0]: only_one or next(iter(run.fields))}
    return OpenGold(fields, counts, file=file)


def _find_gold_columns(run: MeasuredRun, only: Sequence[str]) -> dict[str, str]:
    if columns := gold_columns_in(run, run.field_names, only, input=True):
        return columns
    raise SetupError(
        "name the gold: --gold FILE, or --column NAME for a field of the input; the records of "
        f"{run.run_dir.path} have {list_names(run.field_names)}"
    )


def batches_of(run: MeasuredRun, gold: OpenGold, *, fields: bool) -> AsyncGenerator[list[Pair], None]:
    """Yield gold with its labels, in batches."""
    if gold.file is None:
        assert gold.input is not None
        return gold.input.batches()
    if run.row_fields and not gold.names_rows:
        return pairs_of_rows(run.ledger, gold.file, gold.counts)
    return pairs_of_file(run.ledger, gold.file, gold.counts, fields=fields)


def require_compared(run: MeasuredRun, gold: OpenGold) -> None:
    """Raise SetupError if nothing could be compared."""
    counts = gold.counts
    if counts.compared:
        return
    if gold.file is None:
        raise SetupError(f"no record of {run.run_dir.path} has a value in {', '.join(gold.fields)}")
    name = gold.file.source.name
    if counts.not_in_run:
        keys = ", ".join(map(repr, counts.keys_not_in_run))
        column = gold.file.key_column
        raise SetupError(
            f"gold: no key of {name} is one of {run.run_dir.path}: its column {column!r} has {keys}; the run names "
            f"its records {'by ' + repr(run.key) if run.key else 'by their place, like data.csv:12'}"
        )
    raise SetupError(f"gold: {name} has no value in {', '.join(gold.fields)}")


def gold_facts(gold: OpenGold) -> dict[str, Any]:
    """Return what the gold is, and what it contains besides the compared records."""
    counts, file = gold.counts, gold.file
    unusable = {} if file is None else file.unusable
    return {
        "file": None if file is None else file.source.name,
        "columns": dict(gold.fields),
        "key": None if file is None else file.key_column,
        "digest": f"sha256:{(file or gold.input).digest}",  # type: ignore[union-attr]
        "rows": counts.rows,
        "compared": counts.compared,
        "not_answered": counts.not_answered,
        "repeated": counts.repeated,
        "repeated_keys": counts.repeated_keys,
        "not_in_run": counts.not_in_run,
        "not_in_run_keys": counts.keys_not_in_run,
        "without_key": unusable.get("without_key", 0),
        "unreadable": unusable.get("unreadable", 0),
        "first_unusable": {} if file is None else dict(file.first_unusable),
    }


# -- labels ------------------------------------------------------------------------------------------------------------


def confidence_of(run: MeasuredRun, name: str | None) -> str | None:
    """Return the label column with the model's confidence; None if there is none. Raises SetupError."""
    if name is not None:
        return name if name in run.own_columns else run.field(name, "--confidence").name
    if CONFIDENCE in run.fields and run.fields[CONFIDENCE].kind == "number":
        return CONFIDENCE
    return AGREEMENT if AGREEMENT in run.own_columns else None


class GoldEvaluator:
    """Compares gold with labels, field by field."""

    def __init__(
        self,
        run: MeasuredRun,
        gold: OpenGold,
        confidence: str | None,
        differing: DifferenceWriter,
        without: frozenset[str] = frozenset(),
    ) -> None:
        self._run, self._differing, self._without = run, differing, without
        self._confidence = confidence
        as_sets = run.row_fields if not gold.names_rows else frozenset()
        #: Mutable state: the counts of the tallies, one per column of gold.
        fields = {one.name: replace(one, kind="set") if one.name in as_sets else one for one in run.fields.values()}
        self.tallies = [FieldTally(fields[name], column) for column, name in gold.fields.items()]
        self._columns = list(gold.fields)
        # Calibration depends on the order of the records.
        self._counts_alike = confidence is None and all(tally.counts_alike for tally in self.tallies)

    @property
    def wants_fields(self) -> bool:
        """Whether the records' own fields are needed."""
        return self._differing.wants_fields or bool(self._run.examples)

    def add(self, pairs: Sequence[Pair]) -> None:
        """Add further records of gold."""
        if self._run.examples or self._without:
            pairs = [pair for pair in pairs if not self._is_left_out(pair)]
        marks = grouping_keys(pairs, self._columns) if self._counts_alike else range(len(pairs))
        firsts = dict(zip(reversed(marks), reversed(pairs), strict=True))
        wrong = {}
        for mark, times in Counter(marks).items():
            if disagreements := self._compare(firsts[mark], times):
                wrong[mark] = disagreements
                self._differing.count(len(disagreements) * times if self._differing.only_counts else 0)
        if wrong and not self._differing.only_counts:
            self._differing.add(
                [
                    (Disagreement(pair.key, pair.row.key, *one), pair.row.fields)
                    for mark, pair in zip(marks, pairs, strict=True)
                    for one in wrong.get(mark, ())
                ]
            )

    def _is_left_out(self, pair: Pair) -> bool:
        """Whether the record's gold proves nothing. If so, counts it."""
        row, examples = pair.row, self._run.examples
        is_example = bool(examples) and examples.has(row.key, row.fields)
        if not is_example and row.key not in self._without:
            return False
        for tally in self.tallies:
            tally.examples += is_example and tally.column in pair.values
            tally.excluded += not is_example and tally.column in pair.values
        return True

    def _compare(self, pair: Pair, times: int) -> list[tuple[str, JSON, JSON, float | None]]:
        """Count identical records; return field, gold, label, and confidence of each column that differs."""
        disagreements, name = [], self._confidence
        confidence = None if name is None else as_number(label_value(pair.row, pair.place, name))
        for tally in self.tallies:
            gold = pair.values.get(tally.column)
            if gold is None:
                continue
            if pair.row.label is None:
                tally.without_label(pair.row.status, pair.row.code, times)
                continue
            name = tally.field.name
            label = label_value(pair.row, pair.place, name)
            if tally.add(gold, label, confidence, times) is False:
                disagreements.append((name, gold, label, confidence))
        return disagreements


# -- what is saved ----------------------------------------------------------------------------------------------------


def _append_evaluation(run_dir: RunDir, facts: Mapping[str, Any]) -> str | None:
    """Add the figures to the run folder, without records' texts; return None if the folder cannot be written."""
    line = {**facts, "disagreements": {**facts["disagreements"], "first": []}}
    try:
        with run_dir.evaluations.open("ab") as file:
            file.write(codec.dumps(line) + b"\n")
    except OSError:
        return None
    return str(run_dir.evaluations)
