"""The baseline: whether labels can be learned, and the labels that it doubts."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from export_samples import labelled, made, texts
from typer.testing import CliRunner

from pipeline import baseline
from pipeline.cli import app
from pipeline.errors import MissingExtraError, SetupError
from pipeline.exports import baseline as room
from pipeline.store import read_corrections, read_reviews

# It is looked for and not imported: that takes a second in each process that only collects the tests.
pytestmark = pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not here: make test installs it")
WRONG = {7, 50, 101, 123}


@pytest.fixture(scope="module")
def learnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Topics that a word gives away, but for four labels."""
    words = {"bill": "invoice", "login": "password", "other": "weather"}
    names = list(words)
    outcomes = []
    for at, text in enumerate(texts(range(150))):
        name = names[at % 3]
        label = names[(at + 1) % 3] if at in WRONG else name
        outcomes.append(labelled(at, {"id": f"r{at:05}", "text": f"my {words[name]} {text}"}, label))
    return made(tmp_path_factory.mktemp("learnable") / "run", outcomes)


def test_wrong_labels_are_doubted_first(learnable: Path) -> None:
    done = baseline(learnable)
    assert {int(doubt.key[1:]) for doubt in done.doubts[:4]} == WRONG
    assert all(doubt.label != doubt.given and doubt.probability < 0.5 for doubt in done.doubts[:4])
    assert done.accuracy == pytest.approx(146 / 150)
    assert (done.n, done.of, done.majority_share, done.learnable) == (150, 150, pytest.approx(1 / 3, abs=0.02), True)
    assert done.accuracy_low < done.accuracy < done.accuracy_high
    assert sum(one["support"] for one in done.classes.values()) == 150
    assert baseline(learnable) == done
    assert "learnable  yes" in repr(done)


def test_the_figures_are_scikit_learns(learnable: Path) -> None:
    """Counted again from the doubts of all records."""
    metrics = pytest.importorskip("sklearn.metrics")
    done = baseline(learnable, doubts=150)
    truth, given = zip(*((doubt.label, doubt.given) for doubt in done.doubts), strict=True)
    assert done.accuracy == pytest.approx(metrics.accuracy_score(truth, given))
    assert done.macro_f1 == pytest.approx(metrics.f1_score(truth, given, average="macro"))


def test_labels_without_reason_are_not_learnable(tmp_path: Path) -> None:
    outcomes = [
        labelled(at, {"id": at, "text": text}, "ab"[at * 7919 % 13 % 2]) for at, text in enumerate(texts(range(80)))
    ]
    done = baseline(made(tmp_path / "run", outcomes))
    assert not done.learnable
    assert "no better than always predicting the most frequent label" in repr(done)


def test_all_records_are_looked_at_where_only_a_sample_is_learned(
    learnable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[room.__module__], "SAMPLE", 90)
    done = baseline(learnable)
    assert (done.n, done.of) == (90, 150)
    assert {int(doubt.key[1:]) for doubt in done.doubts[:4]} == WRONG


def test_the_doubts_are_a_draw_that_is_answered(learnable: Path, tmp_path: Path) -> None:
    file = tmp_path / "doubts.csv"
    told = CliRunner().invoke(app, ["baseline", str(learnable), "--to", str(file)])
    assert told.exit_code == 0, told.output
    with read_reviews(learnable) as reviews:  # type: ignore[union-attr]
        (draw,) = reviews.draws("review")
        items = reviews.items_of(draw.id)
    assert {(int(item.key[1:]), item.probability) for item in items} == {(at, 1.0) for at in WRONG}
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0]) == ["id", "baseline", "probability", "text", "label", "unclear", "note"]
    for row in rows:
        row["label"] = row["baseline"]
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    again = CliRunner().invoke(app, ["baseline", str(learnable), "--to", str(file)])
    assert (again.exit_code, "already exists and may hold answers" in again.output) == (2, True)
    told = CliRunner().invoke(app, ["review", str(learnable), "--from", str(file), "--by", "ann"])
    assert told.exit_code == 0, told.output
    assert len(read_corrections(learnable).by_key) == 4
    assert baseline(learnable).accuracy == 1.0


def test_rare_classes_and_empty_texts_are_told(tmp_path: Path) -> None:
    some = [*texts(range(40)), " ", "once"]
    labels = [*("ab"[at % 2] for at in range(40)), "a", "rare"]
    run = made(tmp_path / "run", [labelled(at, {"id": at, "text": some[at]}, labels[at]) for at in range(42)])
    assert baseline(run).left_out == {"empty_text": 1, "rare_class": 1}
    few = made(tmp_path / "few", [labelled(at, {"id": at, "text": some[at]}, "a") for at in range(9)])
    with pytest.raises(SetupError, match="needs two classes of 5 records each in 'label'; there are 9 records of 1"):
        baseline(few)


def test_a_field_that_no_record_has_is_named(learnable: Path) -> None:
    with pytest.raises(SetupError, match=r"--by: no record has 'lable' \(did you mean 'label'"):
        baseline(learnable, by="lable")
    with pytest.raises(SetupError, match="--text: no record has 'body'"):
        baseline(learnable, text="body")


def test_a_field_with_several_labels_is_refused(tmp_path: Path) -> None:
    outcomes = [
        replace(labelled(at, {"id": at, "text": f"t {at}"}, "a"), label={"tags": ["a", "b"]}) for at in range(9)
    ]
    with pytest.raises(SetupError, match="--by tags: a record has several labels there"):
        baseline(made(tmp_path / "run", outcomes, labels=("tags",)), by="tags")


def test_without_scikit_learn_the_extra_is_named(learnable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'labelpipe\[baseline\]'"):
        baseline(learnable)
