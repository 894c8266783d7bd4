"""Edits of the config while calls are in flight: good ones, broken ones, half-written ones, forbidden ones."""

from __future__ import annotations

import json
import random
import signal
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clocks import start_moved
from end_to_end.stage import Endpoint, Endpoints, Process, Project, project, rows, wait_until
from killing import Scene, prove
from moved import Clock

pytestmark = pytest.mark.chaos

FORBIDDEN: tuple[tuple[str, dict[str, Any]], ...] = (
    ("task", {"prompt": "something else: {{ text }}"}),
    ("task", {"system": "You are another one."}),
    ("model", {"name": "gpt-6-sol"}),
    ("model", {"base_url": "http://127.0.0.1:9/v1"}),
    ("output", {"dir": "elsewhere"}),
    ("input", {"path": "none.jsonl"}),
)
BROKEN = (
    "[limits\n",
    "limits = 3\n",
    "\x00\x01\x02",
    "concurrency = 3 [",
    "[limits]\nconcurrency = -4\n",
    "= = =",
    "[model]",
)


@dataclass
class Desk:
    """A run at work whose config is being edited."""

    user: Project
    endpoint: Endpoint
    dice: random.Random
    told: str

    def limits(self) -> dict[str, Any]:
        """The limits in force, as the run shows them."""
        try:
            found: dict[str, Any] = json.loads((self.user.run_dir / "live.json").read_bytes())["limits"]
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return found

    def set(self, **limits: Any) -> None:
        """Edit the limits, and wait until they are in force."""
        self.user.configure(limits=limits)
        wait_until(lambda: all(self.limits().get(f"limits.{key}") == value for key, value in limits.items()))


def test_edits_under_load(tmp_path: Path, endpoints: Endpoints, seed: int) -> None:
    dice = random.Random(seed)
    # Slow enough that the records last for all edits, whichever the dice choose.
    endpoint = endpoints.open(latency_ms=250.0, latency_jitter=0.5, faults={"503": 0.01, "bad_label": 0.01})
    given = rows(1_500)
    user = project(
        tmp_path / "edits",
        endpoint.base_url,
        len(given),
        limits={"concurrency": 4, "budget_tokens": 50_000_000},
        model={"parameters": {"max_completion_tokens": 30}},
    )
    desk = Desk(user, endpoint, dice, f"seed {seed}")
    scene = Scene(user, endpoint, given, seed, most_wasted=16)
    process = user.start("run", "job.toml", "--json")
    endpoint.wait_for_calls(1)
    wait_until(lambda: bool(desk.limits()))
    edits = [_concurrency, _rate, _budget, _broken, _half_written, _forbidden, _gone]
    for edit in dice.sample(edits, 5):
        edit(desk)
        assert process.popen.poll() is None, f"{desk.told}: {edit.__name__} ended it: {process.wait()}"
    _end(desk, scene, process)
    desk.user.configure(limits={"budget_tokens": 60_000_000})
    (desk.user.run_dir / "live.json").unlink(missing_ok=True)
    process = desk.user.start("run", "job.toml", "--json")
    wait_until(lambda: bool(desk.limits()))
    desk.set(concurrency=100, requests_per_minute=None)
    done = process.wait().expect(0)
    assert done.json["labelled"] == len(given), desk.told
    prove(scene)


def test_a_time_to_stop_is_the_next_one_from_when_it_is_said(tmp_path: Path, endpoints: Endpoints) -> None:
    """Said in mid-run, a time that lay between the run's start and now ended the run at once."""
    user = project(tmp_path / "stop", endpoints.open(latency_ms=200.0).base_url, 3_000, limits={"concurrency": 1})
    user.folder.joinpath("clock").unlink(missing_ok=True)
    clock = Clock(user.folder / "clock")
    desk = Desk(user, endpoints.open(), random.Random(0), "no seed")
    process = start_moved(user, "run", "job.toml", "--json")
    wait_until(lambda: bool(desk.limits()))
    begun = datetime.fromtimestamp(time.time()).astimezone()
    clock.move(5 * 3600)
    passed, ahead = begun + timedelta(hours=2), begun + timedelta(hours=7)
    reply = user.do("set", "run", f"limits.stop_at={passed:%H:%M}", "--wait", "10").expect(0)
    assert f"the run ends at {passed + timedelta(days=1):%Y-%m-%d %H:%M}" in reply.err
    user.configure(limits={"stop_at": f"{ahead:%H:%M}", "max_attempts": 3})
    desk.set(max_attempts=3)
    ends_at = json.loads((user.run_dir / "live.json").read_bytes())["ends_at"]
    assert ends_at.startswith(f"{ahead:%Y-%m-%dT%H:%M}"), "an edit too, and another key beside it moves nothing"
    assert process.popen.poll() is None
    clock.move(3 * 3600)
    done = process.wait().expect(3)
    assert f"limits.stop_at {ahead:%H:%M} is reached" in done.json["reason"]
    assert f"the run ends at {ahead:%Y-%m-%d %H:%M}" in done.err


