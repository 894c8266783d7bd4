"""Measures a run by gold records: its accuracy, and a stop if that is clearly too low. Also detects label shifts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from pipeline.engine import Job
from pipeline.errors import LabelpipeError, RenderError
from pipeline.gold import MeasuredField, as_class, as_number, as_set
from pipeline.parts import GoldRecords
from pipeline.quality import is_clearly_below, shift_of, wilson
from pipeline.records import JSON, Outcome, Record, SavedAnswer, Status
from pipeline.runlog import log_event
from pipeline.runner.lookups import asks_the_same
from pipeline.runner.session_parts import SessionParts
from pipeline.stats import Stats

if TYPE_CHECKING:
    pass

#: How many confusions are shown.
CONFUSIONS = 3
#: Counts as the answer to gold without a label.
NO_LABEL = "no label"
#: The labels in one window, which is compared with all before it; the chance of a false alarm in each; and the smallest
#: change of the shares that is reported.
WINDOW, FALSE_ALARM, LEAST_SHIFT = 500, 1e-6, 0.1

NO_GOLD = GoldRecords(MeasuredField("", "unknown"), "", (), {})
Commit = Callable[[Sequence[Outcome]], Coroutine[Any, Any, None]]


class LowAccuracyError(LabelpipeError):
    """The labels of gold records are clearly worse than quality.stop_below allows."""

    code = "accuracy"


class Canaries:
    """The gold records of a run, and the model's answers to them.

    They are asked and paid for like any record, but no callback and no output file ever receives them. Their outcomes
    are archived in the ledger, so a resumed run continues with the same figures.
    """

    def __init__(self, parts: SessionParts, stats: Stats, simulated: Callable[[], bool]) -> None:
        self._gold = parts.gold or NO_GOLD
        self._simulated = simulated
        self._task = parts.task
        self._options = parts.settings.quality
        self._ledger = parts.ledger
        self._base = parts.base
        self._stats = stats
        lease = parts.options.lease
        # The results of other shards.
        self._tally = None if lease is None else lease.gold
        # Mutable state: what stops the run, how many were right, how often each label was given for each gold value,
        # which were compared, the votes that a killed session left unfinished, and which are in batches.
        self._stop: Callable[[LabelpipeError], None] = lambda _: None
        self.right = 0
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._compared: set[str] = set()
        self._saved_answers: Mapping[str, Sequence[SavedAnswer]] = {}
        self._in_parts: set[str] = set()

    async def begin(
        self,
        stop: Callable[[LabelpipeError], None],
        in_parts: Callable[[Sequence[Record]], Coroutine[Any, Any, set[str]]] | None = None,
    ) -> None:
        """Count the results of earlier sessions with the same task. A low accuracy stops the run at once.

        `in_parts` reports which records are in batches; these come back by themselves.
        """
        self._stop = stop
        ledgers = [one for one in (self._ledger, self._base) if one is not None]
        if self._gold.mixed:
            if in_parts is not None:
                self._in_parts = await in_parts(self._gold.mixed)
            outcomes = [outcome for ledger in ledgers for outcome in await ledger.canaries()]
            records = {record.key: record for record in self._gold.mixed}
            self._saved_answers = await self._ledger.answers_of(list(records))
            for outcome in outcomes:
                record = records.get(outcome.record.key)
                if record is not None and asks_the_same(self._task, record, outcome):
                    self._note(outcome)
        else:
            for ledger in ledgers:
                for outcome in (await ledger.outcomes_of(list(self._gold.right))).values():
                    self._note(outcome)
        if self._tally is not None:
            self._tally.on_change = self._check_accuracy
        self._check_accuracy()

    def mixed_into(self, items: AsyncGenerator[Job | Outcome, None]) -> AsyncGenerator[Job | Outcome, None]:
        """Return the same items, with a gold record after every `every` that are asked."""
        return _mixed(items, self._jobs(), self._options.every) if self._gold.mixed else items

    def _jobs(self) -> Iterator[Job]:
        for record in self._gold.mixed:
            if record.key not in self._compared and record.key not in self._in_parts:
                try:
                    yield Job(self._task.render(record), saved=self._saved_answers.get(record.key, ()))
                except RenderError as error:
                    log_event("a gold record cannot be asked", key=record.key, error=str(error))

    def split_commit(self, commit: Commit) -> Commit:
        """Return a commit that saves gold records separately and checks the accuracy.

        Some may come back from batches sent when the config had gold.
        """

        async def split(outcomes: Sequence[Outcome]) -> None:
            canaries = [outcome for outcome in outcomes if outcome.record.is_canary]
            others = [outcome for outcome in outcomes if not outcome.record.is_canary] if canaries else outcomes
            if canaries:
                await self._ledger.keep_canaries(canaries)
                self._stats.record_costs(canaries)
            if others:
                await commit(others)
            known = canaries if self._gold.mixed else others
            for outcome in known:
                if outcome.record.key in self._gold.right:
                    self._note(outcome)
            self._check_accuracy()

        return split

    def _note(self, outcome: Outcome) -> None:
        if outcome.status is Status.FAILED or outcome.record.key in self._compared:
            return  # no answer ever came, which says nothing about the labels
        self._compared.add(outcome.record.key)
        right, answer = self._classes(self._gold.right[outcome.record.key], outcome.label)
        self.right += right == answer
        self._pairs[right, answer] += 1

    def _classes(self, right: JSON, label: Mapping[str, JSON] | None) -> tuple[str, str]:
        field = self._gold.field
        if label is None:
            return str(right), NO_LABEL
        if field.kind == "set":
            return _joined(as_set(field, right)), _joined(as_set(field, label.get(field.name)))
        answer = label.get(field.name)
        if field.kind == "number" and None not in (numbers := (as_number(right), as_number(answer))):
            right, answer = numbers
        return as_class(field, right), as_class(field, answer)

    def _check_accuracy(self) -> None:
        if self._tally is not None:
            self._tally.own = (self.right, self.n)
        floor, (right, n) = self._options.stop_below, self._of_all
        # Simulated labels are right only by chance, and a rehearsal should reach its end.
        if floor and not self._simulated() and is_clearly_below(right, n, floor):
            low, high = wilson(right, n)
            self._stop(
                LowAccuracyError(
                    f"the accuracy on gold is clearly below {floor:g}: {right} of {n} right "
                    f"({low:.2f} to {high:.2f}){self._worst()}"
                )
            )

    @property
    def n(self) -> int:
        """How many gold records were compared."""
        return self._pairs.total()

    @property
    def _of_all(self) -> tuple[int, int]:
        """How many were right and how many compared, in all shards."""
        right, n = (0, 0) if self._tally is None else self._tally.others
        return self.right + right, self.n + n

    def _worst(self) -> str:
        confusions = [f"{right} as {answer} {count:,}" for (right, answer), count in self._confusions()]
        return f"; most often {', '.join(confusions)}" if confusions else ""

    def _confusions(self) -> list[tuple[tuple[str, str], int]]:
        wrong = Counter({pair: count for pair, count in self._pairs.items() if pair[0] != pair[1]})
        return wrong.most_common(CONFUSIONS)

    def text(self) -> str:
        """Return the text for the progress line."""
        return gold_text(*self._of_all)

    def facts(self) -> dict[str, Any] | None:
        """Return the summary facts, with Wilson's 95 % interval; None without gold. Confusions: gold, label, count."""
        if not self._gold.right:
            return None
        low, high = wilson(self.right, self.n)
        return {
            "column": self._gold.field.name,
            "n": self.n,
            "right": self.right,
            "accuracy": self.right / self.n if self.n else None,
            "accuracy_low": low,
            "accuracy_high": high,
            "confusions": [[*pair, count] for pair, count in self._confusions()],
        }


