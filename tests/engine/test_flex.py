"""The flex tier: waiting for room, and going without. Over real sockets, under a moved clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from engine.engine_parts import FakeTask, request
from hypothesis import given
from hypothesis import strategies as st
from oddserver import Call, error, good, night

from pipeline.engine import AskRules, Ending, Interview, InterviewContext
from pipeline.engine.flex import TRY_AGAIN_S, Flex
from pipeline.engine.history import CallHistory
from pipeline.errors import NoRoomError
from pipeline.stats import Stats

RunOn = Callable[[Any], Any]
FLEX_REFUSALS = {
    "type": lambda: error(429, "Try again later.", "resource_unavailable"),
    "code": lambda: error(429, "Try again later.", "error", "resource_unavailable"),
    "words": lambda: error(429, "Resource Unavailable: try the standard tier.", "error"),
    "capacity": lambda: error(503, "The flex tier is out of capacity for now.", "server_error"),
    "498": lambda: error(498, "Flex tier capacity exceeded", "capacity_exceeded", "capacity_exceeded"),
}


class Server:
    """Has no room at flex when `is_full` says so; notes each call."""

    def __init__(self, is_full: Callable[[Call], bool], form: str = "type") -> None:
        self.calls: list[Call] = []
        self._is_full = is_full
        self._form = form

    def __call__(self, call: Call) -> web.StreamResponse:
        self.calls.append(call)
        if call.tier == "flex" and self._is_full(call):
            return FLEX_REFUSALS[self._form]()
        return good(tier=call.tier or "default")

    def asked(self, tier: str | None) -> list[Call]:
        return [call for call in self.calls if call.tier == tier]


@pytest.mark.parametrize("form", FLEX_REFUSALS)
def test_records_wait_for_room_and_nothing_else_changes(moved_clock: RunOn, form: str) -> None:
    server = Server(lambda call: call.at_s < 120, form)
    found = night(moved_clock, server, max_attempts=1, record_s=1.0, flex_patience_s=600)
    assert (found.ending, found.labelled) == (Ending.COMPLETE, set(range(60)))
    assert 120 <= found.took_s < 120 + 60 + 5, "the longest wait between two tries is a minute"
    assert found.rig.stats.flex == {"answers": 60}
    assert server.asked(None) == []
    # No outage, no hold and no cut of the pace: what flex has no room for, the standard tier may have.
    assert (found.rig.gate.outages, found.rig.admission.refusals, found.rig.gate.concurrency) == ([], 0, 8)
    refused = found.rig.stats.retries["no_room"]
    assert refused == len(server.calls) - 60
    assert refused < 12 * 60, "no more than a few tries a record"


def test_one_call_without_room_goes_out_at_the_standard_tier_in_the_end(moved_clock: RunOn) -> None:
    server = Server(lambda call: call.number == 30)
    found = night(moved_clock, server, flex_patience_s=300)
    assert len(found.labelled) == 60
    assert found.rig.stats.flex == {"answers": 59, "standard": 1}
    (last,) = server.asked(None)
    first = next(call for call in server.calls if call.number == 30)
    assert (last.number, last.at_s - first.at_s) == (30, pytest.approx(300, abs=1))


def test_where_there_is_no_room_at_all_the_run_goes_on_at_the_standard_tier(
    moved_clock: RunOn, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(lambda call: True)
    found = night(moved_clock, server, 400, flex_patience_s=60)
    assert (found.ending, len(found.labelled)) == (Ending.COMPLETE, 400)
    assert found.rig.stats.flex == {"standard": 400}
    assert found.took_s < 60 + 10, "the patience is waited for once, not by each record"
    late = [call for call in server.asked("flex") if call.at_s > 62]
    assert len(late) <= 1
    assert found.rig.gate.outages == []
    assert [one.levelname for one in caplog.records if one.message == "no room at flex"] == ["WARNING"]


def test_room_that_comes_back_is_used(moved_clock: RunOn) -> None:
    """The one call a minute that still tries finds it."""
    server = Server(lambda call: call.at_s < 200)

    async def slow(call: Call) -> web.StreamResponse:
        await asyncio.sleep(5.0 if call.tier is None else 0.0)
        return server(call)

    found = night(moved_clock, slow, 600, flex_patience_s=60)
    assert len(found.labelled) == 600
    assert min(call.at_s for call in server.asked(None)) < 75
    assert max(call.at_s for call in server.asked(None)) < 200 + 2 * TRY_AGAIN_S
    assert found.rig.stats.flex["answers"] > 200


def silent(is_silent: Callable[[Call], bool], *, status: int | None = None) -> tuple[list[Call], Any]:
    """A server whose flex tier does not answer such calls in time, by itself or as it says with a status."""
    calls: list[Call] = []

    async def answer(call: Call) -> web.StreamResponse:
        calls.append(call)
        if call.tier == "flex" and is_silent(call):
            await asyncio.sleep(10_000 if status is None else 600)
            return error(status or 500, "Request Timeout", "timeout")
        return good(tier=call.tier or "default")

    return calls, answer


@pytest.mark.parametrize("status", [None, 408])
def test_a_flex_call_that_is_not_answered_in_time_goes_out_at_the_standard_tier(
    moved_clock: RunOn, status: int | None
) -> None:
    """It is no attempt, since what flex is too slow for is answered elsewhere; and no evidence against the server."""
    calls, answer = silent(lambda call: call.number in (7, 30), status=status)
    found = night(moved_clock, answer, timeout_s=900, max_attempts=1, flex_patience_s=600)
    assert (found.ending, len(found.labelled)) == (Ending.COMPLETE, 60)
    assert found.rig.stats.flex == {"answers": 58, "standard": 2}
    assert [call.tier for call in calls if call.number == 7] == ["flex", None]
    assert found.took_s == pytest.approx(600 if status else 900, abs=10)
    assert found.rig.gate.outages == []


def test_more_patience_than_a_call_has_time_asks_flex_again(moved_clock: RunOn) -> None:
    calls, answer = silent(lambda call: call.number == 30)
    found = night(moved_clock, answer, timeout_s=900, max_attempts=1, flex_patience_s=1000)
    assert len(found.labelled) == 60
    assert [call.tier for call in calls if call.number == 30] == ["flex", "flex", None]


def test_a_flex_tier_that_answers_nothing_in_time_is_waited_for_once(moved_clock: RunOn) -> None:
    """A server is there all the same: nothing is held, and nobody is given up."""
    calls, answer = silent(lambda _: True)
    found = night(moved_clock, answer, 200, timeout_s=900, max_attempts=1, flex_patience_s=600)
    assert (found.ending, len(found.labelled)) == (Ending.COMPLETE, 200)
    assert found.rig.stats.flex == {"standard": 200}
    assert found.took_s < 2 * 900 + 100
    assert len([call for call in calls if call.tier == "flex"]) < 60
    assert found.rig.gate.outages == []


def test_a_server_that_answers_nothing_is_an_outage_at_flex_too(moved_clock: RunOn) -> None:
    async def answer(call: Call) -> web.StreamResponse:
        await asyncio.sleep(10_000 if call.at_s < 3000 else 0)
        return good(tier=call.tier or "default")

    found = night(moved_clock, answer, timeout_s=900, max_attempts=2, flex_patience_s=600)
    assert (found.ending, len(found.labelled)) == (Ending.COMPLETE, 60)
    assert found.rig.gate.outages != []


def test_patience_of_nothing_never_waits(moved_clock: RunOn) -> None:
    server = Server(lambda call: call.number % 3 == 0)
    found = night(moved_clock, server, 90, flex_patience_s=0)
    assert len(found.labelled) == 90
    assert found.rig.stats.flex == {"answers": 60, "standard": 30}
    assert found.took_s < 10


@pytest.mark.parametrize("form", FLEX_REFUSALS)
def test_without_flex_the_same_answer_means_what_it_did(moved_clock: RunOn, form: str) -> None:
    server = Server(lambda call: True, form)
    found = night(moved_clock, lambda call: FLEX_REFUSALS[form]() if call.at_s < 5 else server(call))
    assert len(found.labelled) == 60
    is_outage = form in ("498", "capacity")
    assert found.rig.stats.retries.keys() == ({"unavailable"} if is_outage else set())
    assert bool(found.rig.admission.refusals) != is_outage, "else the rate limit has refused it"
    assert not found.rig.stats.flex


def test_a_rate_limit_is_one_at_flex_too(moved_clock: RunOn) -> None:
    limit = error(429, "Rate limit reached. Please try again in 3s.", "requests", "rate_limit_exceeded")
    seen: list[Call] = []

    def answer(call: Call) -> web.StreamResponse:
        seen.append(call)
        return web.Response(status=429, body=limit.body, content_type="application/json") if len(seen) == 20 else good()

    found = night(moved_clock, answer, flex_patience_s=600)
    assert (len(found.labelled), found.rig.admission.refusals) == (60, 1)
    assert {call.tier for call in seen} == {"flex"}
    assert found.rig.stats.flex == {"other": 60}, "the server does not say which tier it used"


def history_of(number: int, **parameters: Any) -> CallHistory:
    asked = replace(request(number), parameters=parameters)
    return CallHistory(Interview(InterviewContext(FakeTask()), asked.record, request=asked))


def flex_with(patience_s: float) -> Flex:
    rules = AskRules(flex_patience_s=patience_s)
    return Flex(lambda: rules, Stats(lambda: 0.0), random.Random(1))


def test_a_tier_of_the_users_own_stays() -> None:
    """A voter may ask for another one: it is sent as it is, and does not count."""
    flex, history = flex_with(10), history_of(1, service_tier="priority")
    assert flex.sent(history, 0.0) is history.request
    assert flex.sent(history_of(2), 0.0).parameters == {"service_tier": "flex"}


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 40), st.booleans()), max_size=60), st.floats(0, 100))
def test_no_record_waits_longer_than_the_patience(events: list[tuple[int, float, bool]], patience_s: float) -> None:
    flex, histories = flex_with(patience_s), [history_of(number) for number in range(5)]
    now, since = 0.0, dict[int, float]()
    for number, passed_s, has_room in events:
        now, history = now + passed_s, histories[number]
        if flex.sent(history, now) is history.request:
            over = number in since and now - since[number] >= patience_s
            assert over or "standard" in flex.text(now)
        if has_room:
            flex.ended(history)
            since.pop(number, None)
            continue
        wait_s = flex.refused(history, NoRoomError(), now, now)
        since.setdefault(number, now)
        assert wait_s == 0 or 0 < wait_s <= since[number] + patience_s - now
    for history in histories:
        flex.ended(history)
    assert "waiting" not in flex.text(now)
