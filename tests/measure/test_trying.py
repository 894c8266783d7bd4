"""A config tried on some records of an old run: what changes, and that no answer is paid for twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from measure.measured_runs import labelled, listed
from typer.testing import CliRunner

from pipeline import RunOptions, Settings, run, try_config, verify
from pipeline.cli import app
from pipeline.errors import ChangedError, SetupError

TOPICS = ["a", "b", "c"]
COUNT = 40


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run of forty records, one of which has no label."""
    rows = [
        {"id": f"r{n}", "text": f"text {n}" if n else "", "said_topic": "a", "then_topic": TOPICS[n % 3]}
        for n in range(COUNT)
    ]
    return labelled(tmp_path, rows, {"topic": listed(*TOPICS)}, name="old")


def config(folder: Path, name: str = "new", prompt: str = "Say {{ text }}", **tables: Any) -> Settings:
    given: dict[str, Any] = {
        "input": {"path": str(folder / "in.jsonl"), "key": "id"},
        "task": {"prompt": prompt, "labels": {"topic": TOPICS}},
        "model": {"name": "gpt-6-luna", "base_url": "rehearsal"},
        "rehearsal": {"latency_ms": 0, "accuracy": 1.0, "gold": "then_topic"},
        "output": {"dir": str(folder / name)},
    }
    return Settings(**{**given, **tables})


def test_some_records_are_labelled_and_compared_and_paid_for_once(old: Path, tmp_path: Path) -> None:
    settings = config(tmp_path)
    found = try_config(settings, old, 12, quiet=True)
    assert found["tried"] | {"next_step": ""} == {
        "drawn": 12,
        "seed": 0,
        "known_before": 0,
        "calls": 12,
        "ended": "complete",
        "reason": "",
        "exit_code": 0,
        "next_step": "",
    }
    assert found["records"]["both"] == 12
    drawn = [json.loads(line)["id"] for line in (tmp_path / "new" / "try.jsonl").read_text().splitlines()]
    changed = [key for key in drawn if int(key[1:]) % 3]
    assert found["differences"]["n"] == len(changed)
    assert found.columns["topic"]["same"] == 12 - len(changed)
    assert "r0" not in drawn, "it has no label in the old run"
    assert verify(tmp_path / "new").ok

    more = try_config(settings, old, 15, quiet=True)
    assert (more["tried"]["known_before"], more["tried"]["calls"]) == (12, 3), "a larger trial holds the smaller one"
    assert "15 records, 12 done before · 3 calls" in repr(more)
    other = try_config(config(tmp_path, "other"), old, 12, seed=1, quiet=True)
    assert sum(row["key"] in drawn for row in other["differences"]["first"]) < len(other["differences"]["first"])

    summary = run(config(tmp_path), RunOptions(quiet=True))
    assert (summary.labelled, summary.calls) == (COUNT - 1, COUNT - 1 - 15)
    assert verify(tmp_path / "new").ok
    last = try_config(settings, old, 12, quiet=True)
    assert (last["records"]["both"], last["records"]["not_in_a"]) == (12, 0), "the others were not looked at"


def test_the_old_run_is_not_touched_where_the_config_would_write_into_it(old: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in old.iterdir() if path.name in ("labels.csv", "manifest.json")}
    found = try_config(config(tmp_path, "old"), old, 3, quiet=True)
    assert found["runs"][1]["run_dir"] == str(tmp_path / "old-try")
    assert {name: (old / name).read_bytes() for name in before} == before


def test_the_next_prompt_is_tried_with_relabel(old: Path, tmp_path: Path) -> None:
    try_config(config(tmp_path), old, 3, quiet=True)
    with pytest.raises(ChangedError, match=r"(?s)prompt: .*labelpipe try \.\.\. --relabel"):
        try_config(config(tmp_path, prompt="Tell {{ text }}"), old, 3, quiet=True)
    found = try_config(config(tmp_path, prompt="Tell {{ text }}"), old, 3, relabel=True, quiet=True)
    assert found["tried"]["calls"] == 3
    assert [one["part"] for one in found["differ_in"] if one["part"] == "prompt"] == ["prompt"]


def test_what_cannot_be_tried_is_refused_before_a_call(old: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"names its records by 'id', and the config by their place: set input.key"):
        try_config(config(tmp_path, input={"path": str(tmp_path / "in.jsonl")}), old, 3, quiet=True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "else.jsonl").write_text('{"id": "x", "text": "t"}\n')
    with pytest.raises(SetupError, match=r"nothing can be compared: is it the input of .*none of the records that"):
        try_config(config(tmp_path, input={"path": str(tmp_path / "else.jsonl"), "key": "id"}), old, 3, quiet=True)


def test_the_command_says_what_it_does_and_what_comes_next(old: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f'[input]\npath = "{tmp_path / "in.jsonl"}"\nkey = "id"\n[task]\nprompt = "Say {{{{ text }}}}"\n'
        f'[task.labels]\ntopic = ["a", "b", "c"]\n[model]\nname = "gpt-6-luna"\nbase_url = "rehearsal"\n'
        f'[rehearsal]\nlatency_ms = 0\ngold = "then_topic"\n[output]\ndir = "{old}"\n'
    )
    done = CliRunner().invoke(app, ["try", str(job), "--against", str(old), "-n", "5"])
    assert done.exit_code == 0, done.output
    assert f"labels 5 records of {old} with gpt-6-luna, 0 of them done before" in done.stderr
    assert "5 records have a label in both" in done.stdout
    next_step = f"next        to label the rest: labelpipe run {job} --output {old}-try"
    assert next_step in done.stdout
    words = next_step.split("labelpipe ")[1].split()
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["calls"] == COUNT - 1 - 5
    missing = CliRunner().invoke(app, ["try", str(job)])
    assert (missing.exit_code, "--against" in missing.stderr) == (2, True)
