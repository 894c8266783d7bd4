"""The same from Python: in a script, in a program with a loop of its own, in a notebook."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from end_to_end.stage import CODES, PATIENCE_S, Endpoint, environment, read_csv, rows

PROGRAM = """
import asyncio, json, sys
from labelpipe import RunOptions, Settings, arun, astatus, averify, run

def settings(out):
    return Settings(
        input={"path": "in.jsonl", "key": "id"},
        task={"prompt": "{{ id }} {{ text }}", "labels": {"label": json.loads(sys.argv[2])}},
        model={"name": "gpt-6-luna", "base_url": sys.argv[1]},
        output={"dir": out},
    )

async def in_a_loop():
    return await arun(settings("loop"), RunOptions(quiet=True))

async def in_a_notebook():
    return run(settings("notebook"), RunOptions(quiet=True))

async def afterwards():
    return (await astatus("script"))["labelled"], (await averify("script")).ok

summaries = [run(settings("script")), asyncio.run(in_a_loop()), asyncio.run(in_a_notebook())]
summaries.append(run(settings("script")))
print(json.dumps([summary.as_dict() for summary in summaries] + [asyncio.run(afterwards())]))
"""


def test_run_in_a_script_in_a_loop_and_in_a_notebook(tmp_path: Path, endpoint: Endpoint) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(15)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, endpoint.base_url, json.dumps(CODES)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    script, loop, notebook, again, afterwards = json.loads(done.stdout)
    for summary in (script, loop, notebook):
        assert (summary["exit_code"], summary["labelled"], summary["calls"]) == (0, 15, 15)
        assert {row["id"] for row in read_csv(tmp_path / summary["run_dir"] / "labels.csv")} == {
            row["id"] for row in rows(15)
        }
    assert (again["labelled"], again["calls"]) == (15, 0), "the same call resumes"
    assert afterwards == [15, True]
    assert endpoint.calls() == 45


def test_what_cannot_start_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import Settings, run
    from pipeline.errors import ConfigError, InputError

    monkeypatch.chdir(tmp_path)
    task = {"prompt": "{{ text }}", "labels": {"label": CODES}}
    with pytest.raises(ConfigError, match=r"limits\.concurrency"):
        Settings(input={"path": "in.jsonl"}, task=task, model={"name": "m"}, limits={"concurrency": 0})
    settings = Settings(input={"path": "in.jsonl"}, task=task, model={"name": "m", "base_url": "http://127.0.0.1:9/v1"})
    with pytest.raises(InputError, match=r"in\.jsonl"):
        run(settings)

    async def in_a_notebook() -> None:
        run(settings)

    with pytest.raises(InputError, match=r"in\.jsonl"):
        asyncio.run(in_a_notebook())
    assert list(tmp_path.iterdir()) == []
