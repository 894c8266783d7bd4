"""Scores, intervals, agreement, calibration: the same figures as scikit-learn, scipy, and published tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import isotonic, metrics, optimize, preprocessing, stats

from pipeline.quality import (
    Calibration,
    Coincidences,
    NumberTally,
    SetTally,
    TextTally,
    class_scores,
    cohen_kappa,
    macro_f1,
    mcnemar_exact,
    normalize_text,
    scores,
    spearman,
    weighted_f1,
    wilson,
)

PAIRS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcde")), min_size=1, max_size=60)
SETS = st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abcd"))), min_size=1, max_size=40)
NUMBERS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=3, max_size=60)


@given(PAIRS)
@settings(max_examples=15)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_classes_are_scored_as_scikit_learn_does(pairs: list[tuple[str, str]]) -> None:
    gold, labels = zip(*pairs, strict=True)
    counts = Counter(pairs)
    found = class_scores(counts)
    report: Any = metrics.classification_report(gold, labels, output_dict=True, zero_division=0)
    for name, one in found.items():
        theirs = report[name]
        assert (one.precision, one.recall, one.f1, one.support) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        )
    assert list(found) == sorted({*gold, *labels})
    assert macro_f1(found) == pytest.approx(report["macro avg"]["f1-score"])
    assert weighted_f1(found) == pytest.approx(report["weighted avg"]["f1-score"])


def test_the_order_of_the_task_comes_first() -> None:
    assert list(class_scores({("b", "a"): 1, ("z", "x"): 1}, order=["c", "b", "a"])) == ["b", "a", "x", "z"]


@given(PAIRS)
@settings(max_examples=15)
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    gold, labels = zip(*pairs, strict=True)
    names = sorted({*gold, *labels})
    if len(names) == 1:
        assert cohen_kappa(Counter(pairs)) is None
        return
    assert cohen_kappa(Counter(pairs)) == pytest.approx(metrics.cohen_kappa_score(gold, labels))
    weighted = metrics.cohen_kappa_score(gold, labels, weights="quadratic", labels=names)
    assert cohen_kappa(Counter(pairs), names) == pytest.approx(weighted)


@given(SETS)
@settings(max_examples=15)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_sets_are_scored_as_scikit_learn_does(pairs: list[tuple[set[str], set[str]]]) -> None:
    tally: SetTally[str] = SetTally()
    for gold, label in pairs:
        tally.add(gold, label)
    names = sorted({name for pair in pairs for one in pair for name in one})
    if not names:
        assert tally.jaccard == 0
        return
    binary = preprocessing.MultiLabelBinarizer(
        classes=list("abcde")
    )  # one class alone would be no multilabel problem for it
    golds = binary.fit_transform([gold for gold, _ in pairs])
    labels = binary.transform([label for _, label in pairs])
    found, there = tally.classes(), {"labels": ["abcde".index(name) for name in names]}
    assert tally.exact / tally.n == pytest.approx(metrics.accuracy_score(golds, labels))
    assert tally.jaccard == pytest.approx(metrics.jaccard_score(golds, labels, average="samples"))
    assert macro_f1(found) == pytest.approx(metrics.f1_score(golds, labels, average="macro", **there))
    assert weighted_f1(found) == pytest.approx(metrics.f1_score(golds, labels, average="weighted", **there))
    assert tally.micro.f1 == pytest.approx(metrics.f1_score(golds, labels, average="micro"))
    assert [one.f1 for one in found.values()] == pytest.approx(metrics.f1_score(golds, labels, average=None, **there))


@given(NUMBERS)
@settings(max_examples=15)
@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
def test_numbers_are_scored_as_scipy_and_scikit_learn_do(pairs: list[tuple[int, int]]) -> None:
    gold, labels = zip(*pairs, strict=True)
    tally = NumberTally()
    for one, other in pairs:
        tally.add(one, other)
    assert tally.mae == pytest.approx(metrics.mean_absolute_error(gold, labels))
    assert tally.rmse == pytest.approx(metrics.root_mean_squared_error(gold, labels))
    assert tally.within_one == sum(abs(one - other) <= 1 for one, other in pairs)
    if len(set(gold)) > 1 and len(set(labels)) > 1:
        assert tally.spearman == pytest.approx(stats.spearmanr(gold, labels).statistic)
    else:
        assert tally.spearman is None


def test_of_many_distinct_numbers_some_are_drawn_for_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "PAIRS_MOST", 500)
    tally = NumberTally()
    for number in range(5_000):
        tally.add(number, number + 700 * (number % 7))
    everything = spearman({(n, n + 700 * (n % 7)): 1 for n in range(5_000)})
    assert (tally.n, tally.ranked) == (5_000, 500)
    assert tally.spearman == pytest.approx(everything, abs=0.1)


def test_texts_are_equal_or_alike() -> None:
    tally = TextTally()
    for gold, label in (("a", "a"), ("Straße", "STRASSE "), ("ﬁn  e", "fin e"), ("a", "b")):
        tally.add(gold, label)
    assert (tally.n, tally.exact, tally.alike) == (4, 1, 3)
    assert normalize_text(" Ｆｕｌｌ\twidth ") == "full width"


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (1, 1), (340, 389), (5, 2_000_000)])
def test_the_interval_is_wilsons(hits: int, n: int) -> None:
    theirs = stats.binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    theirs = stats.binomtest(hits, n).proportion_ci(confidence_level=0.8, method="wilson")
    assert wilson(hits, n, 0.8) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 15), (10, 10), (30_000, 30_500)])
def test_mcnemars_exact_test_is_the_binomial_test(first: int, second: int) -> None:
    theirs = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar_exact(first, second) == pytest.approx(theirs, rel=1e-9)
    assert mcnemar_exact(second, first) == mcnemar_exact(first, second)


# -- Krippendorff's alpha --------------------------------------------------------------------------------------------

#: Krippendorff (2011), "Computing Krippendorff's alpha-reliability", C and D: four observers, twelve units.
PUBLISHED = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def _alpha_of(rows: Sequence[str], level: Any) -> float | None:
    found = Coincidences()
    for column in zip(*rows, strict=True):
        found.add([int(value) for value in column if value != "."])
    return found.alpha(level)


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_published_table(level: str, alpha: float) -> None:
    assert _alpha_of(PUBLISHED, level) == pytest.approx(alpha, abs=0.0005)


def test_alpha_of_two_observers_and_a_yes_or_no() -> None:
    """The same paper, A (binary data, no missing) and B (nominal data): 0.095 and 0.692."""
    assert _alpha_of(("0100000010", "1110010000"), "nominal") == pytest.approx(0.095, abs=0.0005)
    found = Coincidences()
    for pair in zip("aabbdcccedda", "babbbccceddd", strict=True):
        found.add(pair)
    assert found.alpha() == pytest.approx(0.692, abs=0.0005)


def test_alpha_says_nothing_where_nothing_can_be_said() -> None:
    found = Coincidences()
    found.add(["a"])
    assert (found.units, found.alpha()) == (0, None)
    found.add(["a", "a"])
    assert (found.units, found.alpha()) == (1, None)


def test_the_order_of_texts_is_given() -> None:
    found = Coincidences()
    for pair in (("low", "low"), ("low", "high"), ("middle", "high"), ("high", "high"), ("low", "middle")):
        found.add(pair)
    numbers = Coincidences()
    for one, other in ((1, 1), (1, 3), (2, 3), (3, 3), (1, 2)):
        numbers.add([one, other])
    assert found.alpha("ordinal", ["low", "middle", "high"]) == pytest.approx(numbers.alpha("ordinal"))
    assert found.alpha("ordinal") != pytest.approx(numbers.alpha("ordinal"))


# -- calibration -----------------------------------------------------------------------------------------------------


def test_the_reliability_table_and_its_error() -> None:
    found = Calibration()
    for confidence, is_right in ((0.0, False), (0.1, False), (0.11, True), (0.9, True), (0.95, True), (1.0, False)):
        found.add(confidence, is_right)
    found.add(1.2, True)
    found.add(float("nan"), True)
    assert [(one.low, one.high, one.n) for one in found.bins()] == [
        (0, 0.1, 2),
        (0.1, 0.2, 1),
        (0.8, 0.9, 1),
        (0.9, 1, 2),
    ]
    assert (found.n, found.left_out) == (6, 2)
    by_hand = (2 * 0.05 + 0.89 + 0.1 + 2 * abs(0.975 - 0.5)) / 6
    assert found.expected_error() == pytest.approx(by_hand)
    truth, said = [0, 0, 1, 1, 1, 0], [0, 0.1, 0.11, 0.9, 0.95, 1]
    assert found.brier() == pytest.approx(metrics.brier_score_loss(truth, said))


def test_the_temperature_is_the_one_of_least_loss() -> None:
    found, said, truth = Calibration(), [], []
    for number in range(400):
        confidence, is_right = 0.6 + 0.39 * (number % 40) / 40, number % 10 < 7
        found.add(confidence, is_right)
        said.append(round(confidence, 4))
        truth.append(int(is_right))

    def loss(temperature: float) -> float:
        scaled = [1 / (1 + ((1 - p) / p) ** (1 / temperature)) for p in said]
        return float(metrics.log_loss(truth, scaled))

    best = optimize.minimize_scalar(loss, bounds=(0.1, 20), method="bounded", options={"xatol": 1e-8})
    assert found.temperature() == pytest.approx(best.x, rel=1e-3)
    assert found.temperature() == pytest.approx(3.2, abs=1), "too sure"


def test_without_records_or_without_mistakes_there_is_no_temperature() -> None:
    found = Calibration()
    assert (found.expected_error(), found.brier(), found.temperature()) == (None, None, None)
    found.add(0.9, True)
    assert found.temperature() is None


def test_isotonic_regression_is_that_of_scikit_learn_and_judged_by_curves_made_without_the_record() -> None:
    random = Random(2)
    said = [round(random.random(), 2) for _ in range(300)]
    truth = [int(random.random() < 0.3 + 0.5 * confidence**3) for confidence in said]
    found = Calibration()
    for confidence, is_right in zip(said[:49], truth, strict=False):
        found.add(confidence, bool(is_right))
    assert found.isotonic() is None, "49 records are too few"
    for confidence, is_right in zip(said[49:], truth[49:], strict=True):
        found.add(confidence, bool(is_right))
    mine = found.isotonic()
    assert mine is not None
    grid = [step / 200 for step in range(201)]
    points, shares = zip(*mine.curve, strict=True)
    theirs = isotonic.IsotonicRegression(out_of_bounds="clip").fit(said, truth)
    assert np.interp(grid, points, shares) == pytest.approx(theirs.predict(grid))
    refitted = np.zeros(300)
    for fold in range(5):
        others = [at for at in range(300) if at % 5 != fold]
        curve = isotonic.IsotonicRegression(out_of_bounds="clip")
        curve.fit([said[at] for at in others], [truth[at] for at in others])
        refitted[fold::5] = curve.predict(said[fold::5])
    assert mine.brier == pytest.approx(metrics.brier_score_loss(truth, refitted), abs=1e-4)
    assert mine.brier > metrics.brier_score_loss(truth, theirs.predict(said)), "which knows what it is judged by"
    assert mine.expected_error < (found.expected_error() or 0)
