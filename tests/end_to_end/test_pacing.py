"""Limits, outages and silent servers, by the endpoint's books. The runs mostly wait, so they go on side by side."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from end_to_end.stage import Done, Endpoint, Endpoints, Process, Project, project, rows, wait_until

PER_S = 10
OUTAGE_S = (1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Race:
    """One of the runs that go on side by side."""

    user: Project
    endpoint: Endpoint
    process: Process


@pytest.fixture(scope="module")
def races(tmp_path_factory: pytest.TempPathFactory, endpoints: Endpoints) -> dict[str, Race]:
    """Starts them all."""
    folder = tmp_path_factory.mktemp("pacing")
    per_minute = 60 * PER_S
    setups = {
        # The server counts over each second, so that a burst would be refused.
        "paced": (
            endpoints.open(requests_per_minute=per_minute, burst_s=1.0),
            100,
            {"requests_per_minute": per_minute},
        ),
        "outage": (endpoints.open(latency_ms=50, outages=[OUTAGE_S]), 200, {"concurrency": 4}),
        # Ten calls at once, then one every two seconds; it says so in Retry-After only.
        "refused": (
            endpoints.open(requests_per_minute=30, burst_s=20.0, headers=False, latency_ms=50),
            12,
            {"concurrency": 2},
        ),
        "hangs": (endpoints.open(poison={"HANG": "hang"}), 40, {"max_attempts": 2}),
    }
    started = {}
    for name, (endpoint, count, limits) in setups.items():
        user = project(folder / name, endpoint.base_url, count=count, limits=limits)
        if name == "hangs":
            user.give({**row, "text": "HANG"} if at in (7, 21) else row for at, row in enumerate(rows(count)))
            user.configure(model={"timeout_s": 1})
        started[name] = Race(user, endpoint, user.start("run", "job.toml", "--json"))
    return started


def ended(race: Race, code: int = 0) -> Done:
    return race.process.wait().expect(code)


def test_status_and_a_second_process_while_a_run_is_at_work(races: dict[str, Race]) -> None:
    race = races["paced"]
    race.endpoint.wait_for_calls(15)
    wait_until((race.user.run_dir / "live.json").exists)
    looks = [race.user.start("status", "run", "--json"), race.user.start("run", "job.toml", "--json")]
    status, second = (process.wait() for process in looks)
    seen = status.expect(0).json
    assert seen["running"] is True
    assert 0 < seen["labelled"] < 100
    assert seen["live"]["limit_per_minute"] == 60 * PER_S
    assert seen["live"]["total"] == 100
    assert f"process {race.process.popen.pid}" in second.expect(2).err, "refused by name"
    assert second.out == ""
    moved = race.user.do("run", "job.toml", "--fresh", "--yes").expect(2)
    assert "at work in this run folder" in moved.err


def test_a_rate_limit_is_used_and_never_passed(races: dict[str, Race]) -> None:
    race = races["paced"]
    done = ended(race)
    assert done.json["labelled"] == 100
    assert done.err.count("\r") == 0, "without a terminal nothing is redrawn"
    totals = race.endpoint.totals()
    assert totals["refused"] == 0, "not even over a single second"
    span_s = totals["last_call_at"] - totals["first_call_at"]
    assert (totals["calls"] - 1) / span_s >= 0.9 * PER_S
    seconds = totals["calls_by_second"]
    for width in range(1, len(seconds) + 1):
        most = max(sum(seconds[at : at + width]) for at in range(len(seconds) - width + 1))
        # What a busy machine lost is caught up at once: a quarter of a second's worth at most.
        assert most <= PER_S * width + 3, f"{most} calls in {width} s: {seconds}"


def test_an_outage_costs_time_and_no_row(races: dict[str, Race]) -> None:
    race = races["outage"]
    done = ended(race)
    assert done.json["labelled"] == 200
    assert done.json["outages"] >= 1
    assert "calls fail for everyone" in done.err
    assert "the outage is over" in done.err
    lines = race.endpoint.lines()
    failed = [line for line in lines if line.what == "outage"]
    assert 0 < len(failed) <= 5 + 4 + 6, "five told it, those in flight followed, then a probe at a time"
    assert min(line.at_s for line in lines if line.what == "answered" and line.at_s > OUTAGE_S[1]) < OUTAGE_S[1] + 5
    assert {len(labels) for labels in race.endpoint.given().values()} == {1}
    race.user.verify()


def test_retry_after_is_obeyed_by_everyone(races: dict[str, Race]) -> None:
    race = races["refused"]
    assert ended(race).json["labelled"] == 12
    lines = race.endpoint.lines()
    first = next(at for at, line in enumerate(lines) if line.what == "refused")
    assert first in (9, 10), "the tenth answer may still be on its way"
    told_s = 2.0 - lines[first].at_s  # one call's worth comes back every two seconds
    until_s = lines[first].at_s + 0.9 * told_s
    meanwhile = [line for line in lines[first + 1 :] if line.at_s < until_s]
    assert len(meanwhile) <= 1, f"beside what was in flight nobody calls: {meanwhile}"
    assert race.endpoint.totals()["refused"] <= 4


def test_a_record_that_hangs_for_ever_does_not_hold_the_run(races: dict[str, Race]) -> None:
    race = races["hangs"]
    done = ended(race, code=1)
    assert (done.json["labelled"], done.json["failed"], done.json["problems"]) == (38, 2, {"timeout": 2})
    assert {(row["key"], row["code"], row["attempts"]) for row in race.user.failed()} == {
        ("r0008", "timeout", "2"),
        ("r0022", "timeout", "2"),
    }
    assert done.json["session_s"] < 15
    race.user.verify()


def test_requests_a_day_are_kept_across_restarts(tmp_path: Path, endpoint: Endpoint) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if (now.hour, now.minute) >= (23, 59):
        time.sleep(61 - now.second)  # not over midnight: the count begins anew then
    limits = {"requests_per_day": 10, "on_day_limit": "stop"}
    user = project(tmp_path / "project", endpoint.base_url, count=25, limits=limits)
    stopped = user.run(code=3)
    assert (stopped["labelled"], endpoint.calls()) == (10, 10)
    assert "10 requests a day are used up" in stopped["reason"]
    assert (user.run(code=3)["calls"], endpoint.calls()) == (0, 10)
    more = user.do("run", "job.toml", "--json", "--set", "limits.requests_per_day=14").expect(3).json
    assert (more["labelled"], endpoint.calls()) == (14, 14)
    user.verify()
