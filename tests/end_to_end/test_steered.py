"""Orders and edits of a run at work: in force whole or not at all, the latest word holds, and the answers are true."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Endpoint, Endpoints, Process, Project, project, wait_until

BOUND = {"parameters": {"max_completion_tokens": 30}}


class Night:
    """A run at work, seen from another terminal."""

    def __init__(self, user: Project, endpoint: Endpoint) -> None:
        self.user, self.endpoint = user, endpoint
        self.process: Process = user.start("run", "job.toml", "--json")
        endpoint.wait_for_calls(1)
        wait_until(lambda: bool(self.limits()))

    def live(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.user.run_dir / "live.json").read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return found

    def limits(self) -> dict[str, Any]:
        """The limits in force, without the table's name."""
        found = self.live().get("limits", {})
        return {key.removeprefix("limits."): value for key, value in found.items()}

    def set(self, order: str, code: int = 0) -> str:
        return self.user.do("set", "run", order, "--wait", "10").expect(code).err

    def edit(self, **limits: Any) -> None:
        self.user.configure(limits=limits)

    def hears(self, words: str) -> str:
        """The lines that the run says, up to one with these words."""
        assert self.process.popen.stderr is not None
        checked = ""
        while words not in checked:
            line = self.process.popen.stderr.readline()
            assert line, f"it ended without saying {words!r}: {checked}"
            checked += line
        return checked

    def end(self) -> None:
        assert self.process.popen.poll() is None, "it goes on"
        self.user.do("drain", "run").expect(0)
        self.process.wait().expect(3)


@pytest.fixture
def night(tmp_path: Path, endpoints: Endpoints) -> Iterator[Callable[..., Night]]:
    """Runs of 3,000 records, 100 ms a call, two at once."""
    opened = []

    def begin(**tables: Any) -> Night:
        endpoint = endpoints.open(latency_ms=100.0, models=[])
        opened.append(endpoint)
        tables["limits"] = {"concurrency": 2, **tables.get("limits", {})}
        return Night(project(tmp_path / f"night{len(opened)}", endpoint.base_url, 3_000, **tables), endpoint)

    yield begin
    for endpoint in opened:
        endpoints.close(endpoint)


def test_an_order_that_is_refused_leaves_nothing_behind(night: Callable[..., Night]) -> None:
    """`stop_at=25:00` was refused and in force, and every later order was refused with it, and in force too."""
    run = night()
    refused = run.set("limits.stop_at=25:00", code=2)
    assert 'set limits.stop_at=25:00: limits.stop_at: got "25:00"; expected a time of day' in refused
    assert "--set" not in refused, "nobody typed that"
    assert "only the config file sets it: edit job.toml" in run.set("notify.command=touch owned", code=2)
    before = run.limits()
    assert before["stop_at"] is None
    assert "2 -> 16" in run.set("limits.concurrency=16")
    wait_until(lambda: run.limits() == {**before, "concurrency": 16})
    run.end()


def test_an_unknown_key_is_told_with_the_one_that_was_meant(night: Callable[..., Night]) -> None:
    run = night()
    assert "unknown key; did you mean limits.concurrency?" in run.set("limits.concurency=3", code=2)
    assert "unknown key; known in [limits]: concurrency, " in run.set("limits.nonsense=3", code=2)
    assert "task.prompt cannot change during a run" in run.set("task.prompt=x", code=2)
    run.end()


def test_an_edit_that_is_refused_is_refused_whole(night: Callable[..., Night]) -> None:
    """Of an edit with a mistake in it the rest was in force, while the run said that it was not taken over."""
    run = night()
    before = run.limits()
    run.edit(stop_at="25:00", max_attempts=7)
    told = run.hears('got "25:00"')
    assert "job.toml was edited, but the edit was not applied:\njob.toml:" in told
    run.edit(stop_at=None, max_attempts=None, concurrency=24, run_between=["22:00", "22:00"])
    run.hears("it begins and ends at the same time")
    run.edit(run_between=None, concurrency=24)
    run.user.configure(notify={"command": "'not closed"})
    run.hears("notify.command")
    assert run.limits() == before, "also what only shows when it is put into force"
    assert "2 -> 3" in run.set("limits.concurrency=3"), "a file that is wrong stands in no order's way"
    run.user.configure(notify={"command": None}, limits={"concurrency": 12, "max_attempts": 7})
    wait_until(lambda: run.limits() == {**before, "concurrency": 12, "max_attempts": 7})
    run.end()


