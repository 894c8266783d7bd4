"""`model.lane = "auto"`: what is chosen by what is known, in runs at the rehearsal endpoint too, which are killed."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from batches.lanes import answered_twice, in_a_loop, label, rows_in, settings_for, write_input
from batches.test_batch_ends import endpoint_with, set_back, soon
from batches.test_batch_kills import ACTS, CONFIG, Fatal
from end_to_end.forked import Fork
from end_to_end.stage import environment
from hypothesis import given
from hypothesis import strategies as st

from pipeline import RunOptions
from pipeline.batches import LaneInputs, Route, choose_lane, uses_flex
from pipeline.batches.auto_lane import LEAST_WAIT_S, SLOWER
from pipeline.batches.part_progress import CANCEL_S
from pipeline.planner import check, plan
from pipeline.records import Answer, Request, Response, ToolCall, Usage
from pipeline.rehearsal import RehearsalOptions
from pipeline.runner import arun, verify
from pipeline.settings import Settings
from pipeline.show import plan_lines

TEXTS = [f"text number {number}, which is good" for number in range(60)]
HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("known", "route", "why"),
    [
        ({"has_batches": False, "left": 10**6}, Route.LIVE, "the server has no batches"),
        ({"left": 5_050, "few": 5_050}, Route.LIVE, "5,050 records are too few to wait for batches"),
        ({"left": 5_051, "few": 5_050}, Route.BATCH, "they cost half, and no limits.stop_at says when"),
        ({"left": None, "few": 5_050}, Route.BATCH, "they cost half"),
        # Until 07:00, which is far away: the first batch says how long one takes.
        ({"until_s": 9 * HOUR_S, "live_s": HOUR_S}, Route.FIRST, "it can be waited for 7 h 20 min"),
        ({"until_s": 9 * HOUR_S, "live_s": HOUR_S, "took_s": [300.0]}, Route.BATCH, "took up to 5 min, and 7 h 20 min"),
        ({"until_s": 9 * HOUR_S, "live_s": HOUR_S, "took_s": [300.0, 3 * HOUR_S]}, Route.LIVE, "took up to 3 h"),
        ({"until_s": 9 * HOUR_S, "live_s": HOUR_S, "waited_s": 2 * HOUR_S}, Route.FIRST, "it can be waited for 7 h"),
        (
            {"until_s": 9 * HOUR_S, "live_s": HOUR_S, "waited_s": 3 * HOUR_S},
            Route.LIVE,
            "not back after 3 h, and no more",
        ),
        # The time is short: it is live calls that are sure.
        ({"until_s": 1_199.0, "took_s": [60.0]}, Route.LIVE, "which is too soon for a batch"),
        ({"until_s": 2 * HOUR_S, "live_s": 1.9 * HOUR_S}, Route.BATCH, "live calls would take about 114 min"),
        ({"until_s": 2 * HOUR_S, "live_s": 1.7 * HOUR_S}, Route.LIVE, "live calls may need 102 min of it"),
        # The day's limit has no room for all of it, by whatever lane.
        (
            {"left": 50_000, "room": 9_950},
            Route.BATCH,
            "; limits.requests_per_day has room for 9,950 of the 50,000 records today",
        ),
        (
            {"left": 50_000, "room": 20_000, "until_s": 9 * HOUR_S, "live_s": HOUR_S},
            Route.FIRST,
            "for 7 h 20 min; limits.requests_per_day has room for 20,000 of the 50,000 records by then",
        ),
        # Live calls may leave for the first two of nine hours: a batch has to be back so early that they can.
        (
            {"until_s": 9 * HOUR_S, "live_s": HOUR_S, "open_spans": [(0, 2 * HOUR_S)], "took_s": [300.0]},
            Route.BATCH,
            "took up to 5 min, and 20 min can be waited for more",
        ),
        (
            {"until_s": 9 * HOUR_S, "live_s": 1.5 * HOUR_S, "open_spans": [(0, 2 * HOUR_S)]},
            Route.LIVE,
            "limits.stop_at is in 9 h (2 h of it in limits.run_between), and live calls may need 90 min of it",
        ),
        (
            {"until_s": 9 * HOUR_S, "live_s": 3 * HOUR_S, "open_spans": [(0, HOUR_S), (8 * HOUR_S, 9 * HOUR_S)]},
            Route.BATCH,
            "live calls would take about 3 h, and limits.stop_at is in 9 h (2 h of it",
        ),
    ],
)
def test_the_choice_by_what_is_known(known: dict[str, Any], route: Route, why: str) -> None:
    choice = choose_lane(LaneInputs(**known))
    assert choice.route is route
    assert why in str(choice)


SECONDS = st.floats(0, 48 * HOUR_S)


@given(st.lists(st.tuples(st.floats(0, 9_000), st.floats(1, 9_000)), max_size=3), st.floats(0, 20_000))
def test_live_calls_that_begin_at_the_latest_have_just_the_hours_that_they_need(
    steps: list[tuple[float, float]], needed_s: float
) -> None:
    spans, at = list[tuple[float, float]](), 0.0
    for shut_s, open_spans in steps:
        spans.append((at + shut_s, at + shut_s + open_spans))
        at += shut_s + open_spans
    begins_s = LaneInputs(until_s=at, open_spans=spans).latest_s(needed_s)
    has_s = sum(max(0.0, end - max(begin, begins_s)) for begin, end in spans)
    assert has_s == pytest.approx(needed_s if begins_s >= 0 else needed_s + begins_s, abs=1e-6)


@given(until_s=SECONDS, live_s=SECONDS, took_s=st.lists(SECONDS, max_size=3), waited_s=SECONDS)
def test_waiting_for_batches_never_takes_the_time_that_live_calls_need(
    until_s: float, live_s: float, took_s: list[float], waited_s: float
) -> None:
    ahead = LaneInputs(until_s=until_s, live_s=live_s, took_s=took_s, waited_s=waited_s)
    choice = choose_lane(ahead)
    cannot = live_s > until_s - CANCEL_S
    if choice.route is not Route.LIVE and not cannot:
        assert until_s - CANCEL_S - live_s >= LEAST_WAIT_S + live_s / 2
        assert ahead.spare_s >= SLOWER * max([*took_s, waited_s])
    assert choice.route is not Route.FIRST or not took_s
    assert until_s >= CANCEL_S + LEAST_WAIT_S or choice.route is Route.LIVE


def auto(folder: Path, url: str, **more: Any) -> Settings:
    model = {"name": "gpt-6-luna", "base_url": url, "lane": "auto", "parameters": {"max_completion_tokens": 16}}
    return settings_for(folder, url, model=model, **more)


def in_hours(hours: float) -> dict[str, str]:
    return {"stop_at": f"{datetime.now().astimezone() + timedelta(hours=hours):%H:%M}"}


@in_a_loop
async def test_without_an_end_much_goes_by_batch_and_little_live(tmp_path: Path) -> None:
    for name, texts, answers in (("much", TEXTS, 60), ("little", TEXTS[:25], 0)):
        folder = tmp_path / name
        folder.mkdir()
        write_input(folder, texts)
        async with endpoint_with(batch_s=0.1) as endpoint:
            summary = await label(auto(folder, endpoint.base_url))
        assert (summary.exit_code, summary.labelled) == (0, len(texts))
        assert summary.lanes.get("batch", {}).get("answers", 0) == answers
        told = "batches, as they cost half" if answers else "live calls, as 25 records are too few"
        assert [note for note in summary.notes if told in note], summary.notes


@in_a_loop
async def test_with_an_end_the_first_batch_goes_alone_and_its_time_decides(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with(batch_s=0.3) as endpoint:
        summary = await label(auto(tmp_path, endpoint.base_url, limits=in_hours(9)))
        assert (summary.labelled, answered_twice(endpoint)) == (60, [])
        posts = [one for one in endpoint.asked if one in ("POST /v1/batches", "POST /v1/chat/completions")]
    assert summary.lanes["batch"]["answers"] == 60
    assert len(posts) == 4
    assert [note for note in summary.notes if "lane auto: batches, as this run's own took up to" in note]
    chosen = [json.loads(line) for line in (tmp_path / "run" / "run.log").read_text().splitlines()]
    assert [one["chosen"] for one in chosen if "chosen" in one] == ["a first batch", "batches"]
    assert (await verify(tmp_path / "run")).ok


@pytest.mark.parametrize(("flex", "words"), [({}, "live calls"), ({"patience_s": 60}, "flex calls")])
@in_a_loop
async def test_where_the_first_batch_was_slow_the_rest_is_asked_live(
    tmp_path: Path, flex: dict[str, float], words: str
) -> None:
    """At the flex tier, where the server is known to have one or the config says so: there are hours for it."""
    write_input(tmp_path, TEXTS)
    async with endpoint_with(batch_s=4 * HOUR_S) as endpoint:
        settings = auto(tmp_path, endpoint.base_url, limits=in_hours(9), flex=flex)
        first = await label(settings, "no_wait")
        assert (first.exit_code, first.lanes) == (3, {})
        assert endpoint.asked.count("POST /v1/batches") == 1
        set_back(tmp_path, endpoint, 4 * HOUR_S)
        for batch in endpoint._store._batches.values():
            batch.created_at -= 4 * HOUR_S  # else it is back at once, and only nobody has looked
        summary = await label(settings)
        assert (summary.labelled, answered_twice(endpoint)) == (60, [])
        assert endpoint.asked.count("POST /v1/batches") == 1
    assert (summary.lanes["batch"]["answers"], summary.calls) == (5, 55)
    assert summary.lanes.get("flex", {}).get("answers", 0) == (55 if flex else 0)
    assert [note for note in summary.notes if f"lane auto: {words}, as this run's batches took up to 4 h" in note]


@in_a_loop
async def test_near_the_end_what_no_batch_has_answered_is_asked_live(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with(batch_s=4 * HOUR_S) as endpoint:
        await label(auto(tmp_path, endpoint.base_url, limits=in_hours(9)), "no_wait")
        summary = await label(auto(tmp_path, endpoint.base_url, limits={"stop_at": soon()}))
        assert (summary.exit_code, summary.labelled, answered_twice(endpoint)) == (0, 60, [])
        assert endpoint.asked.count("POST /v1/batches/batch_000001/cancel") == 1
    assert [note for note in summary.notes if "which is too soon for a batch" in note]


@in_a_loop
async def test_the_lines_of_batches_count_towards_the_day_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Near the end nothing is cancelled that nobody could ask live today: what comes back is collected tomorrow."""
    write_input(tmp_path, TEXTS)
    day = {"requests_per_day": 50, "on_day_limit": "stop"}
    async with endpoint_with(batch_s=4 * HOUR_S) as endpoint:
        first = await label(auto(tmp_path, endpoint.base_url, limits=day, batch={"part_records": 45}), "no_wait")
        (note,) = [note for note in first.notes if "lane auto" in note]
        assert "limits.requests_per_day has room for 50 of the 60 records today" in note
        assert endpoint.asked.count("POST /v1/batches") == 1
        set_back(tmp_path, endpoint, 4 * HOUR_S)
        with sqlite3.connect(tmp_path / "run" / "ledger.db") as ledger:
            ledger.execute("UPDATE days SET requests = 50")
        near = await arun(auto(tmp_path, endpoint.base_url, limits={**day, "stop_at": soon()}), RunOptions())
        assert [one for one in endpoint.asked if one.endswith("/cancel")] == []
        assert "POST /v1/chat/completions" not in endpoint.asked
    assert near.exit_code == 3
    assert "asked live from now on" not in capsys.readouterr().err
    assert [note for note in near.notes if "for 0 of the" in note], near.notes


