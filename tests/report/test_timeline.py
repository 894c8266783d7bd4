"""What a session notes of its pace is bounded, and the chart neither loses nor invents a call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report.timeline import BUCKETS, Timeline, read_timeline, timeline_of
from pipeline.runner.throughput import interval_s

WEEK_S = 7 * 24 * 3600.0


def lines_until(end_s: float) -> int:
    """How many lines a session of that length writes, where it is looked at once a second."""
    at_s, lines = 0.0, 0
    while at_s < end_s:
        at_s, lines = at_s + max(1.0, interval_s(at_s)), lines + 1
    return lines


def test_a_week_is_a_few_thousand_lines_and_a_minute_is_seen_second_by_second() -> None:
    assert lines_until(60.0) == 60
    assert lines_until(WEEK_S) < 2_000
    assert lines_until(100 * WEEK_S) < 3_000


def span(session: float, at: float, span_s: float, answers: int, refused: int, limit: float | None) -> str:
    counts = {"records": answers, "calls": answers + refused, "answers": answers, "refused": refused}
    return json.dumps({"session": session, "at": at, "span_s": span_s, **counts, "requests_per_minute": limit})


SPANS = st.tuples(st.floats(0.1, 400), st.integers(0, 10_000), st.integers(0, 500), st.none() | st.floats(1, 1e5))


@settings(max_examples=25)
@given(sessions=st.lists(st.lists(SPANS, min_size=1, max_size=60), min_size=1, max_size=4))
def test_the_buckets_hold_each_call_once(sessions: list[list[tuple[float, int, int, float | None]]]) -> None:
    found = noted(sessions)
    answers = sum(count for one in sessions for _, count, _, _ in one)
    refused = sum(count for one in sessions for _, _, count, _ in one)
    widths = [one.until_s - one.since_s for one in found.buckets]
    assert len(found.buckets) <= BUCKETS
    assert found.length_s == pytest.approx(sum(length for one in sessions for length, *_ in one))
    assert sum(one.answered * width / 60 for one, width in zip(found.buckets, widths, strict=True)) == pytest.approx(
        answers
    )
    assert sum(one.refused * width / 60 for one, width in zip(found.buckets, widths, strict=True)) == pytest.approx(
        refused
    )
    assert found.totals["answers"] == answers
    assert found.sessions == len(sessions)


def noted(sessions: list[list[tuple[float, int, int, float | None]]]) -> Timeline:
    lines, begins_at = [], 1_800_000_000.0
    for number, one in enumerate(sessions):
        session = at = begins_at + number * 86_400
        for length_s, answers, refused, limit in one:
            at += length_s
            lines.append(span(session, at, length_s, answers, refused, limit))
    return read_text("\n".join(lines))


def read_text(text: str) -> Timeline:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "throughput.jsonl"
        path.write_text(text, encoding="utf-8")
        found = read_timeline(path)
    assert found is not None
    return found


def test_outages_lie_where_they_were_and_the_time_between_sessions_is_left_out() -> None:
    """The first session ends in an outage that began before it did; the second begins a day later."""
    first, second = 1_800_000_000.0, 1_800_086_400.0
    lines = [
        span(first, first + 10, 10, 100, 0, 600),
        span(first, first + 20, 10, 0, 0, 600),
        json.dumps({"session": first, "since": first + 12, "until": first + 20, "outage": "503"}),
        span(second, second + 10, 10, 100, 5, 600),
        json.dumps({"session": second, "since": second - 3, "until": second + 2, "outage": "reset"}),
        '{"session": 1800086400.0, "at": 18000864',  # a kill came while it was written
    ]
    found = read_text("\n".join(lines))
    assert found.outages == [(12.0, 20.0, "503"), (20.0, 22.0, "reset")]
    assert (found.borders, found.length_s, found.ended_at) == ([20.0], 30.0, second + 10)


def test_a_limit_of_tokens_is_drawn_as_one_of_calls() -> None:
    """At 100 tokens an answer, 30,000 tokens a minute are 300 calls; the lower of the two limits holds."""
    lines = [json.loads(span(1.0, 1.0 + at, 10, 50, 0, limit)) for at, limit in ((10, None), (20, 200.0), (30, 900.0))]
    more: dict[str, Any] = {"tokens": 5_000, "tokens_per_minute": 30_000.0}
    found = read_text("\n".join(json.dumps({**line, **more}) for line in lines))
    assert [one.limit for one in found.buckets] == [300.0, 200.0, 300.0]
    assert found.tokens_each == 100.0


def test_a_run_that_noted_nothing_shows_when_its_records_ended(tmp_path: Path) -> None:
    assert read_timeline(tmp_path / "throughput.jsonl") is None
    found = timeline_of({0: 30, 2: 60}, 60.0)
    assert [one.answered for one in found.buckets] == [30.0, 0.0, 60.0]
    assert found.unit == "records"
