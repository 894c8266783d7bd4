"""What comes out: formats, columns, order; labels from schemas, models and callbacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as parquet
from end_to_end.stage import CODES, Endpoint, Endpoints, Project, project, rows

TOOLS = '''
import asyncio
import pathlib
from typing import Literal

import pydantic


class Judged(pydantic.BaseModel):
    """A Pydantic model as a label."""

    mood: Literal["good", "bad"]
    stars: int = pydantic.Field(ge=1, le=5)
    topics: list[Literal["price", "taste"]]


class Tool:
    """A tool with a callback; async and mended ones follow."""

    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": ["yes", "no"]}},
        "required": ["label"],
        "additionalProperties": False,
    }
    extra_columns = ("length", "said")

    def __call__(self, label, record):
        return {"length": len(record.fields["text"]), "said": label["label"].upper()}


class Later(Tool):
    async def __call__(self, label, record):
        await asyncio.sleep(0.001)
        return {"length": -1, "said": record.key}


class Raises(Tool):
    def __call__(self, label, record):
        if record.fields["id"] in ("r0003", "r0008") and not pathlib.Path("mended").exists():
            raise ValueError(f"no room for {record.key}")
        return {"length": 0, "said": "kept"}
'''


def test_three_formats_in_the_inputs_order_with_chosen_columns(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(latency_ms=20, latency_jitter=1.0, poison={"REFUSE": "refusal"})
    output = {"order": "input", "formats": ["csv", "jsonl", "parquet"], "columns": ["text", "id"]}
    user = project(tmp_path / "project", endpoint.base_url, count=60, output=output)
    given = [{**row, "dropped": 1} for row in rows(60)]
    given[10]["text"] = "REFUSE"
    user.give(given)
    user.run(code=1)
    answered = [line.key for line in endpoint.lines()]
    assert answered != sorted(answered), "the answers came in another order"

    table = user.labels()
    assert list(table[0]) == ["text", "id", "label", "simulated"]
    expected = [row for row in given if row["text"] != "REFUSE"]
    assert [(row["id"], row["text"]) for row in table] == [(row["id"], row["text"]) for row in expected]
    lines = [json.loads(line) for line in (user.run_dir / "labels.jsonl").read_bytes().splitlines()]
    assert [{**line, "simulated": "true"} for line in lines] == table
    assert parquet.read_table(user.run_dir / "labels.parquet").to_pylist() == lines
    assert [(row["key"], row["text"]) for row in user.failed()] == [("r0011", "REFUSE")]
    user.verify()
    endpoints.close(endpoint)


def test_labels_by_schema_file_and_by_pydantic_model(make: Callable[..., Project], endpoint: Endpoint) -> None:
    by_file = make("file", task={"labels": None, "function": {"name": "rate", "parameters": "rating.json"}})
    properties = {"code": {"type": "string", "enum": CODES}, "sure": {"type": "number", "minimum": 0, "maximum": 1}}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    (by_file.folder / "rating.json").write_text(json.dumps(schema), encoding="utf-8")
    by_model = make("model", task={"labels": None, "python": "tools_of_mine:Judged"})
    (by_model.folder / "tools_of_mine.py").write_text(TOOLS, encoding="utf-8")
    started = [one.start("run", "job.toml", "--json") for one in (by_file, by_model)]
    for process in started:
        assert process.wait().expect(0).json["labelled"] == 20

    assert list(by_file.labels()[0]) == ["id", "text", "code", "sure", "simulated"]
    assert all(row["code"] in CODES and 0 <= float(row["sure"]) <= 1 for row in by_file.labels())
    assert list(by_model.labels()[0]) == ["id", "text", "mood", "stars", "topics", "simulated"]
    for row in by_model.labels():
        assert row["mood"] in ("good", "bad")
        assert 1 <= int(row["stars"]) <= 5
        assert set(json.loads(row["topics"])) <= {"price", "taste"}


def test_callbacks_and_the_replay_of_a_mended_one(make: Callable[..., Project], endpoint: Endpoint) -> None:
    made = {name: make(name, task={"labels": None, "python": f"tools:{name}"}) for name in ("Tool", "Later", "Raises")}
    for user in made.values():
        (user.folder / "tools.py").write_text(TOOLS, encoding="utf-8")
    started = {name: user.start("run", "job.toml", "--json") for name, user in made.items()}
    for name, process in started.items():
        process.wait().expect(1 if name == "Raises" else 0)

    for row in made["Tool"].labels():
        assert (row["length"], row["said"]) == (str(len(row["text"])), row["label"].upper())
    assert {(row["length"], row["said"]) for row in made["Later"].labels()} == {("-1", row["id"]) for row in rows(20)}
    broken = made["Raises"]
    assert {(row["key"], row["code"]) for row in broken.failed()} == {
        ("r0003", "callback_error"),
        ("r0008", "callback_error"),
    }
    assert "no room for r0003" in broken.failed()[0]["message"] + broken.failed()[1]["message"]

    calls = endpoint.calls()
    (broken.folder / "mended").touch()
    replayed = broken.do("replay", "job.toml", "--json").expect(0).json
    assert (replayed["labelled"], replayed["rejected"], replayed["simulated"]) == (20, 0, True)
    assert endpoint.calls() == calls, "the answers were kept: no call"
    assert {row["said"] for row in broken.labels()} == {"kept"}
    assert {row["simulated"] for row in broken.labels()} == {"true"}
    assert broken.failed() == []
    broken.verify()