def _concurrency(desk: Desk) -> None:
    """Up or down: what the server sees in flight follows."""
    for most in desk.dice.sample([1, 2, 6, 10, 16], 2):
        desk.set(concurrency=most)
        wait_until(lambda most=most: desk.endpoint.in_flight() <= most)
        for _ in range(20):
            seen = desk.endpoint.in_flight()
            assert seen <= most, f"{desk.told}: {seen} in flight, {most} allowed"
            time.sleep(0.005)


def _rate(desk: Desk) -> None:
    """Calls a minute are kept from the moment that they are in force."""
    per_minute = desk.dice.choice([3, 300, 900, 1800])
    desk.set(concurrency=12, requests_per_minute=per_minute)
    before, begun = desk.endpoint.calls(), time.monotonic()
    time.sleep(1.0)
    calls, passed_s = desk.endpoint.calls() - before, time.monotonic() - begun
    # A quarter of a second is caught up at most, and calls on their way arrive: one for each worker.
    most = per_minute / 60 * (passed_s + 0.5) + 12
    assert calls <= most, f"{desk.told}: {calls} calls in {passed_s:.2f} s at {per_minute} a minute"
    raised, before = desk.dice.choice([6000, None]), desk.endpoint.calls()
    desk.set(concurrency=8, requests_per_minute=raised)
    # At three a minute so many calls would take longer than is waited for them.
    wait_until(lambda: desk.endpoint.calls() > before + 20)
    desk.user.configure(limits={"requests_per_minute": None})


def _budget(desk: Desk) -> None:
    desk.set(budget_tokens=desk.dice.randint(20_000_000, 40_000_000))


def _broken(desk: Desk) -> None:
    """What is no config is not taken over, and changes nothing."""
    before = desk.limits()
    for text in desk.dice.sample(BROKEN, 2):
        (desk.user.folder / "job.toml").write_text(text, encoding="utf-8")
        time.sleep(desk.dice.uniform(0.0, 1.5))
    assert desk.limits() == before, desk.told
    desk.user.configure()


def _half_written(desk: Desk) -> None:
    """An editor that is slow: pieces at random places, with pauses; it is taken over once it is whole."""
    most = desk.dice.choice([3, 5, 7, 9])
    desk.user.configure(limits={"concurrency": most})
    path = desk.user.folder / "job.toml"
    text = path.read_text(encoding="utf-8")
    with path.open("w", encoding="utf-8") as file:
        for at in range(0, len(text), step := desk.dice.randint(40, 200)):
            file.write(text[at : at + step])
            file.flush()
            time.sleep(desk.dice.choice([0.0, 0.05, 0.4]))
    wait_until(lambda: desk.limits()["limits.concurrency"] == most)


def _forbidden(desk: Desk) -> None:
    """What cannot change during a run does not; what can, in the same edit, does."""
    table, change = desk.dice.choice(FORBIDDEN)
    before = {key: desk.user.config[table].get(key) for key in change}
    desk.user.configure(**{table: change})
    desk.set(concurrency=desk.dice.choice([2, 4, 8, 10]))
    desk.user.configure(**{table: before})


def _gone(desk: Desk) -> None:
    """Deleted, or moved away and back, as some editors do."""
    path = desk.user.folder / "job.toml"
    path.rename(path.with_suffix(".bak"))
    time.sleep(desk.dice.uniform(0.0, 1.2))
    path.with_suffix(".bak").rename(path)
    desk.set(concurrency=desk.dice.choice([3, 5]))


def _end(desk: Desk, scene: Scene, process: Process) -> None:
    """By a kill over a broken config, or by a budget that is less than what is spent."""
    if desk.dice.random() < 0.5:
        _by_kill(desk, scene, process)
    else:
        _by_budget(desk, process)


def _by_kill(desk: Desk, scene: Scene, process: Process) -> None:
    """The next command says what is wrong, and makes no call."""
    (desk.user.folder / "job.toml").write_text(desk.dice.choice(BROKEN), encoding="utf-8")
    time.sleep(desk.dice.uniform(0.0, 0.5))
    scene._end(process, signal.SIGKILL, "SIGKILL over a broken config")
    calls = desk.endpoint.calls()
    assert "job.toml" in desk.user.do("run", "job.toml").expect(2).err
    assert desk.endpoint.calls() == calls, desk.told


def _by_budget(desk: Desk, process: Process) -> None:
    """What is in flight ends, nothing more leaves."""
    desk.user.configure(limits={"budget_tokens": 1})
    done = process.wait().expect(3)
    assert "limits.budget_tokens = 1" in done.json["reason"], desk.told
    calls = desk.endpoint.calls()
    desk.user.do("run", "job.toml").expect(3)
    assert desk.endpoint.calls() == calls, f"{desk.told}: a call left without a budget"