@in_a_loop
async def test_a_server_without_batches_is_called_live_and_that_is_said(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)

    def refuse(request: web.BaseRequest) -> web.StreamResponse | None:
        return None if request.path.endswith("/completions") else web.json_response({"error": "no"}, status=404)

    async with endpoint_with() as endpoint:
        endpoint.refuse = refuse
        summary = await label(auto(tmp_path, endpoint.base_url))
        assert (summary.labelled, summary.calls) == (60, 60)
    assert [note for note in summary.notes if "lane auto: live calls, as the server has no batches" in note]


@in_a_loop
async def test_rows_of_a_function_are_asked_live(tmp_path: Path) -> None:
    async def answer(_: Request) -> Response:
        return Response(Answer((ToolCall("1", "set_label", '{"sentiment": "neutral"}'),)), Usage(9, 9), "mine")

    write_input(tmp_path, TEXTS)
    summary = await label(auto(tmp_path, "http://127.0.0.1:9/v1"), provider=answer)
    assert (summary.labelled, summary.lanes) == (60, {})


@pytest.mark.chaos
@in_a_loop
async def test_a_run_that_is_killed_chooses_again_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    """Killed as the first batch is made, as the others are, and among the live calls near the end."""
    write_input(tmp_path, TEXTS)
    async with Fatal(RehearsalOptions(latency_ms=0, batch_s=0.1)) as endpoint:
        config = CONFIG.replace("BASE_URL", endpoint.base_url).replace('lane = "batch"', 'lane = "auto"')

        async def ended(limits: dict[str, Any], act: tuple[str, str] | None = None, nth: int = 1) -> int | None:
            told = "".join(f"{name} = {json.dumps(value)}\n" for name, value in limits.items())
            (tmp_path / "config.toml").write_text(f"{config}[limits]\nconcurrency = 1\n{told}")
            process = Fork(["run", "config.toml"], tmp_path, environment({}), subprocess.DEVNULL)
            endpoint.act, endpoint.after, endpoint.nth = act or ("", ""), True, nth if act else 0
            endpoint.process = process if act else None
            await asyncio.to_thread(process.communicate)
            return process.returncode

        assert await ended(in_hours(9), ACTS["create"]) == -signal.SIGKILL
        assert await ended(in_hours(9), ACTS["create"]) == -signal.SIGKILL
        assert await ended({"stop_at": soon()}, ("POST", "/completions"), 5) == -signal.SIGKILL
        assert await ended({"stop_at": soon()}) == 0
        assert len(rows_in(tmp_path)) == 60
        # What was on the wire as the kill came may be asked again: one call at a time was.
        assert len(answered_twice(endpoint)) <= 1
    assert (await verify(tmp_path / "run")).ok


