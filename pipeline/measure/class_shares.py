"""Estimates class shares in a run, corrected by a draw answered blind; writes outcomes for regressions on labels."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError
from pipeline.gold import MeasuredField, as_number, class_name
from pipeline.measure.certification import certified_field
from pipeline.measure.human_answers import human_answers
from pipeline.measure.measured_run import MeasuredRun, open_measured_run
from pipeline.quality import AnsweredRecord, class_shares, pseudo_outcome
from pipeline.records import JSON
from pipeline.store import Answer, Draw, LabelRow, Reviews, csv_block, read_reviews, write_whole

#: Ways of drawing that give every label of the run a probability above 0.
_COVERING = frozenset({"sample", "per_class"})
#: The most values that a field of classes, or of groups, may have.
CLASSES_MOST, GROUPS_MOST = 1_000, 1_000
#: Replaces a label that does not have the class in question.
_NOT = "\0"
Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SharesOptions:
    """The label field, the field of records or labels that splits it, and the file for pseudo-outcomes."""

    column: str | None = None
    by: str | None = None
    confidence: float = 0.95
    pseudo: str | Path | None = None


@dataclass(frozen=True, slots=True)
class _DrawAnswers:
    """The basis of a correction: for each record that counts, the answer and the probability that it was drawn.

    `draw_size` is the size of the draw. `answered` is how many of its records have a blind answer that is not unclear.
    """

    draw: int | None = None
    answers: Mapping[str, tuple[JSON, float]] = field(default_factory=dict)
    draw_size: int = 0
    answered: int = 0


async def shares(run: str | Path | None = None, options: SharesOptions | None = None) -> Facts:
    """Return the share of each class, raw and corrected, with intervals, as plain values. Raises SetupError.

    The correction uses the draw with the most blind answers, among those that could have drawn any label.
    """
    options = options or SharesOptions()
    if not 0 < options.confidence < 1:
        raise SetupError(f"--confidence {options.confidence:g}: expected a share above 0 and below 1, such as 0.95")
    async with open_measured_run(run) as measured_run:
        label_field = certified_field(measured_run, options.column)
        answers = await asyncio.to_thread(_draw_answers, measured_run.run_dir.path, label_field.name)
        counts = _LabelCounts(label_field.name, options.by, label_field.kind == "number", answers.answers)
        async for row in _rows(measured_run, label_field.name):
            counts.add(row)
        facts = _facts(measured_run, counts, answers, options)
        if options.pseudo is not None:
            facts["pseudo"] = await _write_pseudo(measured_run, label_field, counts, answers, Path(options.pseudo))
    return facts


async def _rows(run: MeasuredRun, name: str) -> AsyncIterator[LabelRow]:
    """Yield the labeled records that have this field, each with its fields."""
    seq = 0
    while block := await run.ledger.labels_after(seq, fields=True):
        for row in block:
            if row.label is not None and name in row.label:
                yield row
        seq = block[-1].seq


# -- people's answers --------------------------------------------------------------------------------------------------


def _draw_answers(folder: Path, column: str) -> _DrawAnswers:
    reviews = read_reviews(folder)
    if reviews is None:
        return _DrawAnswers()
    with reviews:
        blind = {key: one for key, one in human_answers(reviews, column).blind.items() if not one.unclear}
        candidates = [_of_draw(reviews, draw, blind, column) for draw in reviews.draws() if _covers(draw, column)]
    return max(candidates, key=lambda one: one.answered, default=_DrawAnswers())


def _covers(draw: Draw, column: str) -> bool:
    """Whether the draw could have drawn any label of the run."""
    spec: Any = draw.spec
    if "certify" in spec:
        return bool(spec["certify"]["column"] == column)
    return "where" not in spec and any(part.get("kind") in _COVERING for part in spec.get("parts", ()))


def _of_draw(reviews: Reviews, draw: Draw, blind: Mapping[str, Answer], column: str) -> _DrawAnswers:
    items = reviews.items_of(draw.id)
    answers = {item.key: (blind[item.key].fields[column], item.probability) for item in items if item.key in blind}
    spec: Any = draw.spec
    known: dict[str, tuple[JSON, float]] = {}
    if "certify" in spec:
        # Only unchecked records were drawn; those checked before are known for certain.
        before = human_answers(reviews, column, spec["certify"]["reviews"]).corrections
        known = {key: (one.fields[column], 1.0) for key, one in before.items()}
    return _DrawAnswers(draw.id, {**known, **answers}, len(items), len(answers))


# -- labels ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Group:
    """The labels of a group: how many, how many of each class, and those that people have answered."""

    n: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    answered: list[tuple[frozenset[str], frozenset[str], float]] = field(default_factory=list)


@dataclass(slots=True)
class _LabelCounts:
    """The labels of a field by group. Mutable state: `groups`, while the run is read."""

    column: str
    by: str | None
    is_number: bool
    answers: Mapping[str, tuple[JSON, float]]
    groups: dict[str, _Group] = field(default_factory=lambda: defaultdict(_Group))

    def add(self, row: LabelRow) -> None:
        """Count one more label. Raises SetupError if there are too many classes or groups."""
        group, classes = self.groups[self._group(row)], self._classes((row.label or {})[self.column])
        group.n += 1
        group.counts.update(classes)
        if len(group.counts) > CLASSES_MOST:
            raise SetupError(
                f"--column {self.column}: has more than {CLASSES_MOST:,} values, so it is not a field of classes"
            )
        if len(self.groups) > GROUPS_MOST:
            raise SetupError(f"--by {self.by}: has more than {GROUPS_MOST:,} values, which is too many for groups")
        if row.key in self.answers:
            answer, probability = self.answers[row.key]
            group.answered.append((classes, self._classes(answer), probability))

    def _classes(self, value: JSON) -> frozenset[str]:
        return frozenset() if self.is_number else classes_in(value)

    def _group(self, row: LabelRow) -> str:
        if self.by is None:
            return ""
        fields, label = row.fields or {}, row.label or {}
        if self.by not in fields and self.by not in label:
            raise SetupError(f"--by {self.by}: {row.key} has no such field; it has {', '.join([*fields, *label])}")
        return class_name(fields[self.by] if self.by in fields else label[self.by])

    def classes(self) -> list[str]:
        """Return all classes of the labels and answers, the most frequent label first."""
        total: Counter[str] = Counter()
        for group in self.groups.values():
            total.update(group.counts)
        answered = {one for group in self.groups.values() for _, answer, _ in group.answered for one in answer}
        return [*sorted(total, key=lambda one: (-total[one], one)), *sorted(answered - total.keys())]


def classes_in(value: JSON) -> frozenset[str]:
    """Return the classes of a label: one, or those of a list."""
    return frozenset(map(class_name, value)) if isinstance(value, list) else frozenset((class_name(value),))


def _facts(run: MeasuredRun, counts: _LabelCounts, measured: _DrawAnswers, options: SharesOptions) -> Facts:
    classes = counts.classes()
    return {
        "run_dir": str(run.run_dir.path),
        "column": counts.column,
        "by": counts.by,
        "confidence": options.confidence,
        "draw": measured.draw,
        "drawn": measured.draw_size,
        "answered": measured.answered,
        "known": len(measured.answers) - measured.answered,
        "groups": [
            {
                "group": None if counts.by is None else name,
                "n": group.n,
                "answered": len(group.answered),
                "classes": {one: _share(group, one, options.confidence) for one in classes},
            }
            for name, group in sorted(counts.groups.items(), key=lambda item: (-item[1].n, item[0]))
        ],
        "simulated": run.simulated,
    }


def _share(group: _Group, one: str, confidence: float) -> Facts:
    """Return the share of labels that have the class, whatever other classes they have."""
    answered = [
        AnsweredRecord(one if one in label else _NOT, one if one in answer else _NOT, probability)
        for label, answer, probability in group.answered
    ]
    counts = {one: group.counts[one], _NOT: group.n - group.counts[one]}
    share = asdict(class_shares(counts, answered, confidence)[one])
    del share["n"]
    return share


# -- pseudo-outcomes ---------------------------------------------------------------------------------------------------


async def _write_pseudo(
    run: MeasuredRun, label: MeasuredField, counts: _LabelCounts, measured: _DrawAnswers, path: Path
) -> str:
    """Write a CSV with the key and pseudo-outcome of each label: of a number itself, otherwise of each class."""
    if not measured.answered:
        raise SetupError(f"--pseudo {path}: needs blind answers for a random draw, as labelpipe certify makes one")
    classes = counts.classes()
    titles = [f"{label.name}={one}" for one in classes] or [label.name]
    # Treats unanswered records as not drawn: which records of the draw are answered first is random.
    response = measured.answered / measured.draw_size
    rows: list[list[JSON]] = []
    async for row in _rows(run, label.name):
        answer, chance = measured.answers.get(row.key, (None, 1.0))
        outcomes = _outcomes((row.label or {})[label.name], answer, chance * response if chance < 1 else 1.0, classes)
        rows.append([row.key, *outcomes])
    await asyncio.to_thread(_write_new, path, csv_block([["key", *titles], *rows], escape_formulas=True))
    return str(path)


def _write_new(path: Path, data: bytes) -> None:
    if path.exists():
        raise SetupError(f"{path}: already exists. Choose another name, or move it away.")
    write_whole(path, data)


def _outcomes(label: JSON, answer: JSON | None, probability: float, classes: Sequence[str]) -> list[float | None]:
    if not classes:
        number, answer_number = as_number(label), as_number(answer)
        return [None if number is None else pseudo_outcome(number, answer_number, probability)]
    label_classes, answer_classes = classes_in(label), None if answer is None else classes_in(answer)
    # 1 or 0: a bool would be written as a word.
    return [
        pseudo_outcome(
            int(one in label_classes), None if answer_classes is None else int(one in answer_classes), probability
        )
        for one in classes
    ]
