"""Calls that go wrong: nothing is lost, nothing is wrong, nothing is paid for that need not be."""

from __future__ import annotations

from pathlib import Path

import pytest
from end_to_end.stage import CODES, Endpoints, project, rows

from pipeline import Settings, run

EIGHT_WAYS = ["429", "503", "reset", "cut", "502_html", "broken", "bad_json", "bad_label"]


def test_nine_percent_fail_in_eight_ways(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(faults=dict.fromkeys(EIGHT_WAYS, 0.09 / 8), latency_ms=10)
    user = project(tmp_path / "project", endpoint.base_url, count=800, limits={"concurrency": 32})
    summary = user.run()
    totals = endpoint.totals()
    assert set(totals["failed"]) == set(EIGHT_WAYS), "all eight ways were met"
    assert 0.06 < sum(totals["failed"].values()) / totals["calls"] < 0.12
    assert (summary["labelled"], summary["rejected"], summary["failed"]) == (800, 0, 0)
    labels = {row["id"]: {"label": row["label"]} for row in user.labels()}
    assert labels.keys() == {row["id"] for row in rows(800)}, "0 lost"
    given = endpoint.given()
    assert all(label in given[key] for key, label in labels.items()), "0 wrong"
    assert {len(answers) for answers in given.values()} == {1}, "no good answer was paid for twice"
    assert summary["outages"] == 0
    user.verify()
    endpoints.close(endpoint)


def test_answers_without_a_valid_label_are_asked_again_or_rejected(tmp_path: Path, endpoints: Endpoints) -> None:
    asked_again = dict.fromkeys(["no_tool", "wrong_tool", "two_calls", "length", "tool_use_failed"], 0.04)
    of_the_moment = dict.fromkeys(["498", "choice_error", "finish_error"], 0.02)
    rejected = dict.fromkeys(["refusal", "content_filter", "400", "innererror"], 0.03)
    endpoint = endpoints.open(faults={**asked_again, **of_the_moment, **rejected})
    user = project(tmp_path / "project", endpoint.base_url, count=300, limits={"concurrency": 16})
    summary = user.run(code=1)
    failed = endpoint.totals()["failed"]
    assert set(failed) == {*asked_again, *of_the_moment, *rejected}, "all ways were met"
    assert summary["problems"]["refused"] == failed["refusal"] + failed["content_filter"]
    assert summary["problems"]["bad_request"] == failed["400"] + failed["innererror"]
    assert summary["labelled"] + summary["rejected"] == 300
    assert {row["label"] for row in user.labels()} <= set(CODES)
    assert all(row["code"] and row["message"] for row in user.failed()), "every row without a label says why"
    user.verify()
    endpoints.close(endpoint)


@pytest.mark.parametrize(
    ("kind", "code", "told"),
    [
        ("402", 3, "top up or raise the quota"),
        ("thinking", 2, 'set model.parameters.thinking = { type = "disabled" }'),
        ("error_text", 2, 'set model.tool_choice = "required"'),
    ],
)
def test_what_no_call_gets_past_ends_the_run_with_the_key_to_set(
    kind: str, code: int, told: str, tmp_path: Path
) -> None:
    settings = Settings.load(
        None,
        [f"rehearsal.faults={{ {kind} = 1.0 }}"],
        input={"path": "-", "key": "id"},
        task={"prompt": "{{ text }}", "labels": {"label": ["a", "b"]}},
        model={"name": "gpt-6-luna", "base_url": "rehearsal"},
        output={"dir": str(tmp_path / "run")},
    )
    summary = run(settings, records=rows(40))
    assert (summary.labelled, summary.rejected, summary.exit_code) == (0, 0, code)
    assert told in summary.next_step
