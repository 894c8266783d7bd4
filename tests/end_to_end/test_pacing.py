"""Limits, outages and silent servers, by the endpoint's books."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import pytest
from end_to_end.races import PACED, PER_S, Race, begin
from end_to_end.stage import Done, Endpoints, project

from pipeline.limits.retry_scope import MOST_OF_FEW


@pytest.fixture(scope="module")
def races(tmp_path_factory: pytest.TempPathFactory, endpoints: Endpoints) -> dict[str, Race]:
    """Runs that mostly wait: all are begun at once."""
    return begin(tmp_path_factory.mktemp("races"), endpoints)


def ended(race: Race, code: int = 0) -> Done:
    return race.process.wait().expect(code)


def test_a_rate_limit_is_used_and_never_passed(races: dict[str, Race]) -> None:
    race = races["paced"]
    done = ended(race)
    assert done.json["labelled"] == PACED
    assert done.err.count("\r") == 0, "without a terminal nothing is redrawn"
    totals = race.endpoint.totals()
    assert totals["refused"] == 0, "not even over a single second"
    seconds = totals["calls_by_second"]
    for width in range(1, len(seconds) + 1):
        most = max(sum(seconds[at : at + width]) for at in range(len(seconds) - width + 1))
        # What a busy machine lost is caught up at once: a quarter of a second's worth at most.
        assert most <= PER_S * width + 3, f"{most} calls in {width} s: {seconds}"


def test_an_outage_costs_time_and_no_row(races: dict[str, Race]) -> None:
    race = races["outage"]
    done = ended(race)
    assert done.json["labelled"] == 250
    assert done.json["outages"] >= 1
    assert "calls fail for everyone" in done.err
    assert "the outage is over" in done.err
    lines = race.endpoint.lines()
    failed = [line for line in lines if line.what == "outage"]
    # Ten records are being asked; each fails once or twice until it is clear that all do. Then it is a probe at a time.
    assert 0 < len(failed) <= 2 * 10 + 6
    assert {len(labels) for labels in race.endpoint.given().values()} == {1}
    race.user.verify()


def test_an_outage_without_end_ends_the_run_and_the_same_command_goes_on(
    races: dict[str, Race], endpoints: Endpoints
) -> None:
    race = races["down"]
    stopped = ended(race, code=3).json
    assert (stopped["ended"], stopped["labelled"], stopped["failed"]) == ("stopped", 0, 0)
    assert stopped["reason"].startswith("no answer for 1 s")
    assert stopped["outages"] == 1
    assert 1 <= stopped["outage_s"] <= stopped["session_s"]
    opened = endpoints.open(port=race.endpoint.port)
    assert race.user.run()["labelled"] == 20
    endpoints.close(opened)


def test_retry_after_is_obeyed_by_everyone(races: dict[str, Race]) -> None:
    """But for a few calls that try out whether it is meant for all."""
    race = races["refused"]
    assert ended(race).json["labelled"] == 12
    lines = race.endpoint.lines()
    first = next(at for at, line in enumerate(lines) if line.what == "refused")
    assert first in (9, 10), "the tenth answer may still be on its way"
    told_s = 5.0 - lines[first].at_s  # one call's worth comes back every five seconds
    until_s = lines[first].at_s + 0.9 * told_s
    meanwhile = [line for line in lines[first + 1 :] if line.at_s < until_s]
    assert len(meanwhile) <= 1 + MOST_OF_FEW + 1, f"beside what was in flight nobody calls: {meanwhile}"
    assert race.endpoint.totals()["refused"] <= 4 + MOST_OF_FEW + 1


def test_a_record_that_hangs_for_ever_does_not_hold_the_run(races: dict[str, Race]) -> None:
    race = races["hangs"]
    done = ended(race, code=1)
    assert (done.json["labelled"], done.json["failed"], done.json["problems"]) == (38, 2, {"timeout": 2})
    assert {(row["key"], row["code"], row["attempts"]) for row in race.user.failed()} == {
        ("r0008", "timeout", "2"),
        ("r0022", "timeout", "2"),
    }
    race.user.verify()


def test_requests_a_day_are_kept_across_restarts(tmp_path: Path, endpoints: Endpoints) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if (now.hour, now.minute) >= (23, 59):
        time.sleep(61 - now.second)  # not over midnight: the count begins anew then
    endpoint = endpoints.open(latency_ms=100)
    limits = {"requests_per_day": 12, "on_day_limit": "stop", "concurrency": 2}
    user = project(tmp_path / "project", endpoint.base_url, count=25, limits=limits)
    killed = user.start("run", "job.toml")
    endpoint.wait_for_calls(4)
    killed.kill()
    assert user.do("status", "run", "--json").expect(0).json["simulated"] is True, (
        "not only a session that ended says so"
    )
    stopped = user.run(code=3)
    assert "12 requests a day are used up" in stopped["reason"]
    # One is written down before each call: a kill may have come between.
    assert endpoint.calls() in (11, 12)
    used = endpoint.calls()
    assert user.run(code=3)["calls"] == 0
    more = user.do("run", "job.toml", "--json", "--set", "limits.requests_per_day=15").expect(3).json
    assert (more["calls"], endpoint.calls()) == (3, used + 3)
    assert user.verify()["labelled"] == more["labelled"]
    endpoints.close(endpoint)


def test_calls_of_today_count_for_a_limit_that_is_set_later(tmp_path: Path, endpoints: Endpoints) -> None:
    """For the next session's, and for one that is set while it runs."""
    now = datetime.datetime.now(datetime.UTC)
    if (now.hour, now.minute) >= (23, 59):
        time.sleep(61 - now.second)  # not over midnight: the count begins anew then
    endpoint = endpoints.open(latency_ms=100)
    user = project(tmp_path / "project", endpoint.base_url, count=60, limits={"concurrency": 2})
    user.run("--limit", "10")
    stop = ("--set", "limits.on_day_limit=stop")
    assert (
        user.do("run", "job.toml", "--json", *stop, "--set", "limits.requests_per_day=12").expect(3).json["calls"] == 2
    )
    at_work = user.start("run", "job.toml", "--json", *stop)
    endpoint.wait_for_calls(20)
    user.do("set", "run", "limits.requests_per_day=15").expect(0)
    assert "15 requests a day are used up" in at_work.wait().expect(3).json["reason"]
    calls = endpoint.calls()
    assert calls < 60
    more = ("--set", f"limits.requests_per_day={calls + 3}")
    assert user.do("run", "job.toml", "--json", *stop, *more).expect(3).json["calls"] == 3
    endpoints.close(endpoint)
