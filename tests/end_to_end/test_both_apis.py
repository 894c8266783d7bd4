"""One config, labelled through Chat Completions and through Responses at the rehearsal endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Project, project
from end_to_end.talks import outcomes, talking

APIS = ("chat", "responses")
#: Each of them is repaired, asked again, read all the same, or a record's ending.
KINDS = "bad_label bad_json no_tool two_calls wrong_tool prefixed refusal length content_filter 429 500 broken html"
FAULTS = dict.fromkeys(KINDS.split(), 0.04)


def through(api: str, user: Project, *, code: int = 0, **tables: Any) -> Project:
    """The project's run through this API."""
    model = {"name": "gpt-6-luna", "base_url": "rehearsal", "api": api, "timeout_s": 20}
    user.configure(model={**model, "parameters": {"max_completion_tokens": 200, "reasoning_effort": "low"}}, **tables)
    user.run(code=code)
    return user


def in_order(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def told(user: Project) -> dict[str, Any]:
    """What the ledger has of each record, but for what no two runs share."""
    return {
        key: (one.status, one.label, one.problem, one.attempts, one.repairs, one.usage)
        for key, one in outcomes(user).items()
    }


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Project]:
    folder = tmp_path_factory.mktemp("both")
    rehearsal = {"latency_ms": 1, "faults": FAULTS}
    return {api: through(api, project(folder / api, "rehearsal", 120), code=1, rehearsal=rehearsal) for api in APIS}


def test_both_apis_give_the_same_rows_through_faults_and_repairs(labelled: dict[str, Project]) -> None:
    chat, responses = (labelled[api] for api in APIS)
    assert in_order(responses.labels()) == in_order(chat.labels())
    assert in_order(responses.failed()) == in_order(chat.failed())
    assert len(chat.labels()) + len(chat.failed()) == 120
    assert told(responses) == told(chat)
    assert {one.repairs > 0 for one in outcomes(responses).values()} == {True, False}


def test_both_apis_answer_by_schema_alone(tmp_path: Path) -> None:
    """No function is offered, and repairs and refusals are as with one."""
    faults = {"bad_label": 0.2, "bad_json": 0.2, "refusal": 0.1, "length": 0.1}
    model = {"name": "gpt-6-luna", "base_url": "rehearsal", "tool_choice": "schema"}
    model["parameters"] = {"max_completion_tokens": 200, "reasoning_effort": "none"}
    chat, responses = (project(tmp_path / api, "rehearsal", 60) for api in APIS)
    for api, user in zip(APIS, (chat, responses), strict=True):
        user.configure(model={**model, "api": api}, rehearsal={"latency_ms": 1, "faults": faults})
        user.run(code=1)
    assert in_order(responses.labels()) == in_order(chat.labels())
    assert len(chat.labels()) > 40
    assert told(responses) == told(chat)
    assert any(one.repairs for one in outcomes(chat).values())
    assert {row["code"] for row in chat.failed()} <= {"refused", "invalid_label", "invalid_json", "truncated"}


def test_auto_takes_the_api_that_the_model_needs(tmp_path: Path) -> None:
    user = project(tmp_path, "rehearsal", 3)
    for effort, api, why in (("low", "responses", "takes functions"), ("none", "chat", "nothing here needs")):
        model = {"name": "gpt-6-luna", "base_url": "rehearsal", "api": "auto"}
        user.configure(model={**model, "parameters": {"reasoning_effort": effort}})
        done = user.do("check", "job.toml").expect(0)
        assert f"{api}: " in done.out
        assert why in done.out
    user.configure(model={**model, "parameters": {"seed": 1}})
    assert "model.parameters.seed cannot be sent with" in user.do("run", "job.toml").expect(2).err


def test_both_apis_lead_the_same_conversations(tmp_path: Path) -> None:
    """The endpoint refuses reasoning that does not come back as it left, and a call without it is another prompt."""
    runs = [through(api, talking(tmp_path / api, "rehearsal", 12), code=1, rehearsal={"latency_ms": 1}) for api in APIS]
    chat, responses = runs
    assert in_order(responses.labels()) == in_order(chat.labels())
    assert told(responses) == told(chat)
    assert min(one.attempts for one in outcomes(responses).values()) > 1
    assert {row["code"] for row in responses.failed()} == {"unfinished"}, "these talked for more turns than they had"


def test_a_parameter_that_the_api_does_not_have_is_refused_before_a_call(tmp_path: Path) -> None:
    user = project(tmp_path, "rehearsal", 3)
    user.configure(model={"name": "m", "base_url": "rehearsal", "api": "responses", "parameters": {"seed": 1}})
    for command in (["run", "job.toml"], ["check", "job.toml"]):
        done = user.do(*command).expect(2)
        assert 'model.parameters.seed cannot be sent with model.api = "responses"' in done.out + done.err
    assert not user.run_dir.exists()


def test_an_answer_with_its_items_is_in_no_outcome(labelled: dict[str, Project]) -> None:
    """What only the next turn needs is not kept for a record that is at its end."""
    assert all(one.answer is None or one.answer.items == () for one in outcomes(labelled["responses"]).values())
