"""Tests whether labels can be learned: TF-IDF and logistic regression, cross-validated; lists the most doubtful."""

import asyncio
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from heapq import nsmallest
from operator import attrgetter
from pathlib import Path
from typing import Any

from pipeline import codec, quality
from pipeline.errors import MissingExtraError, SetupError
from pipeline.exports.exported_run import ExportedRun, class_field, open_run, text_fields
from pipeline.exports.near_duplicates import comparable_text
from pipeline.exports.selection import Selection, Where, check_names
from pipeline.facts import Baseline, Doubt
from pipeline.records import JSON, Outcome, Status
from pipeline.store import Draw, DrawItem, csv_block, open_reviews, write_whole

#: How many records the classifier learns from and the figures describe. More make it slower and hardly better.
SAMPLE = 10_000
#: The most characters of a text that are used: 10,000 texts of 200 kB would not fit into memory.
CHARS = 10_000
FOLDS = 5
#: Columns of the TF-IDF matrix.
FEATURES = 50_000
#: With more characters per word than this, the language does not put spaces between words.
WORD_CHARS = 12
#: The columns that a file of doubtful labels has besides the run's.
_GIVEN, _PROBABILITY = "baseline", "probability"


_doubt_order = attrgetter("probability", "key")


@dataclass(frozen=True, slots=True)
class BaselineOptions:
    """The options of a baseline.

    `by` is the label field to learn (None: the first one with classes), `text` the field to learn it from (None: those
    of the prompt). `doubts` is how many doubtful labels to show; `to` is a CSV for them, which is a draw for review.
    """

    by: str | None = None
    text: str | None = None
    seed: int = 0
    doubts: int = 100
    to: str | Path | None = None


@dataclass(frozen=True, slots=True)
class _Example:
    """A record as the classifier sees it."""

    rank: int
    key: str
    text: str
    label: str


async def baseline(run: str | Path | None, options: BaselineOptions) -> Baseline:
    """Train a classifier on the labels of a run and cross-validate it. Makes no call. Raises SetupError."""
    _sklearn()
    to = None if options.to is None else Path(options.to)
    if to is not None and to.exists():
        raise SetupError(f"{to}: already exists and may hold answers. Choose another name, or move it away")
    async with AsyncExitStack() as stack:
        exported_run = await open_run(run, stack)
        by = options.by or await class_field(exported_run)
        if by is None:
            raise SetupError(f"{exported_run.folder.path}: no label field has classes to learn: name one with --by")
        texts = (options.text,) if options.text is not None else text_fields(exported_run.manifest)
        selection = Selection(Where(None, frozenset()), texts, exported_run.key, by)
        done = await _Baseline(exported_run, selection, options).run()
        return done if to is None else await _write_doubts(done, exported_run, options, to)


def _sklearn() -> Any:
    try:
        import sklearn.feature_extraction.text
        import sklearn.linear_model
        import sklearn.model_selection
        import sklearn.pipeline
    except ImportError:
        raise MissingExtraError("the baseline", "baseline") from None
    return sklearn


def _one_thread() -> Any:
    """Limit the linear algebra to one thread.

    Its threads wait for each other by spinning, which takes six times the CPU time here, and more wall time while a run
    is in progress.
    """
    import threadpoolctl  # a dependency of scikit-learn

    return threadpoolctl.threadpool_limits(1)


