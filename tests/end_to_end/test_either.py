"""Every command takes the config or the run folder; without one, the latest run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from end_to_end.stage import Endpoint, Project
from typer.testing import CliRunner, Result

from pipeline import Settings, run
from pipeline.cli import app
from pipeline.cli.application import COMMAND_HINTS
from pipeline.store import RunDir

Make = Callable[..., Project]


def do(*words: str) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, list(words))


#: What is said beside the config.
SAID = ["--limit", "4", "--set", "limits.budget_usd=5", "--set", "model.parameters.max_completion_tokens=77"]


@pytest.fixture
def done(make: Make, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A run of six records with all that is said beside a config; the current directory is its project's."""
    made = make(count=6)
    monkeypatch.chdir(made.folder)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    told = do("run", "job.toml", *SAID)
    assert told.exit_code == 0, told.output
    return made


LOOKING = [["status", "--json"], ["verify"], ["check", "--offline"], ["config", "show"], ["replay"], ["preview", "-n1"]]


def test_a_run_folder_says_what_its_config_says(done: Project) -> None:
    for command in LOOKING:
        files = ["run/labels.csv"] if command[0] in ("status", "verify") else []
        for named in ("job.toml", "run", *files):
            told = do(*command, named)
            assert told.exit_code == 0, f"{command} {named}: {told.output}"
            assert "--fresh" not in told.output


def test_a_run_folder_goes_on_with_what_was_said(done: Project, endpoint: Endpoint) -> None:
    """The budget and the model's parameters still hold; what is said now is laid over it."""
    shown = do("config", "show", "run").output
    for line in ("budget_usd = 5", "max_completion_tokens = 77", "limit = 4", 'dir = "run"'):
        assert line in shown, shown
    calls = endpoint.calls()
    assert do("run", "run").exit_code == 0
    assert endpoint.calls() == calls
    told = do("run", "run", "--set", "input.limit=none")
    assert told.exit_code == 0, told.output
    assert "6 labelled" in told.output
    assert endpoint.calls() == calls + 2
    assert "budget_usd = 5" in do("config", "show", "run").output