def gold_text(right: int, n: int) -> str:
    """Return `gold 0.91 (0.86 to 0.95)`; empty before the first comparison."""
    if not n:
        return ""
    low, high = wilson(right, n)
    return f"gold {right / n:.2f} ({low:.2f} to {high:.2f})"


def _joined(classes: Iterable[str]) -> str:
    return ", ".join(sorted(classes)) or "(none)"


async def _mixed(
    items: AsyncGenerator[Job | Outcome, None], golds: Iterator[Job], every: int
) -> AsyncGenerator[Job | Outcome, None]:
    asked_count = 0
    async with aclosing(items) as left:
        async for item in left:
            yield item
            asked_count += isinstance(item, Job)
            if isinstance(item, Job) and asked_count % every == 0 and (gold := next(golds, None)) is not None:
                yield gold


class LabelShift:
    """Detects whether the shares of the labels in a window differ from those before it.

    Each column is reported only once. Sorted input shifts by itself, so a shift is only reported and stops nothing.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        # Mutable state: the counts before the window and in it, of columns that have not shifted yet.
        self._counts = {column: (Counter[str](), Counter[str]()) for column in columns}

    def find_shifts(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Add outcomes. Return messages about shifts."""
        messages = []
        for column, (before, now) in list(self._counts.items()):
            now.update(str(one.label.get(column)) for one in outcomes if one.label is not None)
            if now.total() < WINDOW:
                continue
            distance, chance = shift_of(before, now)
            if before.total() >= WINDOW and distance >= LEAST_SHIFT and chance <= FALSE_ALARM:
                messages.append(_shift_text(column, before, now))
                del self._counts[column]
            before.update(now)
            now.clear()
        return messages


def warn_of_shifts(commit: Commit, columns: Sequence[str], outputs: Iterable[Callable[[str], None]]) -> Commit:
    """Return a commit that also reports label shifts."""
    shift = LabelShift(columns)

    async def message(outcomes: Sequence[Outcome]) -> None:
        await commit(outcomes)
        for text in shift.find_shifts(outcomes):
            log_event("labels shift", level=logging.WARNING, message=text)
            for output in outputs:
                output(text)

    return message


def _shift_text(column: str, before: Counter[str], now: Counter[str]) -> str:
    n, m = before.total(), now.total()
    name = max(before | now, key=lambda one: abs(before[one] / n - now[one] / m))
    return (
        f"the labels have shifted: {column} is {name} in {now[name] / m:.0%} of the last {m:,} records, and was in "
        f"{before[name] / n:.0%} of the {n:,} before. If the input is not sorted, look at what has changed"
    )
