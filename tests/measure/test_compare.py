"""Two runs of the same records: where they differ, which is right more often, and what each took."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from measure.measured_runs import labelled, listed, written
from oracles import metrics, stats
from typer.testing import CliRunner

from pipeline import compare
from pipeline.cli import app
from pipeline.errors import SetupError

GOLD = ["a", "b", "c", "a", "b", "c", "a", "b", "c", "a", "b", "c"]
ONE = ["a", "b", "c", "a", "b", "c", "b", "c", "a", "b", "c", "a"]
OTHER = ["a", "b", "c", "a", "b", "c", "a", "b", "c", "b", "a", "a"]
FIELDS = {
    "topic": listed("a", "b", "c"),
    "tags": {"type": "array", "items": listed("x", "y")},
    "size": {"type": "number"},
    "reason": {"type": "string"},
}


def said(topics: list[str], **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{n}",
            "text": f"text {n}",
            "said_topic": topic,
            "said_tags": ["x", "y"] if topic == "a" else ["x"],
            "said_size": n + (topic == "b"),
            "said_reason": f"because {topic} {n} {more}",
            "gold_topic": GOLD[n],
        }
        for n, topic in enumerate(topics)
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs; the first has a record more, and one of the second has no text."""
    one, other = said([*ONE]), said([*OTHER])
    one.append({**one[0], "id": "more"})
    one.append({**one[0], "id": "blank"})
    other.append({**one[0], "id": "blank", "text": ""})
    first = labelled(tmp_path_factory.mktemp("one"), one, FIELDS, name="one")
    second = labelled(tmp_path_factory.mktemp("other"), other, FIELDS, name="other", system="Be exact.")
    return first, second


def test_where_they_agree_and_what_became_what(runs: tuple[Path, Path]) -> None:
    found = compare(*runs)
    assert found["records"] == {"both": 12, "only_a": 1, "only_b": 0, "neither": 0, "not_in_b": 1, "not_in_a": 0}
    assert found["differ_in"] == [{"part": "system", "a": None, "b": "Be exact."}]
    topic = found.columns["topic"]
    assert (topic["n"], topic["same"]) == (12, sum(one == other for one, other in zip(ONE, OTHER, strict=True)))
    assert topic["kappa"] == pytest.approx(metrics.cohen_kappa_score(ONE, OTHER))
    assert topic["changes"] == {"b": {"a": 1}, "c": {"b": 1, "a": 1}, "a": {"c": 1}}
    tags = found.columns["tags"]
    assert (tags["added"], tags["dropped"]) == ({"y": 2}, {"y": 1})
    assert found.columns["size"]["mean_difference"] == pytest.approx(2 / 12)
    assert found["gold"] is None
    told = repr(found)
    for words in ("12 records have a label in both; 1 only in a, 1 of a are not in b", "c -> b: 1", "SIMULATED"):
        assert words in told
    assert 'They differ in system (null -> "Be exact.")' in told


@pytest.mark.parametrize("from_input", [False, True])
def test_which_is_right_more_often(runs: tuple[Path, Path], tmp_path: Path, from_input: bool) -> None:
    text = "id,topic\n" + "".join(f"r{n},{topic}\n" for n, topic in enumerate(GOLD)) + "blank,a\nnobody,a\n"
    where: dict[str, Any] = {"column": "gold_topic"} if from_input else {"gold": written(tmp_path / "g.csv", text)}
    found = compare(*runs, **where).columns["topic"]["gold"]
    pairs = [(one == gold, other == gold) for one, other, gold in zip(ONE, OTHER, GOLD, strict=True)]
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    assert (found["n"], found["only_a_right"], found["only_b_right"]) == (12, only_a, only_b)
    assert (found["both_right"], found["both_wrong"]) == (pairs.count((True, True)), pairs.count((False, False)))
    assert found["p_value"] == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert found["a"]["accuracy"] == pytest.approx(metrics.accuracy_score(GOLD, ONE))
    assert found["b"]["macro_f1"] == pytest.approx(metrics.f1_score(GOLD, OTHER, average="macro"))
    assert found["unlabelled"] == (2 if from_input else 1), "of `more` the second has nothing"


def test_the_records_that_differ_are_a_file(runs: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "differ.csv"
    found = compare(*runs, differences=path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["key", "text", "one", "other", "field"]
    assert {row["field"] for row in rows} == {"topic", "tags", "size"}, "texts differ nearly always"
    topics = [(row["key"], row["one"], row["other"]) for row in rows if row["field"] == "topic"]
    assert topics == [
        (f"r{n}", one, other) for n, (one, other) in enumerate(zip(ONE, OTHER, strict=True)) if one != other
    ]
    assert found["differences"]["n"] == len(rows)
    text = "id,topic\n" + "".join(f"r{n},{one}\n" for n, one in enumerate(GOLD) if n != 8)
    compare(*runs, written(tmp_path / "gold.csv", text), differences=path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["key", "text", "one", "other", "gold", "field"]
    golds = [(row["key"], row["gold"]) for row in rows if row["field"] == "topic"]
    assert golds == [(key, "" if key == "r8" else GOLD[int(key[1:])]) for key, _, _ in topics]
    assert compare(*runs, field="topic").columns.keys() == {"topic"}


def test_the_command(runs: tuple[Path, Path], tmp_path: Path) -> None:
    gold = written(tmp_path / "gold.csv", "id,topic\n" + "".join(f"r{n},{one}\n" for n, one in enumerate(GOLD)))
    words = ["compare", *map(str, runs), "--gold", str(gold)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "McNemar's exact test: p = 0.25: the difference may be chance" in done.stdout
    figures = done.stdout.split("12 records with gold\n")[1].splitlines()[:3]
    assert figures[0].endswith("kappa  macro F1")
    assert len({len(line) for line in figures}) == 1
    assert len(figures[0]) < 50, "with the mean error of ordered labels they fit sixty columns"
    facts = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [run["labelled"] for run in facts["runs"]] == [14, 12]
    assert facts["runs"][0]["cost_per_record_usd"] > 0


def test_runs_that_cannot_be_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is named twice"):
        compare(runs[0], runs[0])
    others = [{**row, "id": f"x{row['id']}"} for row in said(ONE)]
    with pytest.raises(SetupError, match="have no record in common that both have labelled"):
        compare(runs[0], labelled(tmp_path, others, FIELDS))
    rows = [{"id": "r0", "text": "t", "said_mood": "good"}]
    with pytest.raises(SetupError, match=r"no label field in common: .* has topic, tags, size, reason, .* has mood"):
        compare(runs[0], labelled(tmp_path, rows, {"mood": listed("good", "bad")}, name="mood"))


def test_label_fields_of_one_run_only_are_named(runs: tuple[Path, Path], tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "text": "t", "said_mood": "good", "said_topic": topic} for n, topic in ((0, "b"), (1, "a"))]
    other = labelled(tmp_path, rows, {"mood": listed("good", "bad"), "topic": listed("a", "b", "c")}, name="mood")
    found = compare(runs[0], other, written(tmp_path / "g.csv", "id,topic\nr0,a\nr1,a\n"))
    assert found["fields_only"] == {"a": ["tags", "size", "reason"], "b": ["mood"]}
    assert "Only a has the label tags, size, reason.\nOnly b has the label mood.\n" in repr(found)
    assert "p = 1: both are right equally often" in repr(found)
    with pytest.raises(SetupError, match=r"gold is about tags, and .* has no such label field"):
        compare(runs[0], other, written(tmp_path / "g.csv", "id,tags\nr0,x\n"))
