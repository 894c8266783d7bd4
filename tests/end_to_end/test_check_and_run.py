"""What `run` refuses before its first call, `check` says, and `plan` refuses before it pays for a pilot."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from end_to_end.stage import Endpoint, Project

from pipeline.store import RunDir

Make = Callable[..., Project]
ROOM = {"parameters": {"max_completion_tokens": 30}}


@pytest.mark.parametrize(
    ("tables", "name", "told"),
    [
        ({"limits": {"budget_usd": 1.0}}, "budget", "set model.parameters.max_completion_tokens"),
        ({"limits": {"budget_tokens": 9_000}}, "budget", "set model.parameters.max_completion_tokens"),
        (
            {"limits": {"budget_tokens": 9_000}, "model": {"parameters": {"max_completion_tokens": "none"}}},
            "budget",
            "set model.parameters.max_completion_tokens",
        ),
        ({"limits": {"budget_usd": 1.0}, "model": {"name": "nobody-knows", **ROOM}}, "budget", "set model.price"),
        ({"limits": {"stop_at": "25:99"}}, "limits", "stop_at"),
        ({"limits": {"run_between": ["7", "22:00"]}}, "limits", "run_between"),
        ({"task": {"prompt": "Label this."}}, "prompt", "task.prompt names no field"),
        ({"output": {"columns": ["id", "txt"]}}, "columns", "no record has 'txt' (did you mean 'text'?)"),
    ],
)
def test_what_a_run_refuses_a_check_says_and_a_plan_pays_nothing_for(
    make: Make, endpoint: Endpoint, tables: Mapping[str, Any], name: str, told: str
) -> None:
    user = make(**tables)
    before = endpoint.calls()
    done = user.do("check", "job.toml", "--json")
    if done.err:  # the settings themselves are refused
        assert told in done.expect(2).err
    else:
        assert any(one["name"] == name and told in one["detail"] for one in done.expect(2).json["checks"])
    for command in ("run", "plan"):
        assert told in user.do(command, "job.toml").expect(2).err
    assert endpoint.calls() == before
    assert not user.run_dir.exists(), "nothing was begun"


def test_a_budget_that_lets_no_call_through_is_said(make: Make) -> None:
    user = make(limits={"budget_tokens": 40}, model=ROOM)
    checks = {one["name"]: one for one in user.do("check", "job.toml", "--json").expect(2).json["checks"]}
    assert "no call is let through" in checks["budget"]["detail"]
    assert user.run(code=3)["calls"] == 0

    user.configure(limits={"budget_tokens": 2_000, "concurrency": 1})
    assert 0 < user.run(code=3)["labelled"] < 20
    done = user.do("check", "job.toml").expect(0)
    assert "no call is let through: limits.budget_tokens = 2000" in done.out
    assert "a run would not start: see budget." in done.out
    assert "Nothing stands in the way" not in done.out


def test_a_budget_that_does_says_what_is_spent(make: Make) -> None:
    user = make(limits={"budget_tokens": 90_000}, model=ROOM)
    assert "0 tokens spent so far" in user.do("check", "job.toml").expect(0).out
    assert "The run can start." in user.do("check", "job.toml").expect(0).out


def test_a_run_at_work_a_changed_run_and_a_missing_key_are_in_the_way(make: Make) -> None:
    user = make()
    with RunDir(user.run_dir).open_for_writing():
        told = user.do("check", "job.toml").expect(0).out
        assert "a run is in progress in" in told
        assert "a run would not start: see in use." in told
    user.run()
    user.configure(task={"system": "another one"})
    assert "a run would not start: see resume." in user.do("check", "job.toml").expect(0).out
    user.configure(model={"base_url": None, "name": "gpt-4o-mini"})
    done = user.do("check", "job.toml", "--offline").expect(0).out
    assert "OPENAI_API_KEY is not set" in done
    assert "see resume, model." in done


def test_every_input_is_opened_as_a_run_does(make: Make) -> None:
    user = make(input={"path": "in/*.csv", "key": None})
    (user.folder / "in").mkdir()
    for number in range(25):
        (user.folder / "in" / f"{number:02}.csv").write_text("id,text\n1,one\n", encoding="utf-8")
    (user.folder / "in" / "24.csv").write_text(",,\n1,one,two\n", encoding="utf-8")
    told = user.do("run", "job.toml").expect(2).err
    assert "24.csv" in told
    checked = user.do("check", "job.toml").expect(2).out
    assert "24.csv" in checked


def test_an_input_without_records_is_said(make: Make) -> None:
    user = make()
    user.give([])
    assert "FAIL  records  the input has no records" in user.do("check", "job.toml").expect(2).out
    assert "there is nothing to label: in.jsonl" in user.do("plan", "job.toml").expect(2).err
    assert not user.run_dir.exists()


def test_telemetry_that_cannot_be_opened_is_said(make: Make) -> None:
    user = make(telemetry={"enabled": True})
    env = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert "speaks http/protobuf only" in user.do("run", "job.toml", env=env).expect(2).err
    checks = user.do("check", "job.toml", "--json", env=env).expect(2).json["checks"]
    assert [one["name"] for one in checks if one["ok"] is False] == ["telemetry"]
    assert json.dumps(checks).count("can be opened") == 0


def test_a_column_that_only_the_last_record_has_is_one(make: Make) -> None:
    user = make(output={"columns": ["id", "late"]})
    rows = [json.loads(line) for line in (user.folder / "in.jsonl").read_text(encoding="utf-8").splitlines()]
    user.give([*rows, {**rows[0], "id": "last", "late": "yes"}])
    assert "ok    columns  id, late" in user.do("check", "job.toml", "--offline").expect(0).out
    assert user.run("--limit", "3")["labelled"] == 3


@pytest.mark.parametrize(
    ("given", "config", "told"),
    [
        ("1;a,b\n2;c,d\n", {"format": "csv"}, "set input.delimiter to the one that is meant"),
        ("id,text\n1,a\n", {"format": "csv", "columns": ["txt"]}, "no record has 'txt' (did you mean 'text'?)"),
    ],
)
def test_what_a_pipe_must_be_asked_about_is_asked_before_a_call(
    make: Make, endpoint: Endpoint, given: str, config: Mapping[str, Any], told: str
) -> None:
    user = make(input={"path": "-", "key": None, "format": config["format"]}, output={"columns": config.get("columns")})
    before = endpoint.calls()
    done = user.do("run", "job.toml", given=given).expect(2)
    assert told in done.err
    assert endpoint.calls() == before
