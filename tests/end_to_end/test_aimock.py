"""Labelled through a server of others, npm's @copilotkit/aimock, so that we do not only agree with ourselves."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import CODES, PATIENCE_S, project

AIMOCK = Path(__file__).parents[1] / "aimock"
KEY = "sk-aimock-0123456789abcdef"


@pytest.fixture
def aimock() -> Iterator[str]:
    """The address of an aimock server."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here: no independent server to label through")
    if not (AIMOCK / "node_modules" / "@copilotkit" / "aimock").exists():
        pytest.skip("tests/aimock/node_modules is not here: run `npm install` in tests/aimock, or `make test`")
    command = [node, "serve.mjs"]
    with subprocess.Popen(command, cwd=AIMOCK, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.communicate(timeout=PATIENCE_S)


def journal(url: str, path: str = "/v1/chat/completions") -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/__aimock/journal?path={path}&limit=1000", timeout=10) as answer:
        entries: list[dict[str, Any]] = json.loads(answer.read())
    return entries


def test_fifty_records_through_a_foreign_server(tmp_path: Path, aimock: str) -> None:
    user = project(tmp_path / "project", f"{aimock}/v1", count=50)
    summary = user.do("run", "job.toml", "--json", env={"OPENAI_API_KEY": KEY}).expect(0).json
    assert (summary["labelled"], summary["refusals"], summary["simulated"]) == (50, 3, False)
    assert summary["retries"] == {"unavailable": 1, "invalid_label": 1, "invalid_json": 1, "no_tool_call": 1}
    assert {row["id"]: row["label"] for row in user.labels()} == {
        f"r{number:04}": CODES[number % len(CODES)] for number in range(1, 51)
    }
    assert user.verify()["pending"] == 0

    entries = journal(aimock)
    assert Counter(entry["response"]["status"] for entry in entries) == {200: 53, 429: 3, 500: 1}
    assert summary["calls"] == len(entries)
    asked = Counter(entry["body"]["messages"][0]["content"].split(" ")[0] for entry in entries)
    again = {"r0010", "r0011", "r0012", "r0020", "r0025", "r0030", "r0035"}
    assert asked == {f"r{number:04}": 1 + (f"r{number:04}" in again) for number in range(1, 51)}
    for entry in entries:
        function = entry["body"]["tools"][0]["function"]
        assert function["strict"] is True
        assert function["parameters"]["properties"]["label"]["enum"] == CODES
        assert entry["body"]["tool_choice"] == "required", "what all servers but OpenAI and Azure are asked"
        assert KEY not in json.dumps(entry), "aimock keeps keys out of its journal"

    for key in ("r0010", "r0011", "r0012"):
        refused, answered = (
            entry for entry in entries if entry["body"]["messages"][0]["content"].startswith(f"{key} ")
        )
        assert (refused["response"]["status"], answered["response"]["status"]) == (429, 200)
        assert answered["timestamp"] - refused["timestamp"] >= 990, "one second was asked for"


def test_the_same_through_its_responses_api(tmp_path: Path, aimock: str) -> None:
    """It reads our requests and writes its answers by code that is not ours."""
    user = project(tmp_path / "project", f"{aimock}/v1", count=50)
    user.configure(model={"api": "responses", "parameters": {"max_completion_tokens": 200}})
    summary = user.do("run", "job.toml", "--json", env={"OPENAI_API_KEY": KEY}).expect(0).json
    assert (summary["labelled"], summary["refusals"], summary["simulated"]) == (50, 3, False)
    assert summary["retries"] == {"unavailable": 1, "invalid_label": 1, "invalid_json": 1, "no_tool_call": 1}
    assert {row["id"]: row["label"] for row in user.labels()} == {
        f"r{number:04}": CODES[number % len(CODES)] for number in range(1, 51)
    }
    assert user.verify()["pending"] == 0
    assert len(journal(aimock, "/v1/responses")) == summary["calls"] == 57
    assert not journal(aimock)


BATCHES = {"poll_s": 0.05, "first_part": 3, "part_records": 4}


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_the_same_through_its_batches(tmp_path: Path, aimock: str, api: str) -> None:
    """Its files, batches and output files are not ours; each answer in them is words, which the repair then mends."""
    user = project(tmp_path / "project", f"{aimock}/v1", count=9, batch=BATCHES)
    user.configure(model={"lane": "batch", "api": api, "parameters": {"max_completion_tokens": 200}})
    key = {"OPENAI_API_KEY": KEY}
    summary = user.do("run", "job.toml", "--json", env=key).expect(0).json
    assert (summary["labelled"], summary["calls"], summary["retries"]) == (9, 9, {"no_tool_call": 9})
    found = summary["lanes"]["batch"]
    assert (found["batches"], found["records"], found["answers"]) == (3, 9, 9)
    assert user.verify()["pending"] == 0
    assert {row["id"]: row["label"] for row in user.labels()} == {
        f"r{number:04}": CODES[number % len(CODES)] for number in range(1, 10)
    }


def test_batches_of_its_that_fail_or_are_cancelled(tmp_path: Path, aimock: str) -> None:
    key = {"OPENAI_API_KEY": KEY}
    user = project(tmp_path / "failed", f"{aimock}/v1", count=3, batch=BATCHES)
    user.configure(model={"lane": "batch", "headers": {"X-AIMock-Batch-Outcome": "failed"}})
    told = user.do("run", "job.toml", env=key)
    assert (told.code, "the server refuses the batch: Mock batch failure" in told.err) == (2, True)
    user = project(tmp_path / "cancelled", f"{aimock}/v1", count=3, batch=BATCHES)
    user.configure(model={"lane": "batch"})
    user.do("run", "job.toml", "--no-wait", env=key).expect(3)
    told = user.do("cancel", "run", env=key).expect(0).err
    assert "1 batch cancelled; 0 answers of them collected" in told
    assert "records of" not in told, "nothing begins"
    assert user.do("run", "job.toml", "--json", env=key).expect(0).json["labelled"] == 3
