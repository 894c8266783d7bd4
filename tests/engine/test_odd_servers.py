"""Servers that refuse: one record, everybody for a moment, or everybody for good. Over real sockets."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from oddserver import NO_RECORD, Answer, Call, error, good, night, page

from pipeline.engine import Ending, is_hopeless
from pipeline.limits import Admission, DayMeter, Gate, TokenBound

RunOn = Callable[[Any], Any]

REFUSALS = {
    "401": lambda: error(401, "No auth credentials found", code=401),
    "403": lambda: error(403, "Access denied", "permission_error"),
    "403 page": lambda: page(403, "Just a moment..."),
    "404": lambda: error(404, "The model `m` does not exist", "invalid_request_error", "model_not_found"),
    "404 page": lambda: page(404, "404 Not Found"),
    "405": lambda: page(405, "Method Not Allowed"),
    "400 of a balancer": lambda: page(400, "upstream connect error or disconnect/reset before headers"),
    "400": lambda: error(400, "Bad request", "invalid_request_error"),
    "422": lambda: error(422, "Not now", "error", "422"),
    "407": lambda: page(407, "Proxy Authentication Required"),
    "412": lambda: error(412, "Account x is suspended", "error", "PRECONDITION_FAILED"),
    "424": lambda: error(424, "A dependency failed"),
    "460": lambda: page(460, "client closed"),
    "498": lambda: error(498, "Flex tier capacity exceeded, please try again later", "capacity_exceeded"),
    "499": lambda: error(499, "client closed request"),
}
each_refusal = pytest.mark.parametrize("kind", REFUSALS)
#: For everybody these are an outage: no capacity, somebody in between who hung up.
OF_THE_MOMENT = {"424", "460", "498", "499"}


def refusing(kind: str, when: Callable[[Call], bool]) -> Answer:
    """A server that refuses so, when it does, and else labels."""
    return lambda call: REFUSALS[kind]() if when(call) else good()


@each_refusal
def test_one_refusal_of_many_costs_nothing(moved_clock: RunOn, kind: str) -> None:
    """The run stopped for good at it, or the record was rejected at its first try."""
    found = night(moved_clock, refusing(kind, lambda call: call.count == 30))
    assert (found.ending, found.stopped, len(found.labelled)) == (Ending.COMPLETE, None, 60)
    assert found.total <= 62


@pytest.mark.parametrize("kind", ["401", "403 page", "400", "400 of a balancer", "498"])
def test_a_few_seconds_of_refusals_for_everybody_cost_nothing(moved_clock: RunOn, kind: str) -> None:
    found = night(moved_clock, refusing(kind, lambda call: 0.2 < call.at_s < 5), 150)
    assert (found.ending, found.stopped, len(found.labelled)) == (Ending.COMPLETE, None, 150)


@pytest.mark.parametrize("kind", ["401", "404", "422", "400 of a balancer", "412", "498"])
def test_refusals_here_and_there_lose_at_most_a_record_in_a_hundred(moved_clock: RunOn, kind: str) -> None:
    found = night(moved_clock, refusing(kind, lambda call: call.count % 7 == 5), 100)
    assert (found.ending, found.stopped) == (Ending.COMPLETE, None)
    assert len(found.labelled) >= 99


@pytest.mark.parametrize("kind", sorted(REFUSALS.keys() - OF_THE_MOMENT))
def test_refusals_for_everybody_end_the_run_and_reject_nobody(moved_clock: RunOn, kind: str) -> None:
    """A key that was taken away, a budget that is used up: all that was left was rejected at full speed, "Done"."""
    found = night(moved_clock, refusing(kind, lambda call: call.count >= 30), 80)
    assert found.ending is Ending.STOPPED
    assert found.stopped is not None
    assert found.without == set()
    assert len(found.labelled) == 30
    assert found.total <= 30 + 3 * 8 + 6
    assert found.took_s < 25


@pytest.mark.parametrize("kind", ["498", "499"])
def test_no_capacity_for_half_an_hour_is_an_outage(moved_clock: RunOn, kind: str) -> None:
    found = night(moved_clock, refusing(kind, lambda call: 0.2 < call.at_s < 1800), 150)
    assert (found.ending, found.stopped, len(found.labelled)) == (Ending.COMPLETE, None, 150)
    assert len(found.rig.gate.outages) == 1


@pytest.mark.parametrize(
    ("kind", "at", "proven"),
    [
        *[(kind, 0, True) for kind in ("403", "403 page", "400", "400 of a balancer")],
        *[(kind, 0, False) for kind in ("403", "403 page", "422")],
        *[(kind, at, False) for kind in ("403 page", "400") for at in (20, 59)],
    ],
)
def test_a_refusal_of_one_record_costs_that_record(moved_clock: RunOn, kind: str, at: int, proven: bool) -> None:
    """A text that a firewall or a provider does not like stopped the run, and each that followed, at its first call."""
    found = night(moved_clock, refusing(kind, lambda call: call.number == at), proven=proven)
    assert (found.ending, found.stopped) == (Ending.COMPLETE, None)
    assert found.without == {at}
    assert found.calls[at] <= 6


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("403 page", range(3)),
        ("400", range(30)),
        ("403 page", range(20, 60)),
        ("400", range(40, 60)),
        ("400", range(0, 60, 2)),
    ],
)
def test_many_refused_records_in_a_row_are_rejected_where_a_word_passes(
    moved_clock: RunOn, kind: str, bad: range
) -> None:
    """The first three decided for all; a file sorted by length could not be run."""
    found = night(moved_clock, refusing(kind, lambda call: call.number in bad))
    assert (found.ending, found.stopped) == (Ending.COMPLETE, None)
    assert found.without == set(bad)
    assert found.codes == {"bad_request": len(bad)}


#: What is said of one text, plainly: such a record is rejected at its first call.
CONTENT = {
    "200 with a 403": lambda: error(200, "This key is disabled", code=403),
    "400 filter": lambda: error(400, "The prompt triggered the content filter", code="content_filter"),
    "200 filter": lambda: error(200, "filtered", code="content_filter"),
    "400 length": lambda: error(400, "This model's maximum context length is 4 tokens", code="context_length_exceeded"),
}


@pytest.mark.parametrize("kind", sorted(CONTENT))
@pytest.mark.parametrize("proven", [False, True])
def test_everybodys_text_refused_in_mid_run_is_nobodys(moved_clock: RunOn, kind: str, proven: bool) -> None:
    """All that was left was rejected at full speed, "Done": a gateway said of a key what it says of a text."""
    begin = 0 if proven else 30
    found = night(moved_clock, lambda call: CONTENT[kind]() if call.count >= begin else good(), 80, proven=proven)
    assert (found.ending, found.stopped is None) == (Ending.STOPPED, False)
    assert len(found.labelled) == begin
    assert len(found.without) <= 10 + 8
    assert found.took_s < 25


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("200 with a 403", range(30, 200)),
        ("400 filter", range(1, 150)),
        ("200 filter", range(0, 200, 2)),
        ("400 length", range(30, 200)),
    ],
)
def test_many_refused_texts_in_a_row_are_rejected_where_a_word_passes(
    moved_clock: RunOn, kind: str, bad: range
) -> None:
    found = night(moved_clock, lambda call: CONTENT[kind]() if call.number in bad else good(), 200, proven=True)
    assert (found.ending, found.stopped) == (Ending.COMPLETE, None)
    assert found.without == set(bad)
    assert found.codes == {"bad_request": len(bad)}
    assert found.total <= 200 * 1.5


@pytest.mark.parametrize(
    ("kind", "most"),
    [("401", 1), ("404", 1), ("404 page", 1), ("405", 1), ("403", 2), ("403 page", 2), ("400", 8), ("422", 8)],
)
def test_what_never_passes_is_hopeless_at_once(moved_clock: RunOn, kind: str, most: int) -> None:
    found = night(moved_clock, refusing(kind, lambda call: True))
    assert (found.ending, found.outcomes) == (Ending.STOPPED, [])
    assert is_hopeless(found.stopped)
    assert found.total <= most
    again = night(moved_clock, refusing(kind, lambda call: True), proven=True)
    assert (again.ending, again.outcomes) == (Ending.STOPPED, [])
    assert is_hopeless(again.stopped)
    assert again.total <= max(2, most)


@pytest.mark.parametrize("kind", ["407", "412", "400 of a balancer"])
def test_a_refusal_of_nobody_knows_what_from_the_start_is_hopeless_after_a_minute(
    moved_clock: RunOn, kind: str
) -> None:
    found = night(moved_clock, refusing(kind, lambda call: True))
    assert (found.ending, found.outcomes) == (Ending.STOPPED, [])
    assert is_hopeless(found.stopped)
    assert 60 <= found.took_s < 75
    assert found.total < 60


def test_the_word_is_not_asked_of_a_run_that_goes_well(moved_clock: RunOn) -> None:
    found = night(moved_clock, refusing("400", lambda call: call.number in {10, 30}), 100)
    assert found.calls[NO_RECORD] <= 2


# -- nothing that is an answer -----------------------------------------------------------------------------------


NO_COMPLETIONS = {
    "page": lambda: page(200, "Sign in"),
    "event stream": lambda: web.Response(text="data: {}\n\ndata: [DONE]\n\n", content_type="text/event-stream"),
    "packed": lambda: web.Response(body=b"x", headers={"Content-Encoding": "br"}),
    "empty": lambda: web.Response(text=""),
    "object": lambda: web.json_response({"status": "ok"}),
}


@pytest.mark.parametrize("kind", NO_COMPLETIONS)
def test_a_server_that_never_answers_as_a_model_is_hopeless_after_a_minute(moved_clock: RunOn, kind: str) -> None:
    """It was probed for six hours."""
    found = night(moved_clock, lambda _: NO_COMPLETIONS[kind]())
    assert (found.ending, found.outcomes) == (Ending.STOPPED, [])
    assert is_hopeless(found.stopped)
    assert "model.base_url" in str(found.stopped)
    assert 60 <= found.took_s < 75
    assert found.total < 60


@pytest.mark.parametrize(("proven", "count"), [(False, 200), (True, 200), (True, 1)])
def test_a_page_for_half_an_hour_is_an_outage_in_a_run_that_was_answered(
    moved_clock: RunOn, proven: bool, count: int
) -> None:
    """A portal, or maintenance."""
    since_s = 0.0 if proven else 0.3
    found = night(
        moved_clock,
        lambda call: page(200, "Back soon") if since_s <= call.at_s < 1800 * (count > 1) else good(),
        count,
        proven=proven,
    )
    assert (found.ending, found.stopped, len(found.labelled)) == (Ending.COMPLETE, None, count)


def test_a_server_that_is_starting_is_waited_for(moved_clock: RunOn) -> None:
    found = night(moved_clock, lambda call: error(503, "Loading model") if call.at_s < 900 else good(), 100)
    assert (found.ending, len(found.labelled)) == (Ending.COMPLETE, 100)


# -- poison that looks like an outage ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "bad", "count"),
    [
        (500, range(20, 32), 100),
        (503, range(12), 100),
        (500, range(88, 100), 100),
        (503, range(50, 150), 200),
    ],
)
def test_records_that_make_the_server_fail_are_charged_for_it(
    moved_clock: RunOn, status: int, bad: range, count: int
) -> None:
    """They took all workers, each was asked 49 times, and "OUTAGE" held the run for six hours, at each resume too."""
    found = night(
        moved_clock,
        lambda call: error(status, "cannot be parsed", "server_error") if call.number in bad else good(),
        count,
        concurrency=4,
    )
    assert (found.ending, found.without) == (Ending.COMPLETE, set(bad))
    assert found.codes == {"unavailable": len(bad)}
    assert max(found.calls[number] for number in bad) <= 9
    assert found.took_s < 60 + 0.5 * len(bad)


@pytest.mark.parametrize("word", [503, 400])
def test_an_outage_whose_words_fail_too_stays_one(moved_clock: RunOn, word: int) -> None:
    """A gateway before a dead backend may refuse a word for reasons of its own: that is no sign of life."""
    found = night(
        moved_clock,
        lambda call: error(word if call.number == NO_RECORD else 503, "no") if 0.3 < call.at_s < 1800 else good(),
        200,
    )
    assert (found.ending, len(found.labelled)) == (Ending.COMPLETE, 200)
    assert len(found.rig.gate.outages) == 1
    assert found.calls[NO_RECORD] < 2 * 1800 / 5


def test_lucky_words_in_an_outage_lose_nothing(moved_clock: RunOn) -> None:
    """One call in ten gets through for a minute, a word as well as a record: it proves nothing."""
    chance = random.Random(1)
    found = night(
        moved_clock,
        lambda call: error(503, "no") if 0.3 < call.at_s < 60 and chance.random() > 0.1 else good(),
        1000,
    )
    assert (found.ending, len(found.labelled)) == (Ending.COMPLETE, 1000)


def test_words_that_pass_where_no_record_does_give_up_no_more_than_some(moved_clock: RunOn) -> None:
    """What makes the answers to records is away, and a word is answered all the same."""
    found = night(
        moved_clock,
        lambda call: error(500, "no") if call.number >= 30 and call.at_s < 7200 else good(),
        1000,
        concurrency=32,
        max_attempts=1,
    )
    assert (found.ending, found.stopped) == (Ending.COMPLETE, None)
    assert 500 <= len(found.without) <= 500 + 2 * 32 + 260


def test_records_that_wait_keep_no_other_from_being_asked(moved_clock: RunOn) -> None:
    """Ten that fail took all ten workers. Here no word tells, and the others are asked all the same."""
    bad = range(20, 60)
    found = night(
        moved_clock,
        lambda call: error(500, "no") if call.number in bad or call.number == NO_RECORD else good(),
        100,
        concurrency=4,
    )
    assert (found.ending, found.without) == (Ending.COMPLETE, set(bad))
    assert found.took_s < 300


@pytest.mark.parametrize("held", ["paused", "held", "day"])
def test_a_word_passes_no_limit(moved_clock: RunOn, held: str) -> None:
    """It left in spite of a pause and of the day's limit, which counts it."""

    counted: Counter[str] = Counter()

    async def used(day: str) -> int:
        return counted[day]

    async def add(day: str, count: int) -> None:
        counted[day] += count

    async def main() -> tuple[bool, int | None]:
        gate = Gate(4)
        day = DayMeter(1, used=used, add=add, wall=lambda: 0.0)
        door = Admission(gate=gate, day=day)
        gate.set_paused(held == "paused")
        gate.set_hold(asyncio.get_running_loop().time() + 60 * (held == "held"), "a 429")
        first = await door.acquire_health_check(10, TokenBound(10, 10))
        again = await door.acquire_health_check(10, TokenBound(10, 10)) if first is not None else None
        assert again is None
        return first is not None, day.left_today

    assert moved_clock(main()) == (held == "day", 0 if held == "day" else None)
