"""Nothing hangs on the terminal: what shows may fail in any way, what enforces ends the run when it fails."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.forked import Fork
from end_to_end.stage import (
    LABELPIPE,
    Endpoints,
    Process,
    Project,
    environment,
    project,
    read_csv,
)

from pipeline import RunOptions, Settings, arun
from pipeline.runner.supervisor import Supervisor

Make = Callable[..., Project]
#: A line is said about each order: the terminal's death is noticed while the run is at work. The last one breaks the
#: parser of values.
ORDERS: list[dict[str, Any]] = [{"id": str(number), "at": 0, "verb": "resume"} for number in range(5)]
ORDERS.append({"id": "deep", "at": 0, "verb": "set", "key": "limits.concurrency", "value": "[" * 5000})


def fork(user: Project, *args: str, out: int | None = None, err: int | None = None) -> Process:
    """A run whose streams end at these descriptors."""
    return Process(args, Fork(("run", "job.toml", *args), user.folder, environment(), out=out, err=err))


def shell(user: Project, redirects: str) -> Process:
    """A run in a shell that redirects it so: with streams that are closed a process has to begin."""
    words, none = ["bash", "-c", f"exec {' '.join(LABELPIPE)} run job.toml {redirects}"], subprocess.DEVNULL
    popen = subprocess.Popen(words, cwd=user.folder, env=environment(), stdin=none, stdout=none, stderr=none, text=True)
    return Process(words, popen)


@pytest.fixture
def full() -> Iterator[int]:
    """A disk that is full."""
    with Path("/dev/full").open("w") as file:
        yield file.fileno()


def test_a_dead_terminal_changes_nothing(make: Make, full: int) -> None:
    """On a full disk, closed from the start, and with a reader that never reads."""
    users = [make(str(at), count=30) for at in range(4)]
    reader, unread = os.pipe()
    started = [
        fork(users[0], err=full),
        fork(users[1], "--json", out=full),
        shell(users[2], "<&- >&- 2>&-"),
        fork(users[3], err=unread),
    ]
    for user, process in zip(users, started, strict=True):
        process.wait().expect(0)
        assert len(user.labels()) == 30, process.args
        assert json.loads((user.run_dir / "summary.json").read_bytes())["exit_code"] == 0, process.args
    os.close(reader)
    os.close(unread)


def test_help_that_cannot_be_written_is_one_line(full: int) -> None:
    done = subprocess.run([*LABELPIPE, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "could not be written: No space left on device" in done.stderr


def test_what_was_asked_for_and_cannot_be_written_is_an_error(tmp_path: Path, full: int) -> None:
    """The report was lost, and the exit code said that all is well."""
    args = [["--version"], ["bad"]]
    done, bad = (Process(words, Fork(words, tmp_path, environment(), out=full)).wait() for words in args)
    assert (done.code, bad.code) == (3, 2)
    assert "could not be written: No space left on device" in done.err


def test_a_reader_that_is_killed_in_mid_run(tmp_path: Path, endpoints: Endpoints) -> None:
    """It ended the watcher at its next word, and at the end the run, with exit code 1 and without a summary."""
    endpoint = endpoints.open(latency_ms=100)
    user = project(tmp_path / "project", endpoint.base_url, 100, limits={"concurrency": 4})
    process = fork(user)
    endpoint.wait_for_calls(8)
    assert process.popen.stderr is not None
    process.popen.stderr.close()
    for order in ORDERS:
        with (user.run_dir / "control.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(order) + "\n")
    process.wait().expect(0)
    answers = [json.loads(line) for line in (user.run_dir / "control.answers.jsonl").read_text().splitlines()]
    assert [answer["ok"] for answer in answers] == [True] * 5 + [False]
    assert "cannot be carried out" in answers[-1]["text"], "an order never ends a run by an error"
    assert user.verify()["labelled"] == 100
    assert json.loads((user.run_dir / "summary.json").read_bytes())["labelled"] == 100
    endpoints.close(endpoint)


def test_a_hang_up_is_an_orderly_stop_and_nohup_ignores_it(tmp_path: Path, endpoints: Endpoints) -> None:
    opened = [endpoints.open(latency_ms=100) for _ in range(2)]
    users = [project(tmp_path / str(at), one.base_url, 40, limits={"concurrency": 4}) for at, one in enumerate(opened)]
    plain = users[0].start("run", "job.toml", "--json")
    args = ("-c", f"trap '' HUP; exec {' '.join(LABELPIPE)} run job.toml --json")
    out = subprocess.PIPE
    popen = subprocess.Popen(["bash", *args], cwd=users[1].folder, env=environment(), stdout=out, stderr=out, text=True)
    nohup = Process(args, popen)
    for endpoint, process in zip(opened, (plain, nohup), strict=True):
        endpoint.wait_for_calls(5)
        process.signal(signal.SIGHUP)
        process.signal(signal.SIGHUP)  # the shell sends one and the kernel another: no sign of impatience
    stopped = plain.wait().expect(129)
    assert "SIGHUP: finishing" in stopped.err
    assert (stopped.json["ended"], stopped.json["exit_code"]) == ("interrupted", 129)
    assert nohup.wait().expect(0).json["labelled"] == 40
    assert 0 < stopped.json["labelled"] < 40
    assert opened[0].totals()["lost"] == 0, "what was in flight ended"
    assert users[0].run()["labelled"] == 40
    for endpoint in opened:
        endpoints.close(endpoint)


# -- a notebook's stop button ------------------------------------------------------------------------------------------

NOTEBOOK = """
import asyncio, json, sys
from pipeline import Settings, run

