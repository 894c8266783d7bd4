"""Every form of [task.labels] from the config to the CSV, with simulated labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pipeline import Settings, check, run, verify

CONFIG = """\
[input]
path = "in.csv"
key = "id"
[task]
prompt = "{{ text }}"
[task.labels]
reason = "text"
topics = { any_of = ["billing", "login", "other"] }
confidence = "0..1"
score = "-2..2"
tone = "tones.csv"
[task.labels.topic]
billing = "asks about an invoice or a charge"
login = "cannot get in"
other = ""
[model]
name = "m"
base_url = "rehearsal"
[rehearsal]
gold = { topic = "topic", topics = "topics" }
accuracy = 1
latency_ms = 1
[output]
dir = "run"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [[f"r{at}", f"text {at}", "login", json.dumps(["other", "billing"])] for at in range(12)]
    with Path("in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text", "topic", "topics"], *rows])
    Path("tones.csv").write_text("label,description\npolite,says please\nrude,\n")
    Path("job.toml").write_text(CONFIG)
    return Path("job.toml")


def test_each_form_has_its_column(config: Path) -> None:
    assert run(Settings.load(config)).labelled == 12
    assert verify("run").ok
    with Path("run/labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row["topic"] == "login"
        assert json.loads(row["topics"]) == ["billing", "other"], "as the config orders them"
        assert row["reason"]
        assert 0 <= float(row["confidence"]) <= 1
        assert int(row["score"]) in range(-2, 3)
        assert row["tone"] in ("polite", "rude")


def test_a_check_says_what_the_fields_hold_and_which_labels_have_no_meaning(config: Path) -> None:
    found = {one.name: one for one in check(Settings.load(config), online=False)}
    assert found["task"].detail == (
        "the label columns are reason (text), topics (any of billing, login, other), confidence (0 to 1), "
        "score (-2 to 2), "
        "tone (polite, rude), topic (billing, login, other)"
    )
    assert (found["meanings"].ok, found["meanings"].detail) == (
        None,
        "no meaning is given for some labels of a field: tone: rude; topic: other",
    )
    config.write_text(CONFIG.replace("tones.csv", "topes.csv"))
    assert "task.labels.tone: topes.csv is not there" in check(Settings.load(config), online=False)[0].detail


def test_a_changed_meaning_asks_before_it_spends(config: Path) -> None:
    run(Settings.load(config))
    Path("tones.csv").rename("tones.tsv")
    Path("tones.tsv").write_text("label\tdescription\npolite\tsays please\nrude\t\n")
    config.write_text(CONFIG.replace("tones.csv", "tones.tsv"))
    assert run(Settings.load(config)).session_records == 0, "only the name of the file has changed"
    Path("tones.tsv").write_text("label\tdescription\npolite\tsays thank you\nrude\t\n")
    with pytest.raises(Exception, match="made with other settings"):
        run(Settings.load(config))
