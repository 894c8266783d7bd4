"""The closing screen's words."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.records import Usage
from pipeline.show.views import closing_lines
from pipeline.stats import RunSummary


def summary(**facts: Any) -> RunSummary:
    plain: dict[str, Any] = {
        "run_dir": "runs/x", "ended": "complete", "exit_code": 0, "labelled": 8, "rejected": 0, "failed": 0,
        "pending": 0, "problems": {}, "session_records": 8, "session_s": 1.5, "calls": 14, "refusals": 0,
        "retries": {}, "usage": Usage(10, 2), "cost_usd": None, "latency_p50_s": 0.1, "latency_p95_s": 0.2,
        "outages": 0, "outage_s": 0.0, "simulated": False,
    }  # fmt: skip
    return RunSummary(**{**plain, **facts})


@pytest.mark.parametrize(
    ("retries", "shown"),
    [
        ({}, "p95 0.20 s"),
        ({"timeout": 1}, "p95 0.20 s · 1 retry"),
        ({"timeout": 1, "unavailable": 2}, "p95 0.20 s · 3 retries"),
        ({"hedge": 25}, "p95 0.20 s · 25 hedged"),
        ({"hedge": 25, "timeout": 1}, "p95 0.20 s · 1 retry · 25 hedged"),
    ],
)
def test_second_calls_are_told_apart_from_retries(retries: dict[str, int], shown: str) -> None:
    (line,) = (line for line in closing_lines(summary(retries=retries)) if "calls" in line)
    assert line.endswith(shown)


def test_labels_stand_with_their_shares() -> None:
    counts = {"positive": 148, "neutral": 102, "negative": 50}
    values = {f"v{number}": 1 for number in range(12)}
    confidence = {f"0.{number}": 1 for number in range(12)}  # no classes, so not shown
    labels = {"label": counts, "confidence": confidence, "topic": values, "tags": {"x" * 50: 200, "b": 150}}
    labels["stars"] = {"10": 200, "9": 100}
    lines = closing_lines(summary(labelled=300, labels=labels, copied=12))
    assert not [line for line in lines if "confidence" in line]
    assert "  12 share the answer of an identical record" in lines
    at = lines.index("  label     positive  148   49%  █████████▉")
    assert lines[at + 1 : at + 3] == [
        "            neutral   102   34%  ██████▊",
        "            negative   50   17%  ███▍",
    ]
    assert "            4 more values, 4 in all" in lines
    at = lines.index(f"  tags      {'x' * 39}…  200   67%  █████████████▍")
    assert lines[at + 1].split()[:3] == ["b", "150", "50%"], "of the records, which may have both"
    assert [line.split()[-4] for line in lines[at + 2 : at + 4]] == ["9", "10"], "numbers stand in their order"


def test_a_usage_that_no_answer_told_is_no_cost_of_nothing() -> None:
    (line,) = (line for line in closing_lines(summary(untold=3)) if "tokens" in line)
    assert line.endswith("cost unknown: the answers for 3 records do not say what they used")
    (line,) = (line for line in closing_lines(summary(untold=3, cost_usd=1.5)) if "tokens" in line)
    assert line.endswith("what they used, $1.50 without them")
    (line,) = (line for line in closing_lines(summary(readings={"x": 2})) if line.startswith("  read"))
    assert line.endswith("2 with x; task.strict_answers = true refuses these")


def test_a_limit_that_no_header_states_is_shown_as_an_estimate() -> None:
    learned = {"requests_per_minute": 440, "tokens_per_minute": 90_000, "concurrency": 12}
    lines = closing_lines(summary(learned=learned, estimated=["requests_per_minute"]))
    assert [line.strip() for line in lines if ": set limits." in line] == [
        "the server allows about 440 requests per minute, estimated from refusals: set limits.requests_per_minute",
        "the server allows 90,000 tokens per minute: set limits.tokens_per_minute",
        "auto settled at 12 in flight: set limits.concurrency",
    ]