@pytest.mark.parametrize(
    ("until_s", "route", "patience_s", "flex"),
    [
        (None, Route.BATCH, 600.0, True),  # repairs of batches have time
        (None, Route.LIVE, 600.0, False),
        (None, Route.BATCH, None, False),  # the server has no flex tier
        (5_700.0, Route.LIVE, 600.0, True),
        (5_600.0, Route.LIVE, 600.0, False),
    ],
)
def test_flex_is_asked_where_there_is_time_for_it(
    until_s: float | None, route: Route, patience_s: float | None, flex: bool
) -> None:
    assert uses_flex(LaneInputs(until_s=until_s, live_s=1_800.0), route, patience_s) is flex


@in_a_loop
async def test_plan_and_check_say_how_it_would_begin(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with() as endpoint:
        settings = auto(tmp_path, endpoint.base_url, limits=in_hours(9))
        says = {one.name: one.detail for one in await check(settings)}
        assert says["batches"] == "the server has files and batches"
        found = await plan(settings, pilot=5, quiet=True)
        assert "lane auto: a first batch, as nobody knows yet how long one takes" in "\n".join(plan_lines(found))
        assert [lane.name for lane in found.lanes if lane.chosen] == ["batch"]
        endpoint.refuse = lambda request: None if "batches" not in request.path else web.Response(status=404)
        found = await plan(settings, pilot=5, quiet=True)
        assert found.auto == "lane auto: live calls, as the server has no batches"
        assert [lane.name for lane in found.lanes if lane.chosen] == ["live"]
        (told,) = (one for one in await check(settings) if one.name == "batches")
        assert told.ok is None
        assert "lane auto can make live calls only" in told.detail


@in_a_loop
async def test_a_batch_that_nobody_looked_at_for_hours_took_what_the_server_says(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with(batch_s=0.2) as endpoint:
        settings = auto(tmp_path, endpoint.base_url, limits=in_hours(9))
        assert (await label(settings, "no_wait")).exit_code == 3
        with sqlite3.connect(tmp_path / "run" / "ledger.db") as ledger:
            ledger.execute("UPDATE batches SET sent_at = sent_at - ?", (5 * HOUR_S,))
        assert (await label(settings)).lanes["batch"]["answers"] == 60
