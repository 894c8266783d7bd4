"""The configs of config/ run as they stand, against the built-in endpoint, and give what docs/examples.md says."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Done, Process, Project, read_csv

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "config").glob("*.toml"))
#: those that run elsewhere: `make demo`
ELSEWHERE = {"demo"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Project]:
    """A folder with copies of config/ and data/, as a user has them."""
    for name in ("config", "data"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    yield Project(tmp_path)
    Process.end_all()


def records(name: str) -> list[dict[str, Any]]:
    """The records of a file in data/."""
    path = ROOT / "data" / name
    if path.suffix == ".csv":
        return [dict(row) for row in read_csv(path)]
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(home: Project, name: str, *sets: str) -> list[dict[str, str]]:
    """The rows of a run that must label every record and be proved by its files."""
    options = [word for one in sets for word in ("--set", one)]
    done: Done = home.do("run", f"config/{name}.toml", "--json", *options)
    assert done.code == 0, f"{done.out}\n{done.err}"
    summary = done.json
    assert (summary["rejected"], summary["failed"], summary["pending"]) == (0, 0, 0), summary
    counts = home.verify(f"runs/{name}")
    assert counts["labelled"] == summary["labelled"]
    rows = read_csv(home.folder / "runs" / name / "labels.csv")
    assert rows, "there are rows"
    assert all(row.pop("simulated") == "true" for row in rows), "whoever reads the file is told"
    return rows


def columns(rows: list[dict[str, str]]) -> list[str]:
    return list(rows[0])


def test_sentiment(home: Project) -> None:
    rows = run(home, "sentiment", "model.base_url=rehearsal", "limits.requests_per_minute=100000")
    assert len(rows) == 300
    assert columns(rows) == ["id", "text", "label"]
    assert {row["label"] for row in rows} == {"positive", "negative", "neutral"}


def test_topics_are_lists(home: Project) -> None:
    rows = run(home, "topics", "rehearsal.accuracy=1.0")
    assert columns(rows) == ["id", "text", "topics", "wants_reply"]
    assert [json.loads(row["topics"]) for row in rows] == [record["topics"] for record in records("feedback.jsonl")]
    assert {row["wants_reply"] for row in rows} == {"true", "false"}


def test_entities_are_a_row_each(home: Project) -> None:
    rows = run(home, "entities")
    texts = {record["id"]: record["text"] for record in records("notices.jsonl")}
    assert columns(rows) == ["id", "text", "row_key", "name", "kind"]
    assert len(rows) > len({row["id"] for row in rows}), "some notices have several"
    assert len({row["row_key"] for row in rows}) == len(rows)
    for row in rows:
        assert row["row_key"].rpartition("#")[0] == row["id"]
        assert row["name"]
        assert row["name"] in texts[row["id"]], "the validator holds"
        assert row["kind"] in {"person", "organisation", "place", "date"}


def test_images_of_a_folder(home: Project) -> None:
    rows = run(home, "images")
    assert columns(rows) == ["path", "shape", "colour"]
    found = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "data" / "shapes").iterdir())
    assert sorted(row["path"] for row in rows) == found
    assert {row["shape"] for row in rows} <= {"circle", "square", "triangle", "other"}


def test_calls_that_are_heard(home: Project) -> None:
    rows = run(home, "calls")
    assert columns(rows) == ["id", "file", "matter", "mood", "call_back"]
    assert [row["id"] for row in rows] == [record["id"] for record in records("calls.jsonl")]
    assert {row["call_back"] for row in rows} <= {"true", "false"}


def test_products_from_a_model(home: Project) -> None:
    rows = run(home, "products")
    label = ["category", "material", "colour", "volume_l", "pieces", "care", "complete"]
    assert columns(rows) == ["sku", "title", *label]
    assert [row["sku"] for row in rows] == [record["sku"] for record in records("products.csv")]
    for row in rows:
        assert 1 <= int(row["pieces"]) <= 100
        assert row["complete"] == ("true" if row["material"] and row["colour"] else "false")


def test_router_of_two_tools(home: Project) -> None:
    rows = run(home, "router")
    refund, repair = ["refund_money_cause", "refund_money_share"], ["repair_thing_fault", "repair_thing_part"]
    assert columns(rows) == ["id", "order", "tool", *refund, *repair]
    by_id = {row["id"]: row["tool"] for row in rows}
    assert (by_id["q02"], by_id["q03"]) == ("repair_thing", "refund_money"), "the endpoint goes by the record's words"
    for row in rows:
        mine, other = (refund, repair) if row["tool"] == "refund_money" else (repair, refund)
        assert row[mine[0]]
        assert not any(row[name] for name in other), "a tool that was not called has no values"


def test_rating_with_a_quote(home: Project) -> None:
    rows = run(home, "rating")
    texts = {record["id"]: record["text"] for record in records("reviews.jsonl")}
    assert len(rows) == 60
    assert columns(rows) == ["id", "text", "quote", "reason", "stars"]
    for row in rows:
        assert row["quote"]
        assert row["quote"] in texts[row["id"]]
        assert row["stars"] in "12345"


def test_into_a_database_each_record_once(home: Project) -> None:
    rows = run(home, "into-database")
    assert columns(rows) == ["id", "text", "label", "review_row"]
    with closing(sqlite3.connect(home.folder / "runs" / "reviews.db")) as database:
        saved = database.execute("SELECT rowid, id, label FROM reviews").fetchall()
    assert len(saved) == 300
    assert {(str(number), key, label) for number, key, label in saved} == {
        (row["review_row"], row["id"], row["label"]) for row in rows
    }


# -- what is said of them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_an_example_says_how_it_is_run_and_what_it_is_worth(name: str) -> None:
    text = (ROOT / "config" / f"{name}.toml").read_text(encoding="utf-8")
    head = text.partition("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert re.search(rf"labelpipe run +config/{re.escape(name)}\.toml", head)
    config = tomllib.loads(text)
    assert config["output"].get("dir", f"runs/{name}") == f"runs/{name}"
    if config["model"].get("base_url") == "rehearsal":
        assert "simulated" in head
    else:
        assert "OPENAI_API_KEY" in head


@pytest.mark.parametrize("name", CONFIGS)
def test_every_example_is_run_and_is_on_the_page(name: str) -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert name in ELSEWHERE or f'run(home, "{name}"' in tests
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert f"(../config/{name}.toml)" in page


def test_every_input_of_the_page_is_here_and_small() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    named = {ROOT / path for path in re.findall(r"\(\.\./(data/[\w./-]+)\)", page)}
    assert {path.name for path in named} >= {path.name for path in (ROOT / "data").iterdir() if path.suffix != ".md"}
    media = [path for folder in ("shapes", "calls") for path in (ROOT / "data" / folder).iterdir()]
    assert sum(path.stat().st_size for path in media) < 50_000
