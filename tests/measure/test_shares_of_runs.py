"""`certify --shares`: shares of classes and pseudo-outcomes, from a run and the blind answers for a draw."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from statistics import mean

import pytest
from measure.answered_runs import answer
from measure.measured_runs import labelled, listed
from typer.testing import CliRunner

from pipeline import certify, class_shares
from pipeline.cli import app
from pipeline.errors import SetupError

KEYS = [f"t{i:03}" for i in range(200)]


def label_of(key: str) -> str:
    return "spam" if int(key[1:]) % 4 == 0 else "other"


def truth_of(key: str) -> str:
    """A fifth of what is called other is spam, all of it in the north."""
    return "spam" if int(key[1:]) % 5 == 0 and int(key[1:]) < 100 else label_of(key)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"id": key, "text": key, "region": "north" if key < "t100" else "south", "said_topic": label_of(key)}
        for key in KEYS
    ]
    return labelled(tmp_path_factory.mktemp("shares"), rows, {"topic": listed("spam", "other")})


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_shares_are_corrected_by_group_and_the_pseudo_outcomes_have_their_mean(run: Path, tmp_path: Path) -> None:
    answer(run, certify(run, error=0.1, seed=1).records, truth_of)
    pseudo = tmp_path / "pseudo.csv"
    words = ["certify", run, "--shares", "--by", "region", "--pseudo", pseudo, "--json"]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    north, south = (next(one for one in facts["groups"] if one["group"] == name) for name in ("north", "south"))
    spam = north["classes"]["spam"]
    assert (spam["raw"], south["classes"]["spam"]["corrected"]) == (0.25, 0.25)
    assert spam["low"] < mean(truth_of(key) == "spam" for key in KEYS[:100]) < spam["high"]
    assert spam["raw"] < spam["corrected"]
    with pseudo.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["key"] for row in rows) == KEYS
    whole = class_shares(run).groups[0]["classes"]["spam"]
    assert mean(float(row["topic=spam"]) for row in rows) == pytest.approx(whole["corrected"])
    assert {row["topic=other"] for row in rows} > {"0", "1"}


def test_what_was_known_before_the_draw_is_certain(run: Path) -> None:
    answer(run, KEYS[:150], truth_of)
    answer(run, certify(run, error=0.01, seed=2).records, truth_of)
    spam = class_shares(run).groups[0]["classes"]["spam"]
    assert spam["corrected"] == pytest.approx(mean(truth_of(key) == "spam" for key in KEYS), abs=0.02)
    assert spam["high"] - spam["low"] < 0.06


def test_only_blind_answers_for_a_random_draw_correct(run: Path, tmp_path: Path) -> None:
    answer(run, certify(run, seed=3).records, truth_of, blind=False)
    shown = class_shares(run)
    assert shown.groups[0]["classes"]["spam"]["corrected"] is None
    assert "nobody has answered a random draw blind" in str(shown)
    with pytest.raises(SetupError, match="needs blind answers for a random draw"):
        class_shares(run, pseudo=tmp_path / "pseudo.csv")
    with pytest.raises(SetupError, match=r"--by place: .* has no such field; it has id, text, region"):
        class_shares(run, by="place")
