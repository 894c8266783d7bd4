"""Inputs as people have them, through a whole run: all rows are there, and what was chosen is said."""

from __future__ import annotations

import asyncio
import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Project, wait_until

from pipeline import RunOptions, RunSummary, Settings, run, verify
from pipeline.errors import ConfigError, InputError
from pipeline.records import Answer, Request, Response, ToolCall, Usage

GOOD = Answer((ToolCall("c", "set_label", '{"label": "good"}'),))


async def provider(_: Request) -> Response:
    return Response(GOOD, Usage(1, 1), "m", "req")


def settings(folder: Path, path: str, run_dir: str = "run", **more: Any) -> Settings:
    return Settings(
        input={"path": str(folder / path), **more},
        task={"prompt": "{{ text }}", "labels": {"label": ["good", "bad"]}},
        model={"name": "m", "base_url": "http://127.0.0.1:9/v1"},
        output={"dir": str(folder / run_dir), "formats": ["csv", "jsonl"]},
    )


def labelled(asked: Settings) -> tuple[RunSummary, list[dict[str, str]]]:
    summary = run(asked, RunOptions(quiet=True, provider=provider))
    with (Path(asked.output.dir) / "labels.csv").open(encoding="utf-8", newline="") as file:
        return summary, list(csv.DictReader(file))


def test_a_glob_over_the_run_folder_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "r.csv").write_text("id,text\na,one\nb,two\n")
    asked = settings(tmp_path, "data/**/*.csv", "data/out")
    for _ in range(3):
        summary, rows = labelled(asked)
        assert (summary.ended, [row["text"] for row in rows]) == ("complete", ["one", "two"])
    assert asyncio.run(verify(tmp_path / "data" / "out")).ok
    with pytest.raises(InputError, match="this run's own folder"):
        run(settings(tmp_path, "data/out/labels.csv", "data/out"), RunOptions(quiet=True, provider=provider))


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_an_own_output_is_an_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "in.csv").write_text("id;text;n\na;one, two;1,5\nb;three;2,5\n")
    labelled(settings(tmp_path, "in.csv"))
    summary, rows = labelled(settings(tmp_path, f"run/{name}", "second"))
    assert summary.labelled == 2
    assert rows[0] == {"id": "a", "text": "one, two", "n": "1,5", "input_label": "good", "label": "good"}


def test_what_is_not_certain_is_asked_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes("id;text\n1;schön\n2;größer\n".encode("cp1252"))
    with pytest.raises(InputError, match=r'set input\.encoding = "cp1252"'):
        labelled(settings(tmp_path, "in.csv"))
    assert not (tmp_path / "run").exists()
    _, rows = labelled(settings(tmp_path, "in.csv", encoding="cp1252"))
    assert [row["text"] for row in rows] == ["schön", "größer"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"delimiter": ";;"}, 'expected one character, like ";", or "tab"'),
        ({"quote": "no"}, 'or "none"'),
        ({"header": ["a", "a"]}, "occurs twice"),
        ({"header": []}, "expected the columns' names"),
        ({"format": "jsonl", "delimiter": ";"}, "it is for csv and tsv: leave it out"),
        ({"delimiter": "'", "quote": "'"}, "they have to differ"),
    ],
)
def test_dialects_that_cannot_be_are_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path, "in.csv", **more)
    assert message in str(caught.value)
    told = settings(tmp_path, "in.csv", delimiter="tab", quote="none", header=["a", "b"]).input
    assert (told.delimiter, told.quote, told.header) == ("\t", "none", ["a", "b"])


def test_the_first_ctrl_c_ends_the_waiting_for_a_pipe(make: Callable[..., Project]) -> None:
    project = make(input={"path": "in.fifo", "format": "csv"})
    os.mkfifo(project.folder / "in.fifo")
    process = project.start("run", "job.toml")
    wait_until((project.run_dir / "live.json").exists)
    process.signal(signal.SIGINT)
    done = process.wait()
    assert done.code == 130
    assert "Interrupted" in done.err


def test_examples_are_read_as_records_are(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("id,text\na,one\n")
    (tmp_path / "ex.jsonl").write_bytes(
        b'\xef\xbb\xbf{"text": "cut \\ud83d", "label": {"label":"good"}, "n":NaN}\r\n\n'
    )
    sent: list[str] = []

    async def seeing(request: Request) -> Response:
        sent.append(str(request))
        return Response(GOOD, Usage(1, 1), "m", "req")

    asked = settings(tmp_path, "r.csv")
    task = asked.task.model_copy(update={"examples_file": str(tmp_path / "ex.jsonl")})
    asked = asked.model_copy(update={"task": task})
    assert run(asked, RunOptions(quiet=True, provider=seeing)).labelled == 1
    assert "cut \ufffd" in sent[0]
    (tmp_path / "ex.jsonl").write_bytes(b'\n{"text": "\xff"}\n')
    with pytest.raises(ConfigError, match=r":2: task\.examples_file: not JSON"):
        run(asked, RunOptions(quiet=True, provider=seeing))
