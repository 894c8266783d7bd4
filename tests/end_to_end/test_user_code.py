"""Code of the user's that does what it should not: the record says so, the run goes on, and the files stay right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from end_to_end.stage import Endpoints, project, rows

MODULE = """
def shout(record):
    record.fields["text"] = record.fields["text"].upper()
    record.fields["tags"].append("mine")
    record.fields.pop("id")


def validate(label, record):
    shout(record)


def call(label, record):
    shout(record)


def interrupts(label, record):
    if record.key == "r0002":
        raise KeyboardInterrupt


async def interrupts_later(label, record):
    interrupts(label, record)
"""

DATABASE = """
from pathlib import Path


def store(label, record):
    if record.key > "r0060" and not Path("mended").exists():
        raise ConnectionError("the database is away")
    return {"stored": record.key}


store.extra_columns = ("stored",)
"""


def test_what_user_code_does_to_a_record_is_not_in_the_files(tmp_path: Path, endpoints: Endpoints) -> None:
    """verify cannot see it: it compares the files with the ledger, which has the same object's fields."""
    task = {"callback": "mine:call", "validators": [{"python": "mine:validate"}]}
    user = project(tmp_path / "project", endpoints.open().base_url, count=5, task=task)
    (user.folder / "mine.py").write_text(MODULE, encoding="utf-8")
    given = [{**row, "tags": ["a"]} for row in rows(5)]
    user.give(given)
    user.run()
    user.verify()
    found = sorted((row["id"], row["text"], row["tags"]) for row in user.labels())
    assert found == [(row["id"], row["text"], '["a"]') for row in given]


@pytest.mark.parametrize("name", ["interrupts", "interrupts_later"])
def test_a_keyboard_interrupt_of_a_callback_is_a_callback_error(
    tmp_path: Path, endpoints: Endpoints, name: str
) -> None:
    """It used to end the run, and every later session of it at the same record."""
    user = project(tmp_path / "project", endpoints.open().base_url, count=5, task={"callback": f"mine:{name}"})
    (user.folder / "mine.py").write_text(MODULE, encoding="utf-8")
    done = user.do("run", "job.toml", "--json").expect(1)
    assert (done.json["labelled"], done.json["rejected"]) == (4, 1)
    assert "never awaited" not in done.err
    [row] = user.failed()
    assert (row["key"], row["code"], row["message"].split()[0]) == ("r0002", "callback_error", "KeyboardInterrupt")
    user.verify()


def test_a_column_called_simulated_is_refused_where_labels_are_simulated(tmp_path: Path, endpoints: Endpoints) -> None:
    """The mark of a rehearsal would take its place in every row."""
    user = project(tmp_path / "project", "rehearsal", count=3, task={"labels": {"simulated": ["yes", "no"]}})
    done = user.do("run", "job.toml").expect(2)
    assert "the task has a column 'simulated', which marks the rows of a rehearsal" in done.err
    assert not user.run_dir.exists()


def test_a_callback_whose_database_is_away_stops_the_run_and_a_replay_mends_it(
    tmp_path: Path, endpoints: Endpoints
) -> None:
    """All that was left was paid for and rejected. The answers are kept: none is paid for twice."""
    endpoint = endpoints.open()
    user = project(tmp_path / "project", endpoint.base_url, count=260, task={"callback": "mine:store"})
    (user.folder / "mine.py").write_text(DATABASE, encoding="utf-8")
    done = user.do("run", "job.toml").expect(3)
    assert "none of the last 100 records got a label, for one reason: callback_error" in done.err
    assert "ConnectionError: the database is away" in done.err
    assert "fix the callback, then: labelpipe replay job.toml, and: labelpipe run job.toml" in done.err
    summary = json.loads((user.run_dir / "summary.json").read_bytes())
    assert (summary["labelled"], 100 <= summary["rejected"] < 200, summary["pending"] > 0) == (60, True, True)
    calls = endpoint.calls()
    assert calls == summary["labelled"] + summary["rejected"]

    (user.folder / "mended").touch()
    user.do("replay", "job.toml", "--json")
    assert {row["stored"] for row in user.labels()} == {row["id"] for row in user.labels()}
    assert (len(user.labels()), user.failed(), endpoint.calls()) == (calls, [], calls)
    assert user.run()["calls"] == 260 - calls
    assert user.verify()["labelled"] == 260
