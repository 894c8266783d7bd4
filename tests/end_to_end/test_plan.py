"""`labelpipe plan` and its rehearsal, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end.stage import Endpoints, Project, project, rows

from pipeline import Settings, Tier, plan, rehearse_plan
from pipeline.errors import SetupError

Make = Callable[..., Project]
ROOM = {"parameters": {"max_completion_tokens": 30}}


def test_a_plan_comes_from_a_pilot_that_is_kept(make: Make) -> None:
    user = make(
        count=200,
        limits={"requests_per_minute": 6000, "requests_per_day": 60, "budget_tokens": 120_000},
        model=ROOM,
    )
    found = user.do("plan", "job.toml", "--pilot", "15", "--json").expect(0).json
    assert (found["records"], found["done"], found["left"]) == (200, 15, 185)
    assert found["binding"] == "requests a day"
    assert 2 * 86_400 < found["seconds"] < 3 * 86_400 + 60, "45 today, then 60, 60 and 20"
    assert 0 < found["tokens"]["low"] < found["tokens"]["high"]
    assert found["cost"]["high"] > found["cost"]["low"] > 0
    assert [lane["name"] for lane in found["lanes"]] == ["live", "flex", "batch"]

    without = ("--set", "limits.requests_per_day=none")
    small = user.do("plan", "job.toml", "--pilot", "15", "--set", "limits.budget_tokens=12000", *without).expect(0).out
    assert small.startswith("The budget is not enough for all records")
    assert "limited by   budget" in small
    assert user.run(*without, "--set", "limits.budget_tokens=none")["labelled"] == 200


def test_limits_that_the_pilot_was_told_are_used_and_remembered(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(requests_per_minute=600.0, tokens_per_minute=50_000.0)
    user = project(tmp_path / "told", endpoint.base_url, 100)
    first = user.do("plan", "job.toml", "--json").expect(0).json
    assert first["told"] == {"requests_per_minute": 600, "requests_per_day": None, "tokens_per_minute": 50_000}
    assert first["binding"] in {"requests a minute", "tokens a minute"}
    calls = endpoint.calls()
    again = user.do("plan", "job.toml", "--json").expect(0).json
    assert endpoint.calls() == calls, "the pilot is there"
    assert again["told"] == first["told"]
    endpoints.close(endpoint)


def test_a_pilot_without_a_label_is_told_first_and_by_the_exit_code(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(faults={"bad_label": 1.0})
    user = project(tmp_path / "bad", endpoint.base_url, 40)
    done = user.do("plan", "job.toml", "--pilot", "10").expect(1)
    assert done.out.startswith("None of the 10 records so far got a label: ")
    assert "run/failed.csv has the reason" in done.out.splitlines()[0]
    found = user.do("plan", "job.toml", "--pilot", "10", "--json").expect(1).json
    assert sum(found["problems"].values()) == found["looked_at"] == 10
    endpoints.close(endpoint)


def test_a_pilot_does_not_wait_for_its_hours(make: Make) -> None:
    user = make(count=50, limits={"run_between": ["00:00", "00:01"], "concurrency": 1})
    assert user.do("plan", "job.toml", "--pilot", "5", "--json").expect(0).json["done"] == 5


def test_a_rehearsal_needs_no_key_and_leaves_the_run_alone(make: Make) -> None:
    user = make(
        count=200, model={"base_url": None}, limits={"requests_per_minute": 1_200, "run_between": ["0:00", "0:01"]}
    )
    found = user.do("plan", "job.toml", "--rehearse", "--records", "60", "--json").expect(0).json
    assert not user.run_dir.exists()
    assert (found["planned"]["records"], found["happened"]["records"]) == (60, 60)
    assert found["happened"]["calls"] >= 60
    assert found["tier"]["requests_per_minute"] == 1_200
    assert found["planned"]["binding"] == "requests a minute"
    assert found["happened"]["binding"] == "requests a minute"
    assert 0.5 < found["used"]["requests a minute"] <= 1.1
    assert found["whole"]["records"] == found["plan"]["left"]
    assert found["labelled"] + found["rejected"] + found["failed"] == 80
    assert (user.folder / "run-rehearsal" / "labels.csv").exists()

    told = user.do("plan", "job.toml", "--rehearse", "--records", "20", "--rpm", "600").expect(0).out
    assert "600 requests a minute" in told
    assert "planned" in told
    assert "happened" in told
    assert "are for a rehearsal" in user.do("plan", "job.toml", "--rpm", "600").expect(2).err


def test_a_tier_below_the_config_is_seen_in_the_rehearsal(make: Make) -> None:
    user = make(count=300, limits={"requests_per_minute": 60_000, "concurrency": 20})
    settings = Settings.load(user.folder / "job.toml", {"input.path": str(user.folder / "in.jsonl")},
                             output={"dir": str(user.run_dir)})  # fmt: skip
    found = rehearse_plan(settings, 60, Tier(requests_per_minute=1_200), pilot=10)
    assert found.plan.told.requests_per_minute == 1_200, "the endpoint told it in its headers"
    assert found.happened.requests_per_minute is not None
    assert found.happened.requests_per_minute < 1_500
    assert found.happened.binding == "requests a minute"


def test_a_rehearsal_that_the_machine_holds_up_says_so(make: Make) -> None:
    """Answers after 1 ms for 500 at once: no machine does that."""
    user = make(count=900, limits={"concurrency": 500}, rehearsal={"latency_ms": 1})
    told = user.do("plan", "job.toml", "--rehearse", "--records", "800").expect(0).out
    assert "This machine was the limit, not the server: it took " in told
    assert " of a core." in told
    assert next(line for line in told.splitlines() if "limited by" in line).endswith("this machine")


def test_the_latency_is_that_of_the_run_so_far(make: Make) -> None:
    user = make(count=60)
    user.do("plan", "job.toml", "--pilot", "20").expect(0)
    # The test's endpoint says that its answers are simulated; a model's would not.
    manifest = user.run_dir / "manifest.json"
    before = {path.name: path.read_bytes() for path in user.run_dir.iterdir()}
    found = user.do("plan", "job.toml", "--rehearse", "--records", "10", "--json").expect(0).json
    assert manifest.exists()
    assert {path.name: path.read_bytes() for path in user.run_dir.iterdir()} == before
    assert found["latency_from"] in {"the run so far", "rehearsal.latency_ms"}


def test_what_is_not_a_rehearsal_is_never_removed(make: Make) -> None:
    user = make(count=20)
    folder = user.folder / "run-rehearsal"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    assert "contains something else" in user.do("plan", "job.toml", "--rehearse").expect(2).err
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_settings_made_in_python_can_be_planned(make: Make) -> None:
    user = make(count=30)
    config = user.config
    settings = Settings(
        input={"path": str(user.folder / "in.jsonl"), "key": "id"},
        task=config["task"],
        model=config["model"],
        limits={"requests_per_minute": 6_000},
        output={"dir": str(user.run_dir)},
    )
    assert plan(settings, 5, quiet=True).done == 5
    assert rehearse_plan(settings, 10).happened.records == 10
    with pytest.raises(SetupError, match="stdin can be read only once"):
        plan(settings.model_copy(update={"input": settings.input.model_copy(update={"path": "-"})}))


def test_a_pilot_whose_first_calls_hang_asks_whether_the_server_is_there(tmp_path: Path, endpoints: Endpoints) -> None:
    """Without that, its records would wait for an outage to end that is none."""
    endpoint = endpoints.open(poison={"HANG": "hang"})
    model, limits = {"timeout_s": 3}, {"max_attempts": 2, "concurrency": 4}
    user = project(tmp_path / "silent", endpoint.base_url, model=model, limits=limits)
    user.give({**row, "text": "HANG"} if at < 4 else row for at, row in enumerate(rows(12)))
    found = user.do("plan", "job.toml", "--pilot", "12", "--json").expect(0).json
    assert found["done"] == 12
    assert {row["code"] for row in user.failed()} == {"timeout"}
    events = [json.loads(line) for line in (user.run_dir / "run.log").read_text(encoding="utf-8").splitlines()]
    assert [one["answered"] for one in events if one["event"] == "ping"][:1] == [True]
    assert endpoint.totals()["calls"] > len(endpoint.lines()), "and it is counted as no record's call"
    endpoints.close(endpoint)