def test_the_latest_word_holds(night: Callable[..., Night]) -> None:
    """An edit of a key that an order had set was passed over in silence."""
    run = night()
    run.set("limits.concurrency=10")
    run.set("limits.max_attempts=3")
    run.edit(concurrency=20)
    assert "limits.concurrency 10 -> 20 (job.toml)" in run.hears("10 -> 20")
    wait_until(lambda: run.limits()["concurrency"] == 20)
    assert run.limits()["max_attempts"] == 3, "the file says nothing new of it"
    assert "20 -> 5" in run.set("limits.concurrency=5")
    run.edit(max_repairs=1)
    wait_until(lambda: run.limits()["max_repairs"] == 1)
    assert run.limits()["concurrency"] == 5, "nor of this"
    run.end()


def test_a_budget_begins_in_mid_run(night: Callable[..., Night]) -> None:
    """What was spent counts, and so does what is in flight: by the endpoint's books the cap is not passed."""
    run = night(model=BOUND, limits={"concurrency": 16})
    run.endpoint.wait_for_calls(100)
    assert run.live()["budget"] is None
    spent = run.endpoint.totals()["tokens"]
    cap = spent + 60_000
    told = run.set(f"limits.budget_tokens={cap}")
    assert f"limits.budget_tokens none -> {cap} (set); so far $" in told
    counted = int(told.split(" tokens are spent")[0].rsplit(" ", 1)[1].replace(",", ""))
    assert counted >= spent, "what this session spent before it counts"
    done = run.process.wait().expect(3)
    assert f"limits.budget_tokens = {cap}" in done.json["reason"]
    assert cap * 0.9 < run.endpoint.totals()["tokens"] <= cap
    assert run.user.run("--set", f"limits.budget_tokens={cap}", code=3)["session_records"] == 0
    assert run.endpoint.totals()["tokens"] <= cap


def test_a_budget_in_dollars_begins_by_an_edit(night: Callable[..., Night]) -> None:
    run = night(model={**BOUND, "price": {"input": 1.0, "output": 1.0}})
    run.edit(budget_usd=0.00001, concurrency=8)
    done = run.process.wait().expect(3)
    assert "limits.budget_usd none -> " in done.err
    assert "limits.budget_usd = 0.00001" in done.json["reason"]


def test_a_budget_that_cannot_hold_is_refused_whole(night: Callable[..., Night]) -> None:
    run = night()
    before = run.limits()
    run.edit(budget_tokens=10_000_000, concurrency=24)
    assert "was not applied" in run.hears("max_completion_tokens")
    assert run.limits() == before
    told = run.set("limits.budget_usd=5", code=2)
    assert "max_completion_tokens" in told
    assert "cannot change during a run" in told
    run.end()
    run = night(model={**BOUND, "name": "nobody-knows"})
    assert "the price of the model is unknown" in run.set("limits.budget_usd=5", code=2)
    assert "none -> 10000000" in run.set("limits.budget_tokens=10000000"), "and no trace of it is left"
    run.end()


def test_all_of_the_limits_are_live(night: Callable[..., Night]) -> None:
    """Also more calls at once than the most that there could be at the start."""
    run = night(limits={"concurrency_max": 4})
    run.set("limits.on_day_limit=stop")
    run.set("limits.grace_s=5")
    assert "no longer a key" in run.set("limits.concurrency_min=6", code=2)
    run.set("limits.concurrency=40")
    wait_until(lambda: run.endpoint.in_flight() > 20)
    run.set("limits.requests_per_day=10")
    done = run.process.wait().expect(3)
    assert "10 requests a day are used up" in done.json["reason"]


def test_a_wait_for_the_hours_is_told_once(night: Callable[..., Night]) -> None:
    """It said `waiting 59 s: ...; waits until 22:00 (2 h 28 min)`, and a new line each minute."""
    run = night()
    now = datetime.now().astimezone()
    begin, end = f"{now + timedelta(hours=2):%H:%M}", f"{now + timedelta(hours=3):%H:%M}"
    run.set(f'limits.run_between=["{begin}","{end}"]')
    assert f"outside the hours {begin}-{end}, until {begin}\n" in run.hears("waiting")
    wait_until(lambda: "outside the hours" in run.live()["trouble"])
    assert run.live()["held_for_s"] > 61, "all of the wait, not the time to the next look"
    run.end()
