"""The arithmetic of a plan: when it would be done, what binds, what each lane costs, what a sample is."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline import Settings, Status, Usage
from pipeline.errors import SetupError
from pipeline.facts import Interval, MachineLoad, Plan, Tier, Workload
from pipeline.limits import Hours, price_of
from pipeline.parts import price_for, votes_usd
from pipeline.planner.estimate import PilotFacts, make_plan
from pipeline.planner.recorder import tier_from
from pipeline.planner.rehearsals import bound_by, folder_of, part_of, sample_of, tier_of
from pipeline.planner.schedule import PacingLimits, simulate, until_used_up
from pipeline.records import Outcome, Record, ServerLimits
from pipeline.show import plan_lines

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR_S, DAY_S = 3_600.0, 86_400.0


def settings(**tables: Any) -> Settings:
    base: dict[str, Any] = {
        "input": {"path": "a.jsonl"},
        "task": {"prompt": "{{ text }}", "labels": {"label": ["a", "b"]}},
        "model": {"name": "gpt-6-luna"},
        "limits": {"concurrency": 100},
    }
    return Settings(**{name: {**base.get(name, {}), **tables.get(name, {})} for name in {*base, *tables}})


def seen(records: int = 1_010, **more: Any) -> PilotFacts:
    """Ten of the records asked: 100 prompt tokens, 10 completion tokens, 2 s each."""
    asked = [
        Outcome(
            Record("a.jsonl", number, str(number), {}, number + 1, number),
            Status.LABELLED,
            attempts=1,
            usage=Usage(100, 10),
            latency_s=2.0,
        )
        for number in range(10)
    ]
    return PilotFacts(**{"records": records, "done": 10, "outcomes": asked, "now": NOON, **more})


def estimated(limits: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **more: Any) -> Plan:
    wanted = settings(limits=limits or {}, model=model or {})
    return make_plan(wanted, seen(**more), price_of("gpt-6-luna", service_tier=(model or {}).get("tier")))


def test_voters_cost_what_their_models_cost() -> None:
    voters = [{"model": "other", "price": {"input": 10.0, "output": 10.0}}, {"prompt": "again {{ text }}"}]
    wanted = settings(model={"price": {"input": 1.0, "output": 1.0}}, quality={"voters": voters})
    assert votes_usd(wanted, Usage(100, 10)) == pytest.approx(110e-6 * (1 + 10))
    asked = [replace(one, usage=Usage(200, 20), cost_usd=110e-6 * 11) for one in seen().outcomes]
    found = make_plan(wanted, seen(outcomes=asked), price_for(wanted))
    assert found.cost is not None
    assert found.cost.middle == pytest.approx(1_000 * 110e-6 * 11)


# -- when ------------------------------------------------------------------------------------------------------------


def night(begin: str, end: str) -> Hours:
    return Hours((begin, end), None, zone=UTC)


@pytest.mark.parametrize(
    ("calls", "terms", "seconds"),
    [
        (0, PacingLimits(per_s=1), 0),
        (100, PacingLimits(per_s=2), 50),
        (100, PacingLimits(), 0),
        (100, PacingLimits(per_s=2, per_day=100), 50),
        (100, PacingLimits(per_s=2, per_day=100, used_today=60), 12 * HOUR_S + 30),
        (250, PacingLimits(per_day=100), 12 * HOUR_S + DAY_S),
        (7_200, PacingLimits(per_s=1, hours=night("12:00", "13:00")), DAY_S + HOUR_S),
        (10, PacingLimits(per_s=1, hours=night("22:00", "07:00")), 10 * HOUR_S + 10),
        # 22:00 to 24:00 are one day's, and from midnight on the next day's requests are there
        (150, PacingLimits(per_s=1, per_day=100, hours=night("22:00", "07:00")), 12 * HOUR_S + 50),
        # today's are used up, and the day begins outside the hours
        (150, PacingLimits(per_s=1, per_day=100, hours=night("12:00", "13:00")), DAY_S + 50),
        (1e9, PacingLimits(per_day=1), math.inf),
    ],
)
def test_when_calls_are_done(calls: float, terms: PacingLimits, seconds: float) -> None:
    assert simulate(calls, NOON, terms).seconds == pytest.approx(seconds)


def test_what_is_done_by_a_deadline() -> None:
    terms = PacingLimits(per_s=1, per_day=1_000, used_today=400)
    assert simulate(5_000, NOON, terms, NOON + timedelta(seconds=100)).calls == pytest.approx(100)
    assert simulate(5_000, NOON, terms, NOON + timedelta(hours=6)).calls == pytest.approx(600)
    assert simulate(5_000, NOON, terms, NOON + timedelta(hours=12, seconds=30)).calls == pytest.approx(630)
    assert simulate(50, NOON, terms, NOON + timedelta(hours=6)).calls == pytest.approx(50)


# -- what binds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "binding", "seconds"),
    [
        ({"requests_per_minute": 6_000, "concurrency": 10}, "concurrency", 200),
        ({"requests_per_minute": 60}, "requests a minute", 1_000),
        ({"requests_per_minute": 6_000, "tokens_per_minute": 1_100}, "tokens a minute", 6_000),
        ({"requests_per_day": 400}, "requests a day", 12 * HOUR_S + DAY_S + 200 / 50),
        ({"requests_per_minute": 6_000, "budget_tokens": 55_000}, "budget", 20),
    ],
)
def test_what_binds(limits: dict[str, Any], binding: str, seconds: float) -> None:
    found = estimated(limits)
    assert found.left == 1_000
    assert found.binding == binding
    assert found.seconds == pytest.approx(seconds, rel=0.01)


def test_limits_that_the_server_told_count_where_the_config_has_none_or_higher_ones() -> None:
    tier = Tier(requests_per_minute=60, requests_per_day=100_000)
    assert estimated({"requests_per_minute": 6_000}, tier=tier).binding == "requests a minute"
    assert estimated(tier=tier).durations_s["requests a minute"] == pytest.approx(1_000)
    assert estimated({"requests_per_minute": 30}, tier=tier).durations_s["requests a minute"] == pytest.approx(2_000)
    assert "the server   says 60 requests a minute" in "\n".join(plan_lines(estimated(tier=tier)))


def test_where_nothing_is_known_no_time_is_made_up() -> None:
    found = estimated({"concurrency": "auto"})
    assert (found.seconds, found.binding, found.ends_at) == (None, "nothing", None)
    assert "no limit is known" in "\n".join(plan_lines(found))


def test_a_day_limit_that_misses_the_deadline_is_in_the_first_line() -> None:
    now = datetime.now().astimezone()
    stop_at = f"{now + timedelta(hours=1):%H:%M}"
    found = estimated({"requests_per_day": 300, "stop_at": stop_at}, now=now, used_today=100)
    first = plan_lines(found)[0]
    assert first.startswith(f"It cannot be done by {stop_at} (limits.stop_at)")
    assert "300 requests a day (limits.requests_per_day)" in first
    assert found.done_by_stop is not None
    assert 200 <= found.done_by_stop <= 500, "today's, and tomorrow's where midnight (UTC) comes first"
    assert found.late_by_s > 0


def test_what_the_run_has_spent_is_gone_from_its_budget() -> None:
    assert estimated({"budget_tokens": 120_000}).budget_records is None
    found = estimated({"budget_tokens": 120_000}, spent=(0.0, 65_000))
    assert found.budget_records == 500
    assert plan_lines(found)[0].startswith(
        "The budget is not enough for all records: the run ends after about 500 of 1,000"
    )


# -- lanes -----------------------------------------------------------------------------------------------------------


def test_flex_and_batch_cost_half_where_the_price_list_says_so() -> None:
    live, flex, batch = estimated({"requests_per_minute": 600}).lanes
    assert (live.name, flex.name, batch.name) == ("live", "flex", "batch")
    assert live.cost is not None
    assert flex.cost is not None
    assert batch.cost is not None
    assert live.cost.middle == pytest.approx(1_000 * (100 * 0.10 + 10 * 0.50) / 1e6)
    assert flex.cost.middle == pytest.approx(live.cost.middle / 2)
    assert batch.cost.middle == pytest.approx(live.cost.middle / 2)
    assert (live.seconds, flex.seconds, batch.seconds) == (pytest.approx(100), None, None)
    assert batch.note == "within 24 h"
    assert live.chosen
    assert not flex.chosen


def test_a_config_on_flex_is_estimated_at_its_price() -> None:
    wanted = settings(model={"parameters": {"service_tier": "flex"}}, limits={"requests_per_minute": 600})
    from pipeline.parts.limits import price_for

    price = price_for(wanted)
    assert price is not None
    assert price.input == pytest.approx(0.05)
    live, flex, _ = make_plan(wanted, seen(), price).lanes
    assert flex.chosen
    assert live.cost is not None
    assert flex.cost is not None
    assert flex.cost.middle == pytest.approx(live.cost.middle / 2)
    assert (live.seconds, flex.seconds) == (None, pytest.approx(100))


@pytest.mark.parametrize(
    "model",
    [
        {"name": "nobody-knows"},
        {"base_url": "http://127.0.0.1:1/v1"},
        {"price": {"input": 1.0, "output": 1.0}},
    ],
)
def test_where_a_lane_is_not_known_it_has_no_price(model: dict[str, Any]) -> None:
    _, flex, batch = make_plan(settings(model=model), seen(), None).lanes
    assert (flex.cost, batch.cost) == (None, None)


def test_a_model_without_a_flex_price_has_none() -> None:
    _, flex, batch = make_plan(settings(model={"name": "gpt-4o-mini"}), seen(), None).lanes
    assert flex.cost is None
    assert batch.cost is not None


# -- what the server tells -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "tier"),
    [
        (None, Tier()),
        (ServerLimits(), Tier()),
        (ServerLimits(500, 499, 0.12, 200_000, 199_000, 0.3), Tier(500, None, 200_000)),
        (ServerLimits(10_000, 9_999, 8.64), Tier(None, 10_000, None)),
        (ServerLimits(500, 500, 0.0), Tier(500, None, None)),
        (ServerLimits(500), Tier(500, None, None)),
    ],
)
def test_a_limit_a_day_is_told_from_one_a_minute(limits: ServerLimits | None, tier: Tier) -> None:
    assert tier_from(limits) == tier


# -- a rehearsal -----------------------------------------------------------------------------------------------------


def test_a_sample_takes_about_a_minute_and_no_whole_day() -> None:
    found = estimated({"requests_per_minute": 120}, records=100_000)
    assert sample_of(found, Tier(), None) == 120
    assert sample_of(found, Tier(), 700) == 700
    assert sample_of(found, Tier(requests_per_day=100), None) == 70, "80 of them, and ten had the pilot"
    assert sample_of(estimated({"requests_per_minute": 120}, records=40), Tier(), None) == 30
    with pytest.raises(SetupError, match="requests leave no room"):
        sample_of(found, Tier(requests_per_day=5), None)


def test_what_is_planned_for_a_sample_is_its_share() -> None:
    found = part_of(estimated({"requests_per_minute": 120}), 100)
    assert (found.calls, found.tokens, found.binding) == (100, pytest.approx(11_000), "requests a minute")
    assert found.seconds == pytest.approx(50 + 2)


@pytest.mark.parametrize(
    ("seconds", "share", "answered_s", "core_share", "refused", "bound"),
    [
        (3.0, 0.95, 0.05, 0.9, 0, "concurrency"),
        (13.0, 0.33, 0.05, 0.95, 0, "this machine"),
        (13.0, 0.33, 0.40, 0.40, 0, "this machine"),
        (13.0, 0.99, 0.40, 0.95, 0, "this machine"),
        (13.0, 0.33, 0.05, 0.40, 0, "no limit"),
        (13.0, 0.33, 0.40, 0.40, 9, "no limit"),
        (4.0, 0.33, 0.05, 0.95, 0, "concurrency"),
    ],
)
def test_a_machine_that_was_the_limit_is_said_to_be(
    seconds: float, share: float, answered_s: float, core_share: float, refused: int, bound: str
) -> None:
    planned = Workload(500, 500, 5_000, 3.0, 10_000, 0, None, "concurrency")
    happened = replace(planned, seconds=seconds, refused=refused)
    effort = MachineLoad(answered_s, core_share)
    assert bound_by(planned, happened, {"concurrency": share}, effort, 0.05) == bound
    assert bound_by(planned, replace(happened, binding="stopped early"), {}, effort, 0.05) == "stopped early"


def test_the_endpoint_holds_what_is_said_first() -> None:
    config = settings(limits={"requests_per_minute": 1, "tokens_per_minute": 2}, rehearsal={"tokens_per_minute": 3})
    assert tier_of(config, Tier(requests_per_day=4)) == Tier(1, 4, 3)
    assert str(folder_of(settings(output={"dir": "runs/a"}))) == "runs/a-rehearsal"


def test_the_middle_is_expected() -> None:
    assert Interval(1, 3).middle == 2


# -- the first line --------------------------------------------------------------------------------------------------


def test_all_that_ends_a_run_is_in_the_first_line_in_the_order_it_bites() -> None:
    now = datetime.now().astimezone()
    stop_at = f"{now + timedelta(hours=1):%H:%M}"
    limits = {"requests_per_day": 300, "stop_at": stop_at, "budget_tokens": 20_900, "budget_usd": 0.012}
    found = estimated(limits, now=now, used_today=100)
    keys = [end.key for end in found.ends]
    assert keys[0] == "limits.budget_tokens"
    assert set(keys[1:]) == {"limits.stop_at", "limits.budget_usd"}
    first = plan_lines(found)[0]
    places = [first.index(key) for key in keys]
    assert places == sorted(places)
    assert "after about 190 of 1,000 records" in first
    assert "300 requests a day (limits.requests_per_day) make it" in first
    assert (found.doable, found.binding) == (190, "budget")
    done = next(line for line in plan_lines(found) if line.startswith("  achievable "))
    assert "190 records" in done
    assert "20,900 tokens" in done


def test_a_deadline_before_the_budget_is_named_first() -> None:
    now = datetime.now().astimezone()
    stop_at = f"{now + timedelta(hours=1):%H:%M}"
    found = estimated({"requests_per_minute": 6, "stop_at": stop_at, "budget_tokens": 100_000}, now=now)
    assert [end.key for end in found.ends] == ["limits.stop_at", "limits.budget_tokens"]
    first = plan_lines(found)[0]
    assert first.startswith(f"It cannot be done by {stop_at} (limits.stop_at): all of it takes 2 h 47 min by requests")
    assert "the budget (limits.budget_tokens) ends it after about 909." in first
    assert found.doable == found.done_by_stop
    assert found.binding == "requests a minute"


def test_a_day_limit_that_ends_the_run_does_so_in_the_plan() -> None:
    found = estimated({"requests_per_day": 300, "on_day_limit": "stop"}, used_today=100)
    assert [(end.key, end.records) for end in found.ends] == [("limits.requests_per_day", 200)]
    assert plan_lines(found)[0].startswith("It ends after about 200 of 1,000 records, in 4 s, as a day's 300 requests")
    assert estimated({"requests_per_day": 300}, used_today=100).ends == []
    assert estimated({"requests_per_day": 3_000, "on_day_limit": "stop"}).ends == []


@pytest.mark.parametrize(
    ("calls", "terms", "made"),
    [
        (100, PacingLimits(per_s=1, per_day=60), 60),
        (50, PacingLimits(per_s=1, per_day=60), None),
        # 43,200 calls until midnight, then a day of which 50,000 are allowed
        (100_000, PacingLimits(per_s=1, per_day=50_000), 93_200),
        (100, PacingLimits(per_day=60, used_today=60), 0),
    ],
)
def test_where_a_days_requests_are_used_up(calls: float, terms: PacingLimits, made: float | None) -> None:
    simulation = until_used_up(calls, NOON, terms)
    assert (None if simulation is None else simulation.calls) == (None if made is None else pytest.approx(made))


def test_no_end_in_sight_is_no_number() -> None:
    now = datetime.now().astimezone()
    found = estimated({"requests_per_day": 1, "stop_at": f"{now + timedelta(hours=1):%H:%M}"}, now=now, records=10**6)
    assert "more than 20 years" in plan_lines(found)[0]
    assert all(end.seconds is not None and math.isfinite(end.seconds) for end in found.ends)


# -- what stands in the plan -----------------------------------------------------------------------------------------


def lines(found: Plan) -> str:
    return "\n".join(plan_lines(found))


@pytest.mark.parametrize(
    ("limits", "expected", "serves"),
    [
        ({"concurrency": 40}, "40 is the only known limit: 80 may halve the time (a guess)", None),
        ({"concurrency": "auto"}, "auto will find it", None),
        ({"requests_per_minute": 600}, "30 is enough: 600 calls a minute x 2.00 s, plus half as many in reserve", 30),
        ({"requests_per_minute": 600, "concurrency": 5}, "reserve; limits.concurrency = 5 is less", 30),
        ({"requests_per_minute": 600, "requests_per_day": 100}, "30 is enough: 600 calls a minute", 30),
        ({"requests_per_day": 500}, "1 is enough: 500 calls a day x 2.00 s", 1),
    ],
)
def test_what_concurrency_serves_is_only_said_where_a_limit_is_known(
    limits: dict[str, Any], expected: str, serves: int | None
) -> None:
    found = estimated(limits)
    assert found.concurrency == serves
    assert expected in lines(found)
    assert "96" not in lines(found)


def test_where_nothing_is_left_nothing_binds() -> None:
    found = estimated(records=10)
    assert found.binding == "nothing"
    assert plan_lines(found) == ["Nothing is left to label: all 10 records have an outcome"]


@pytest.mark.parametrize(
    ("problems", "expected"),
    [
        ({"invalid_label": 20}, "None of the 20 records so far got a label: invalid_label 20. "),
        ({"timeout": 1, "refused": 2}, "3 of the 20 records so far got no label: refused 2, timeout 1. "),
        ({"timeout": 2}, None),
    ],
)
def test_a_pilot_without_labels_is_told_first(problems: dict[str, int], expected: str | None) -> None:
    found = estimated({"budget_tokens": 50_000}, looked_at=20, problems=problems, failed_path="runs/a/failed.csv")
    first = plan_lines(found)[0]
    assert first.startswith(expected or "The budget is not enough")
    assert ("runs/a/failed.csv has the reason" in first) == (expected is not None)