def test_from_another_directory_the_same_files_are_meant(
    done: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "else" / "where"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    run_dir = os.path.relpath(done.run_dir)
    told = do("run", run_dir, "--set", "input.limit=none")
    assert told.exit_code == 0, told.output
    assert len(done.labels()) == 6
    assert not (elsewhere / "run").exists()


def test_a_pilot_does_not_say_how_the_run_goes_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(count=6)
    monkeypatch.chdir(made.folder)
    assert do("plan", "job.toml", "--pilot", "2").exit_code == 0
    told = do("run", "run")
    assert told.exit_code == 0, told.output
    assert len(made.labels()) == 6


def test_the_latest_run_is_meant_where_none_is_named(done: Project) -> None:
    assert do("run", "job.toml", "--output", "other/deep").exit_code == 0
    os.utime("run/manifest.json", (1, 1))
    for words in (["status"], ["verify"], ["replay"], ["retry"]):
        told = do(*words)
        assert told.exit_code == 0, told.output
        assert "other/deep is the latest run here" in told.output
    told = do("status", "job.toml", "--json")
    assert '"run_dir":"run"' in told.output
    RunDir(Path("run")).manifest.rename("run/gone")
    RunDir(Path("run")).ledger.rename("run/ledger-gone")
    assert "started with it: other/deep" in do("status", "job.toml").output


def test_an_order_goes_to_the_run_at_work(done: Project) -> None:
    """Neither finished run answers; of two, the one that is at work is asked, though it is the older."""
    assert do("run", "job.toml", "--output", "other").exit_code == 0
    os.utime("run/manifest.json", (1, 1))
    owner = Path("run/lock.owner")
    owner.write_text(f'{{"pid": {os.getpid()}}}')
    assert "run: the run did not answer" in do("pause", "--wait", "0").output
    assert "run: the run did not answer" in do("set", "limits.concurrency=3", "--wait", "0").output
    assert "other: the run did not answer" in do("set", "other", "limits.concurrency=3", "--wait", "0").output
    Path("other/lock.owner").write_text(owner.read_text())
    told = do("drain", "--wait", "0")
    assert told.exit_code == 2
    assert "several runs are in progress here: run, other" in told.output


#: What is said of a name that is no config and no run.
MIX_UPS = {
    "run in.jsonl": "in.jsonl is not a config. To label what is in it, write a config for it first: labelpipe init",
    "run run/labels.csv": "run/labels.csv is a file of the run in run",
    "run jbo.toml": "Did you mean job.toml?",
    "status rnu": "no such file or folder",
    "status ran": "Did you mean run?",
    "status in.jsonl": "neither a config nor a run folder",
    "run": "name a config, or the folder of a run. Configs here: job.toml. Runs here: run.",
    "check": "name a config, or the folder of a run",
    "run folder": "folder is a folder. The configs in it: folder/a.toml",
    "run https://host.invalid/r.csv": "labelpipe init https://host.invalid/r.csv",
    "init job.toml": "job.toml is already a config. To label with it: labelpipe run job.toml",
    "init run": "run is a run folder. To continue it: labelpipe run run",
    "run empty": "a folder without a run in it",
    "pause empty": "there is no run here (no manifest.json). Runs here: run",
    "set a b c=1": "expected a run folder and KEY=VALUE",
    "in.jsonl": "Write a config for it: labelpipe init in.jsonl",
    "job.toml": "labelpipe run job.toml",
    "verfy run": "Did you mean 'verify'",
}


def test_a_mix_up_is_told_and_nothing_else_is_proposed(done: Project) -> None:
    Path("empty").mkdir()
    Path("folder").mkdir()
    Path("folder/a.toml").write_text("[task]\n")
    for words, wanted in MIX_UPS.items():
        told = do(*words.split())
        assert told.exit_code == 2, f"{words}: {told.output}"
        assert wanted in " ".join(told.output.split()), f"{words}: {told.output}"
        assert "--fresh" not in told.output


def test_a_config_in_the_middle_of_an_edit_leads_to_its_run(done: Project) -> None:
    Path("job.toml").write_text("[input\n")
    told = do("status", "job.toml", "--json")
    assert told.exit_code == 0, told.output
    assert '"run_dir":"run"' in told.output
    Path("other.toml").write_text("[input\n")
    assert "not TOML" in do("status", "other.toml").output


def test_a_secret_is_not_kept_and_asked_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(count=2, notify={"on": ["attention"]})
    monkeypatch.chdir(made.folder)
    secret = "http://127.0.0.1:9/hook-s3cr3t"
    assert do("run", "job.toml", "--set", f"notify.url={secret}").exit_code == 0
    assert "s3cr3t" not in RunDir(Path("run")).manifest.read_text()
    told = do("run", "run")
    assert told.exit_code == 2
    assert "--set notify.url=..." in told.output
    assert do("run", "run", "--set", f"notify.url={secret}").exit_code == 0


def test_a_run_from_python_says_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(count=2)
    monkeypatch.chdir(made.folder)
    tables: dict[str, Any] = {**made.config, "input": {"key": "id"}}
    run(Settings(**tables), records=[{"id": "a", "text": "b"}])
    assert do("status", "run").exit_code == 0
    assert "was started from Python" in do("run", "run").output


def test_a_config_that_is_gone_is_named(done: Project) -> None:
    Path("job.toml").rename("moved.toml")
    told = do("run", "run")
    assert told.exit_code == 2
    assert "was started with job.toml, which no longer exists" in told.output
    assert do("verify", "run").exit_code == 0


def test_words_of_other_tools_lead_to_ours() -> None:
    for word, ours in COMMAND_HINTS.items():
        done = do(word, "run")
        assert done.exit_code == 2
        assert f"Did you mean '{ours}'?" in done.output
        assert ours.startswith("-") or ours in typer.main.get_group(app).commands
        assert word not in typer.main.get_group(app).commands
