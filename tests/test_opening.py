"""What a run says when it begins: the right number of records, about what they take, and what nobody wrote down."""

from __future__ import annotations

import asyncio
import csv
from pathlib import Path
from typing import Any

import pytest

from pipeline.parts.inputs import sources_of
from pipeline.parts.task import task_of
from pipeline.readers import ReadProgress
from pipeline.records import Record
from pipeline.runner import opening
from pipeline.runner.opening import SAMPLE, count, expected_usage, opening_lines, print_opening
from pipeline.settings import Settings

RECORDS = 700


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, with a CSV whose lines are twice as many as its records."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with Path("in.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text"])
        rows.writerows([number, f"text {number}\nin two lines"] for number in range(RECORDS))


def settings(**tables: Any) -> Settings:
    plain: dict[str, Any] = {
        "input": {"path": "in.csv", "key": "id"},
        "task": {"prompt": "{{ text }}", "labels": {"label": ["good", "bad"]}},
        "model": {"name": "gpt-6-luna", "price": {"input": 1.0, "output": 2.0}},
        "limits": {"requests_per_minute": 500},
        "output": {"dir": "runs/x"},
    }
    return Settings(**{name: {**plain.get(name, {}), **tables.get(name, {})} for name in {**plain, **tables}})


def counted(found: Settings) -> tuple[int | None, list[Record]]:
    reading, first = ReadProgress(), list[Record]()
    asyncio.run(count(sources_of(found), found, reading, first))
    return reading.exact_total, first


def test_records_are_counted_and_not_lines() -> None:
    """By the bytes of the first block 8,000 records were shown as 7,554, and then as 6,574."""
    total, first = counted(settings())
    assert (total, len(first)) == (RECORDS, SAMPLE)
    assert counted(settings(input={"limit": 30}))[0] == 30


def test_what_can_be_read_once_is_not_counted() -> None:
    assert counted(settings(input={"path": "-", "format": "csv"})) == (None, [])


def lines(found: Settings, total: int | None = 1000, done: int = 0) -> list[str]:
    first = counted(found)[1]
    return opening_lines(found, task_of(found), sources_of(found), total, done, first)


def test_what_is_said() -> None:
    first, takes, stop, watch = lines(settings())
    assert first == "labelpipe: 1,000 records of in.csv · gpt-6-luna at api.openai.com"
    assert takes.startswith("  estimate  about $0.1")
    assert takes.endswith("; at least 2 min within the limits")
    assert "Ctrl-C" in stop
    assert "labelpipe status runs/x --watch" in watch
    assert lines(settings(), done=400)[0].startswith("labelpipe: 600 of 1,000 records of in.csv")
    assert lines(settings(), None)[0].startswith("labelpipe: the records of in.csv")
    found = settings()
    given = opening_lines(found, task_of(found), sources_of(found, [{"text": "a"}]), 1, 0, [])
    assert given[0].startswith("labelpipe: 1 record from Python · ")


def test_half_the_price_is_not_promised_of_a_server_that_nobody_knows() -> None:
    model = {"name": "gpt-6-luna", "lane": "flex"}
    unknown = lines(settings(model={**model, "base_url": "http://gateway:1/v1"}))[1]
    known = lines(settings(model=model))[1]
    half, _, whole = unknown.partition(" if the server has a flex tier at half the price, or else $")
    assert known.startswith(half)
    assert float(whole.split(";")[0]) == pytest.approx(2 * float(half.partition("$")[2]), rel=0.05)
    assert "or else" not in known


def test_what_nobody_wrote_down_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server than the config's, and no login of it."""
    monkeypatch.setenv("OPENAI_BASE_URL", "https://user:very-secret@proxy.example.com:8443/v1")
    monkeypatch.setenv("LABELPIPE_LIMITS__CONCURRENCY", "4")
    Path("job.toml").write_text('[input]\npath = "in.csv"\n[task]\nprompt = "{{ text }}"\nlabels.label = ["a", "b"]\n'
                                '[model]\nname = "m"\n[output]\ndir = "x"\n', encoding="utf-8")  # fmt: skip
    said = "\n".join(lines(Settings.load("job.toml")))
    assert "m at proxy.example.com:8443" in said
    assert "estimate  price unknown (set model.price)" in said
    assert "environment LABELPIPE_LIMITS__CONCURRENCY: limits.concurrency" in said
    assert "environment OPENAI_BASE_URL: the address" in said
    assert "very-secret" not in said


@pytest.mark.parametrize("patience_s", [60.0, 0.0])
def test_a_count_that_takes_long_is_said_when_it_is_there(monkeypatch: pytest.MonkeyPatch, patience_s: float) -> None:
    monkeypatch.setattr(opening, "PATIENCE_S", patience_s)
    found, said = settings(), list[str]()
    asyncio.run(print_opening(said.append, found, task_of(found), sources_of(found), ReadProgress(), 0))
    if patience_s:
        (text,) = said
        assert text.startswith("labelpipe: 700 records of in.csv")
        return
    begins, later = said
    assert begins.startswith("labelpipe: the records of in.csv")
    assert later.startswith("labelpipe: 700 records were counted; they take about $")


def test_what_is_marked_for_the_cache_is_counted_at_its_price() -> None:
    first = [Record("a.csv", 0, "k", {"text": "fine"}, 1, 0)]
    told = {}
    for mark in (True, False):
        wanted = settings(
            task={"labels": {"mood": ["good", "bad"]}, "prompt": "{{ text }}", "system": "You help. " * 500},
            model={"name": "gpt-6-luna", "cache_breakpoint": mark},
        )
        used = expected_usage(task_of(wanted), first)
        assert used is not None
        told[mark] = used.cached / used.prompt
    assert told[False] == 0
    assert 0.9 < told[True] < 1
