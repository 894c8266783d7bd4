"""The commands that measure: what they print, and what they say when gold cannot be read."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from measure.answered_runs import answer
from measure.measured_runs import labelled, listed, written
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.show.evaluations import CORRECTED
from pipeline.store import RunDir, open_reviews

TOPICS = ["Gebühr", "Zugang"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"id": f"t{n}", "text": f"text {n}", "said_topic": TOPICS[n % 2]} for n in range(12)]
    return labelled(tmp_path_factory.mktemp("commands"), rows, {"topic": listed(*TOPICS)})


def do(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "60"})


def test_json_is_one_object_with_the_columns(run_dir: Path, tmp_path: Path) -> None:
    gold = written(tmp_path / "gold.csv", "id,topic\n" + "".join(f"t{n},Gebühr\n" for n in range(12)))
    done = do("evaluate", run_dir, "--gold", gold, "--column", "topic", "--json")
    assert done.exit_code == 0, done.output
    topic = json.loads(done.stdout)["columns"]["topic"]
    wanted = {"n", "accuracy", "accuracy_low", "accuracy_high", "kappa", "macro_f1", "weighted_f1", "classes"}
    assert wanted <= topic.keys()
    assert (topic["n"], topic["accuracy"], topic["kappa"]) == (12, 0.5, 0.0)
    assert topic["classes"]["Gebühr"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 12}


def test_tables_fit_a_narrow_terminal(run_dir: Path, tmp_path: Path) -> None:
    gold = written(tmp_path / "gold.csv", "id,topic\n" + "".join(f"t{n},Gebühr\n" for n in range(12)))
    done = do("evaluate", run_dir, "--gold", gold)
    assert done.exit_code == 0, done.output
    tables = [line for line in done.stdout.splitlines() if line.startswith(("  Geb", "  Zug", "  t", "  key"))]
    assert len(tables) == 2 + 2 + 6
    assert max(map(len, tables)) <= 60


def test_gold_in_another_encoding_is_asked_about_with_the_command_that_answers(run_dir: Path, tmp_path: Path) -> None:
    gold = written(tmp_path / "gold.csv", "id;topic\nt0;Gebühr\nt2;Gebühr\nt1;Zugang\n", "cp1252")
    done = do("evaluate", run_dir, "--gold", gold)
    assert done.exit_code == 2
    assert f"To set it for the gold file: labelpipe evaluate {run_dir} --gold {gold} --set " in done.stderr
    words = done.stderr.split("labelpipe evaluate ")[1].split()
    again = do("evaluate", *words, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["columns"]["topic"]["accuracy"] == 1.0
    refused = do("evaluate", run_dir, "--gold", gold, "--set", "limits.concurrency=3")
    assert "--set limits.concurrency: only keys that say how the file is read" in refused.stderr


def changed(run_dir: Path, copy: Path, statement: str) -> Path:
    """A copy of the run, with something changed in its ledger."""
    copy.mkdir()
    for name in ("ledger.db", "manifest.json"):
        (copy / name).write_bytes((run_dir / name).read_bytes())
    with closing(sqlite3.connect(RunDir(copy).ledger)) as connection, connection:
        connection.execute(statement)
    return copy


def test_a_damaged_row_is_a_record_without_a_label(run_dir: Path, tmp_path: Path) -> None:
    copy = changed(run_dir, tmp_path / "copy", "UPDATE outcomes SET label = '{oh' WHERE key = 't3'")
    text = "UPDATE outcomes SET label = CAST(x'7b22746f706963223a22ff227d' AS TEXT) WHERE key = 't1'"
    other = changed(copy, tmp_path / "other", text)
    gold = written(tmp_path / "gold.csv", "id,topic\nt1,Zugang\nt3,Zugang\nt5,Zugang\n")
    topic = json.loads(do("evaluate", copy, "--gold", gold, "--json").stdout)["columns"]["topic"]
    assert (topic["n"], topic["unlabelled"]["codes"]) == (2, {"internal_error": 1})
    done = do("evaluate", other, "--gold", gold, "--json")
    assert done.exit_code == 0, done.output
    topic = json.loads(done.stdout)["columns"]["topic"]
    assert (topic["n"], topic["unlabelled"]["codes"]) == (1, {"internal_error": 2})


def test_the_agreement_of_votes_is_as_good_as_a_confidence(run_dir: Path, tmp_path: Path) -> None:
    votes = "json_set(label, '$.agreement', ordinal % 2, '$.votes', json('[]'), '$.needs_review', json('false'))"
    copy = changed(run_dir, tmp_path / "copy", f"UPDATE outcomes SET label = {votes}")
    gold = written(tmp_path / "gold.csv", "id,topic\n" + "".join(f"t{n},Zugang\n" for n in range(12)))
    topic = json.loads(do("evaluate", copy, "--gold", gold, "--json").stdout)["columns"]["topic"]
    assert [(one["confidence"], one["accuracy"], one["n"]) for one in topic["calibration"]["bins"]] == [
        (0, 0, 6),
        (1, 1, 6),
    ]
    columns = json.loads(do("compare", run_dir, copy, "--json").stdout)["columns"]
    assert columns.keys() == {"topic"}


def test_what_the_figures_are_about_is_told(run_dir: Path, tmp_path: Path) -> None:
    """A run at work has some of its labels; what people have corrected is not what the model said."""
    copy = changed(run_dir, tmp_path / "copy", "DELETE FROM outcomes WHERE key = 't3'")
    (copy / "lock.owner").write_text(json.dumps({"pid": os.getpid()}))
    open_reviews(copy).close()
    gold = written(tmp_path / "gold.csv", "id,topic\nt1,Zugang\nt3,Zugang\n")
    assert CORRECTED not in do("evaluate", copy, "--gold", gold).stdout, "nobody has answered yet"
    answer(copy, ["t1"])
    assert f"a: {CORRECTED}" in do("compare", copy, run_dir).stdout
    done = do("evaluate", copy, "--gold", gold)
    assert done.exit_code == 0, done.output
    for words in (
        "The run is in progress",
        "describe what the model said",
        "1 key of gold has no outcome in this run: t3",
    ):
        assert words in done.stdout


def test_gold_that_chose_the_prompt_is_left_out_by_the_command_too(run_dir: Path, tmp_path: Path) -> None:
    gold = written(tmp_path / "gold.csv", "id,topic\nt0,Zugang\nt1,Zugang\n")
    without = written(tmp_path / "chosen.txt", "t0\n")
    done = do("evaluate", run_dir, "--gold", gold, "--without", without, "--json")
    topic = json.loads(done.stdout)["columns"]["topic"]
    assert (topic["n"], topic["right"], topic["set_aside"]) == (1, 1, 1)
