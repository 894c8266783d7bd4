"""Counters, rates and percentiles: right, and in flat memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.records import Outcome, Problem, Record, Status, Usage
from pipeline.stats import Latencies, Rate, RunSummary, Stats

RECORD = Record("in.jsonl", 0, "k0", {}, 1, 1)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.floats(0.001, 3600), min_size=1, max_size=300), st.sampled_from([1, 50, 95, 99, 100]))
def test_percentiles_are_within_five_percent(durations: list[float], percent: int) -> None:
    latencies = Latencies()
    for one in durations:
        latencies.add(one)
    exact = sorted(durations)[max(0, -(-len(durations) * percent // 100) - 1)]
    assert latencies.percentile_s(percent) == pytest.approx(exact, rel=0.05)


def test_without_a_duration_there_is_no_percentile_and_the_shortest_count_as_a_millisecond() -> None:
    latencies = Latencies()
    assert latencies.percentile_s(50) is None
    latencies.add(0.0)
    assert latencies.percentile_s(50) == pytest.approx(0.001, rel=0.05)


def test_a_million_durations_take_no_more_room_than_a_thousand() -> None:
    latencies, chance = Latencies(), random.Random(1)
    for _ in range(20_000):
        latencies.add(chance.expovariate(1))
    assert latencies.count == 20_000
    assert len(latencies._buckets) < 250


def test_a_rate_is_that_of_the_last_minute() -> None:
    clock = Clock()
    rate = Rate(clock)
    for _ in range(120):
        rate.add(2)
        clock.now += 1
    assert rate.per_minute() == pytest.approx(120, abs=3)
    clock.now += 30
    assert rate.per_minute() == pytest.approx(60, abs=3)
    clock.now += 31
    assert rate.per_minute() == 0


def test_after_a_change_the_rate_is_that_of_what_came_since() -> None:
    """After `set` it was for a minute that of the limits before."""
    clock = Clock()
    rate = Rate(clock)
    for _ in range(60):
        rate.add(10)
        clock.now += 1
    rate.restart()
    for _ in range(5):
        rate.add(1)
        clock.now += 1
    assert rate.per_minute() == pytest.approx(60)


def test_a_young_rate_is_over_its_own_time_and_no_wild_guess() -> None:
    clock = Clock()
    rate = Rate(clock)
    rate.add()
    assert rate.per_minute() == 60
    clock.now += 10
    rate.add(9)
    assert rate.per_minute() == 60


def test_a_rate_holds_no_more_than_its_minute() -> None:
    clock = Clock()
    rate = Rate(clock)
    for _ in range(10_000):
        rate.add()
        clock.now += 0.5
    assert len(rate._steps) <= 61


def test_everything_is_counted_by_its_reason() -> None:
    stats = Stats(Clock())
    stats.record_answer(Usage(10, 2, 4, 1, 3), 0.5)
    stats.record_answer(Usage(5, 1), 1.5)
    stats.record_retry("timeout")
    assert (stats.answers, stats.usage) == (2, Usage(15, 3, 4, 1, 3))
    assert stats.retries == {"timeout": 1}
    assert stats.latencies.count == 2


def test_outcomes_are_counted_when_they_are_written() -> None:
    clock = Clock()
    stats = Stats(clock)
    stats.record_outcome(Outcome(RECORD, Status.LABELLED, {"a": 1}, cost_usd=0.25))
    stats.record_outcome(Outcome(RECORD, Status.LABELLED, {"a": 1}, cost_usd=0.0, copied_from="k1"))
    stats.record_outcome(Outcome(RECORD, Status.REJECTED, problem=Problem("refused", "no")))
    clock.now += 60
    assert stats.records == 3
    assert stats.outcomes == {Status.LABELLED: 2, Status.REJECTED: 1}
    assert stats.problems == {"refused": 1}
    assert (stats.cost_usd, stats.unpriced) == (0.25, 1)
    assert stats.elapsed_s == 60
    assert stats.outcome_rate.per_minute() == 0


def test_a_summary_is_plain_values() -> None:
    summary = RunSummary(
        run_dir="runs/x", ended="complete", exit_code=1, labelled=8, rejected=1, failed=1, pending=0,
        problems={"refused": 1, "timeout": 1}, session_records=10, session_s=1.5, calls=14, refusals=1,
        retries={"unavailable": 3}, usage=Usage(10, 2), cost_usd=None, latency_p50_s=0.1, latency_p95_s=0.2,
        outages=0, outage_s=0.0, simulated=True,
    )  # fmt: skip
    assert summary.records == 10
    plain = codec.loads(codec.dumps(summary.as_dict()))
    assert (plain["exit_code"], plain["cost_usd"], plain["usage"]["prompt"]) == (1, None, 10)
