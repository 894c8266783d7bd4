"""Integers of any length, from the answer to every file, and to the callback: not a digit is lost on the way."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from end_to_end.stage import Project, project
from end_to_end.talks import Talker, outcomes

NUMBERS = [2**70, -(2**63) - 1, 2**64, 2**63, 18446744073709551615, -(10**40), 7]
PARAMETERS = {
    "type": "object",
    "required": ["n", "all"],
    "properties": {
        "n": {"type": "integer", "maximum": 2**70},
        "all": {"type": "array", "items": {"type": "integer"}},
    },
}
MODULE = """
import pydantic


class Number(pydantic.BaseModel):
    n: int
    all: list[int]


def seen(label, record):
    return {"text": str(label["n"]), "next": label["n"] + 1, "deep": {"all": label["all"]}}


def counted(label, record):
    assert label["n"] in label["all"], f"{label['n']} is not in {label['all']}"


def set_number(n: int, all: list[int], record):
    return {"text": str(n), "next": n + 1, "deep": {"all": all}}
"""


def number_of(key: str) -> int:
    return NUMBERS[int(key[1:]) - 1]


def by_script(key: str, turn: int, messages: list[dict[str, Any]]) -> Any:
    name = "f"
    return [(name, {"n": number_of(key), "all": NUMBERS})]


def labelling(folder: Path, base_url: str, form: str) -> Project:
    folder.mkdir()
    (folder / "mine.py").write_text(MODULE, encoding="utf-8")
    tasks: dict[str, dict[str, Any]] = {
        "function": {"function": {"name": "f", "parameters": PARAMETERS}, "callback": "mine:seen"},
        "model": {"python": "mine:Number", "name": "f", "callback": "mine:seen"},
        "python": {"python": "mine:set_number", "name": "f"},
    }
    return project(
        folder,
        base_url,
        count=len(NUMBERS),
        task={"labels": None, "prompt": "{{ id }} f", "validators": [{"python": "mine:counted"}], **tasks[form]},
        output={"formats": ["csv", "jsonl", "parquet", "sql"], "sql": {"url": "sqlite:///labels.db", "table": "t"}},
    )


@pytest.mark.parametrize("form", ["function", "model", "python"])
def test_not_a_digit_is_lost(tmp_path: Path, form: str) -> None:
    with Talker(by_script) as talker:
        user = labelling(tmp_path / "project", talker.base_url, form)
        user.run()
        user.do("replay", "job.toml").expect(0)
    user.verify()
    wanted = {
        f"r{place:04}": {"n": number, "all": NUMBERS, "text": str(number), "next": number + 1, "deep": {"all": NUMBERS}}
        for place, number in enumerate(NUMBERS, start=1)
    }
    assert {key: outcome.label for key, outcome in outcomes(user).items()} == wanted
    for row in user.labels():
        own = wanted[row["id"]]
        assert (row["n"], row["text"], row["next"]) == (str(own["n"]), str(own["n"]), str(own["next"]))
        assert row["deep"] == json.dumps(own["deep"], separators=(",", ":"))
    lines = [json.loads(line) for line in (user.run_dir / "labels.jsonl").read_bytes().splitlines()]
    assert {line["id"]: {name: line[name] for name in own} for line in lines} == wanted
    # A column with one integer beyond 64 bits is a column of texts.
    table = parquet.read_table(user.run_dir / "labels.parquet").to_pylist()
    assert {row["id"]: (row["n"], row["next"]) for row in table} == {
        key: (str(own["n"]), str(own["next"])) for key, own in wanted.items()
    }
    with closing(sqlite3.connect(user.folder / "labels.db")) as database:
        assert dict(database.execute("SELECT id, n FROM t")) == {key: str(own["n"]) for key, own in wanted.items()}


def test_a_number_that_nothing_can_hold_is_asked_again_and_then_refused(tmp_path: Path) -> None:
    with Talker(lambda *_: [("f", '{"n": ' + "9" * 400 + ', "all": []}')]) as talker:
        user = labelling(tmp_path / "project", talker.base_url, "function")
        user.run("--limit", "1", code=1)
    [row] = user.failed()
    assert row["code"] == "invalid_json"
    assert "number is infinity" in row["message"]