class _Baseline:
    """One baseline. It reads the run twice if there are more records than it learns from."""

    def __init__(self, run: ExportedRun, selection: Selection, options: BaselineOptions) -> None:
        self._run, self._selection, self._options = run, selection, options
        # Mutable state: what was left out and why, the fields of the records, and the count of labeled records.
        self._left_out: Counter[str] = Counter()
        self._fields: dict[str, None] = {}
        self._count = 0

    async def run(self) -> Baseline:
        sample: list[_Example] = []
        async for cases in self._cases(count=True):
            sample += cases
            if len(sample) > 2 * SAMPLE:
                sample = _sample(sample)
        sample = _sample(sample)
        check_names({"--by": self._options.by, "--text": self._options.text}, list(self._fields))
        sizes = Counter(case.label for case in sample)
        learned = [case for case in sample if sizes[case.label] >= FOLDS]  # others cannot be in each fold
        self._left_out["rare_class"] = len(sample) - len(learned)
        if len({case.label for case in learned}) < 2:
            raise SetupError(
                f"{self._run.folder.path}: a baseline needs two classes of {FOLDS} records each in "
                f"{self._selection.by!r}; there are {len(learned):,} records of {len({one.label for one in learned})}"
            )
        done, doubts, model = await asyncio.to_thread(self._measured, learned)
        known = {case.key for case in sample}
        if self._count > len(sample):
            async for cases in self._cases():
                others = [case for case in cases if case.key not in known]
                more_doubts = await asyncio.to_thread(_doubts, model, others)
                doubts = nsmallest(self._options.doubts, [*doubts, *more_doubts], key=_doubt_order)
        return self._result(learned, done, doubts, model)

    async def _cases(self, *, count: bool = False) -> AsyncIterator[list[_Example]]:
        async for block in self._run.blocks():
            cases = [self._case(outcome, count=count) for _, outcome in block if outcome.status is Status.LABELLED]
            yield [case for case in cases if case is not None]

    def _case(self, outcome: Outcome, *, count: bool) -> _Example | None:
        selection, key = self._selection, outcome.record.key
        self._fields |= dict.fromkeys([*outcome.record.fields, *(outcome.label or {})])
        if isinstance((outcome.label or {}).get(selection.by or ""), list):
            raise SetupError(
                f"--by {selection.by}: a record has several labels there, and the baseline learns one class for each "
                "record: name another field"
            )
        text = selection.text_of(outcome.record.fields)[:CHARS]
        label = "" if outcome.rows is not None else selection.label(outcome, [True])
        why = "several_rows" if outcome.rows is not None else "no_label" if not label else ""
        why = why or ("" if text.strip() else "empty_text")
        self._count += count and not why
        if why:
            self._left_out[why] += count
            return None
        rank = codec.digest64(f"{self._options.seed} {key}".encode("utf-8", "surrogatepass"))
        return _Example(rank, key, codec.clean_text(text), label)

    def _measured(self, cases: Sequence[_Example]) -> tuple[Sequence[str], list[Doubt], Any]:
        """Return each record's label by a model that has not seen it, the doubts, and a model of all records."""
        model_selection = _sklearn().model_selection
        labels, texts = [case.label for case in cases], [case.text for case in cases]
        # The same text in two folds would be memorized, not learned.
        groups = [codec.digest64(comparable_text(text).encode()) for text in texts]
        splitter = model_selection.StratifiedGroupKFold(FOLDS, shuffle=True, random_state=self._options.seed % 2**32)
        predicted, doubts = [""] * len(cases), list[Doubt]()
        with warnings.catch_warnings(), _one_thread():
            warnings.simplefilter("ignore")  # rare classes and slow convergence, which the figures show as well
            for train, test in splitter.split(texts, labels, groups):
                model = _train([cases[at] for at in train], self._options.seed)
                for at, doubt in zip(test, _doubts(model, [cases[at] for at in test]), strict=True):
                    predicted[at] = doubt.given
                    doubts.append(doubt)
            whole = _train(cases, self._options.seed)
        return predicted, nsmallest(self._options.doubts, doubts, key=_doubt_order), whole

    def _result(
        self, cases: Sequence[_Example], predicted: Sequence[str], doubts: Sequence[Doubt], model: Any
    ) -> Baseline:
        pairs = Counter(zip((case.label for case in cases), predicted, strict=True))
        right = sum(count for (label, prediction), count in pairs.items() if label == prediction)
        low, high = quality.wilson(right, len(cases))
        ((majority, most),) = Counter(case.label for case in cases).most_common(1)
        classes = quality.class_scores(pairs)
        return Baseline(
            run_dir=str(self._run.folder.path),
            by=self._selection.by or "",
            texts=self._selection.texts,
            n=len(cases),
            of=self._count,
            folds=FOLDS,
            features=model[0].analyzer,
            seed=self._options.seed,
            accuracy=right / len(cases),
            accuracy_low=low,
            accuracy_high=high,
            majority=majority,
            majority_share=most / len(cases),
            macro_f1=quality.macro_f1(classes) or 0.0,
            classes={name: asdict(one) for name, one in classes.items()},
            doubts=tuple(doubts),
            left_out={why: count for why, count in self._left_out.items() if count},
            simulated=self._run.simulated,
        )