async def cell():
    # In a notebook a loop runs already, and its stop button is a SIGINT to the process.
    print("begins", flush=True)
    summary = run(Settings.load("job.toml"))
    print(json.dumps([summary.ended, summary.exit_code, summary.labelled, summary.calls]), flush=True)

asyncio.run(cell())
"""


def notebook(user: Project) -> Process:
    args = ["-c", NOTEBOOK]
    return Process(args, Fork(args, user.folder, environment()))


def test_a_notebooks_stop_button_is_a_ctrl_c(tmp_path: Path, endpoints: Endpoints) -> None:
    """KeyboardInterrupt came out of `run`, and the run went on in its thread and paid for hundreds more."""
    opened = [endpoints.open(latency_ms=200), endpoints.open(poison={"HANG": "hang"})]
    soft = project(tmp_path / "soft", opened[0].base_url, 200, limits={"concurrency": 4})
    hard = project(tmp_path / "hard", opened[1].base_url, 30, limits={"concurrency": 4}, model={"timeout_s": 60})
    hard.give([{"id": f"r{number:04}", "text": "HANG"} for number in range(30)])
    started = [notebook(soft), notebook(hard)]
    for endpoint, process in zip(opened, started, strict=True):
        endpoint.wait_for_calls(4)
        process.signal(signal.SIGINT)
    assert started[1].popen.stderr is not None
    assert any("SIGINT: finishing" in line for line in started[1].popen.stderr)
    started[1].signal(signal.SIGINT)
    for user, process in zip((soft, hard), started, strict=True):
        done = process.wait().expect(0)
        ended, exit_code, labelled, calls = json.loads(done.out.splitlines()[-1])
        assert (ended, exit_code) == ("interrupted", 130)
        assert labelled < 200
        assert len(user.labels()) == labelled
        assert calls == labelled or user is hard
    for endpoint in opened:
        assert endpoint.in_flight() == 0, "nothing is asked any more when the cell has ended"
        endpoints.close(endpoint)


# -- the death of a task in the background -----------------------------------------------------------------------------


@pytest.fixture
def found(tmp_path: Path, endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A run of forty records in the current folder, which is looked at more often than each second."""
    monkeypatch.setattr("pipeline.runner.supervisor.LOOK_S", 0.05)
    monkeypatch.setattr("pipeline.runner.session_view.LOOK_S", 0.05)
    endpoint = endpoints.open(latency_ms=50)
    project(tmp_path, endpoint.base_url, 40, limits={"concurrency": 4})
    monkeypatch.chdir(tmp_path)
    yield Settings.load(Path("job.toml"))
    endpoints.close(endpoint)


def test_where_what_enforces_dies_the_run_ends_by_that(found: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would keep stop_at and the outage limit any more. What was answered is written."""

    def check(supervisor: Supervisor) -> None:
        if supervisor._stats.records:
            raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(Supervisor, "_check_deadline", check)
        with pytest.raises(ZeroDivisionError, match="a bug"):
            asyncio.run(arun(found))
    written = len(read_csv(Path("run/labels.csv")))
    assert 0 < written < 40
    again = asyncio.run(arun(found, RunOptions(quiet=True)))
    assert (again.labelled, again.session_records) == (40, 40 - written)


@pytest.mark.parametrize(
    "dies",
    [
        "session_view.SessionView.facts",
        "session_view.SessionView.snapshot",
        "session_view.SessionView._report_changes",
        "session.print_opening",
        "notifications.closing_lines",
    ],
)
def test_where_what_shows_dies_the_run_goes_on(found: Settings, monkeypatch: pytest.MonkeyPatch, dies: str) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a bug of the display")

    monkeypatch.setattr(f"pipeline.runner.{dies}", broken)
    summary = asyncio.run(arun(found))
    assert (summary.exit_code, summary.labelled) == (0, 40)
    assert "a bug of the display" in Path("run/run.log").read_text(encoding="utf-8")