def _sample(cases: Sequence[_Example]) -> list[_Example]:
    """Return a sample that depends on the seed and the keys, not on the order."""
    return nsmallest(SAMPLE, cases, key=lambda case: (case.rank, case.key))


def _train(cases: Sequence[_Example], seed: int) -> Any:
    """Train logistic regression on TF-IDF of words and pairs, or of characters if words have no spaces."""
    sklearn, texts = _sklearn(), [case.text for case in cases]
    words = sum(len(text.split()) for text in texts)
    by_character = sum(map(len, texts)) > WORD_CHARS * words
    options: dict[str, Any] = {"analyzer": "char", "ngram_range": (1, 3)} if by_character else {"ngram_range": (1, 2)}
    vectors = sklearn.feature_extraction.text.TfidfVectorizer(max_features=FEATURES, sublinear_tf=True, **options)
    classifier = sklearn.linear_model.LogisticRegression(C=10.0, max_iter=300, tol=1e-3, random_state=seed % 2**32)
    return sklearn.pipeline.make_pipeline(vectors, classifier).fit(texts, [case.label for case in cases])


def _doubts(model: Any, cases: Sequence[_Example]) -> list[Doubt]:
    """Return the model's label for each record, and the probability that it gives to the record's own label."""
    if not cases:
        return []
    names = [str(name) for name in model.classes_]
    place = {name: at for at, name in enumerate(names)}
    doubts = []
    for case, row in zip(cases, model.predict_proba([case.text for case in cases]), strict=True):
        own = float(row[place[case.label]]) if case.label in place else 0.0
        doubts.append(Doubt(case.key, case.label, names[int(row.argmax())], round(own, 6)))
    return doubts


# -- the doubtful labels, for review -----------------------------------------------------------------------------------


async def _write_doubts(done: Baseline, run: ExportedRun, options: BaselineOptions, to: Path) -> Baseline:
    """Write the labels that differ from the classifier's, and save them as a draw."""
    doubts = [doubt for doubt in done.doubts if doubt.label != doubt.given]
    outcomes = await run.ledger.outcomes_of([doubt.key for doubt in doubts])
    fields = tuple(done.texts) or tuple(dict.fromkeys(name for one in outcomes.values() for name in one.record.fields))
    columns = list(run.label_columns)
    key = run.key or "key"
    carried = [name for name in fields if name not in (key, *columns)]
    titles = [key, _GIVEN, _PROBABILITY, *carried, *columns, "unclear", "note"]
    rows: list[list[JSON]] = []
    for doubt in doubts:
        outcome = run.corrected.apply(outcomes[doubt.key])
        label = outcome.label or {}
        values = [*map(outcome.record.fields.get, carried), *map(label.get, columns)]
        rows.append([doubt.key, doubt.given, doubt.probability, *values, None, None])
    data = csv_block([titles, *rows], escape_formulas=True)
    await asyncio.to_thread(write_whole, to, data)
    draw = await asyncio.to_thread(_store_draw, done, run, options, [doubt.key for doubt in doubts]) if doubts else None
    return replace(done, file=str(to), draw=draw)


def _store_draw(done: Baseline, run: ExportedRun, options: BaselineOptions, keys: Sequence[str]) -> int:
    """Save the draw: each of these records was certain to be drawn."""
    spec = {"parts": [{"kind": "baseline", "by": done.by, "n": options.doubts}]}
    digest = codec.digest128(codec.dumps([str(run.last_seq), run.corrected.version])).hex()
    with open_reviews(run.folder.path) as reviews:
        draw = Draw(options.seed, spec, "review", done.of, digest)
        return reviews.add_draw(draw, [DrawItem(key, 1.0) for key in keys]).id
