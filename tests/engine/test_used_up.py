"""Quotas under unknown names, keys refused among 5xx, and requests too large in unknown words. Over real sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from oddserver import NO_RECORD, Call, error, good, night, page

from pipeline.engine import Ending
from pipeline.errors import CredentialsError, QuotaError

RunOn = Callable[[Any], Any]
Says = Callable[[], web.StreamResponse]

GOOGLE = "Resource has been exhausted (e.g. check quota)."
UNKNOWN: dict[str, Says] = {
    "Google": lambda: error(429, GOOGLE, "RESOURCE_EXHAUSTED", 429),
    "plain text": lambda: web.Response(status=429, text=GOOGLE),
    "200": lambda: web.json_response({"message": "Sorry, out of tokens for this month", "code": 40029}),
}


async def silence() -> web.StreamResponse:
    """No answer before the call's own time is over."""
    await asyncio.sleep(61)
    return good()


async def reset() -> web.StreamResponse:
    """The connection breaks."""
    raise ConnectionResetError


AMONG: dict[str, Callable[[], Any]] = {
    "429": lambda: error(429, "Rate limit reached for requests", "requests"),
    "wait": lambda: web.Response(status=429, headers={"Retry-After": "2"}),
    "503": lambda: error(503, "no"),
    "502": lambda: page(502, "Bad Gateway"),
    "silence": silence,
    "reset": reset,
}


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize("begin", [0, 30])
def test_the_same_words_to_all_for_long_end_the_run(moved_clock: RunOn, kind: str, begin: int) -> None:
    """It was waited for like an outage, for six hours."""
    found = night(moved_clock, lambda call: UNKNOWN[kind]() if call.count >= begin else good(), 80, concurrency=16)
    assert (found.ending, len(found.labelled), found.without) == (Ending.STOPPED, begin, set())
    assert isinstance(found.stopped, QuotaError)
    assert GOOGLE in str(found.stopped) or "out of tokens for this month" in str(found.stopped)
    assert 600 <= found.took_s < 700
    assert found.total < 400


def test_words_of_a_limit_a_minute_are_given_more_time(moved_clock: RunOn) -> None:
    """Another program may have had all of the key's limit meanwhile."""

    def night_of(busy_s: float) -> Any:
        says: Says = lambda: error(429, "Rate limit reached for requests", "requests")  # noqa: E731
        return night(moved_clock, lambda call: says() if call.count >= 30 and call.at_s < busy_s else good(), 80)

    assert len(night_of(1500).labelled) == 80
    assert isinstance(night_of(7200).stopped, QuotaError)


@pytest.mark.parametrize(
    "says",
    [
        pytest.param(lambda _: error(429, GOOGLE, code=429, details=[{"retryDelay": "30s"}]), id="a wait is told"),
        pytest.param(lambda _: error(429, "The model is overloaded"), id="no room at the moment"),
        pytest.param(lambda call: error(429, ("not now", "no more")[call.count // 30 % 2]), id="other words"),
        pytest.param(lambda _: error(200, "upstream is away"), id="an outage inside a 200"),
    ],
)
def test_what_passes_after_half_an_hour_is_waited_for(moved_clock: RunOn, says: Callable[[Call], Any]) -> None:
    found = night(moved_clock, lambda call: says(call) if call.count >= 30 and call.at_s < 1800 else good(), 80)
    assert (found.ending, found.stopped, len(found.labelled)) == (Ending.COMPLETE, None, 80)


@pytest.mark.parametrize(
    ("kinds", "how"),
    [
        ("429 503", "in turns"),
        ("429 reset", "in turns"),
        ("wait 503", "in turns"),
        ("429 502", "by chance"),
        ("429 silence", "by chance"),
    ],
)
def test_failures_among_refusals_blame_nobody_while_nobody_passes(moved_clock: RunOn, kinds: str, how: str) -> None:
    """A 429 ended the outage, and what failed after it was charged to records."""
    chance, pair = random.Random(3), kinds.split()

    def answer(call: Call) -> Any:
        if call.count < 30 or call.at_s > 900:
            return good()
        return AMONG[pair[call.count % 2 if how == "in turns" else chance.randrange(2)]]()

    found = night(moved_clock, answer, 60, concurrency=16)
    assert (found.ending, found.stopped, len(found.labelled)) == (Ending.COMPLETE, None, 60)
    assert len(found.rig.gate.outages) <= 1


def test_a_plain_429_for_an_hour_is_waited_for(moved_clock: RunOn) -> None:
    """It names no quota."""
    says: Says = lambda: web.Response(status=429)  # noqa: E731
    found = night(moved_clock, lambda call: says() if call.count >= 30 and call.at_s < 4000 else good(), 60)
    assert (found.ending, found.stopped, len(found.labelled)) == (Ending.COMPLETE, None, 60)


@pytest.mark.parametrize(
    "text",
    [
        GOOGLE,
        "This would exceed your rate limit of 30,000 input tokens. Please reduce the prompt length or try again later",
        "Token usage 70000 exceeds the limit of 60000 per minute",
        "Tokens per minute limit exceeded - too many tokens processed.",
    ],
)
def test_a_limit_a_minute_that_names_no_moment_costs_no_record(moved_clock: RunOn, text: str) -> None:
    """Whatever it says of tokens and lengths."""
    sent: list[float] = []

    def answer(call: Call) -> web.StreamResponse:
        if sum(one > call.at_s - 60 for one in sent) >= 20:
            return error(429, text)
        sent.append(call.at_s)
        return good()

    found = night(moved_clock, answer, 100, concurrency=16)
    assert (found.ending, found.stopped, len(found.labelled)) == (Ending.COMPLETE, None, 100)
    assert found.took_s > 200


# -- a key among failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [2, 3])
def test_a_key_refused_among_5xx_ends_the_run(moved_clock: RunOn, period: int) -> None:
    """Each 500 washed the 401 before it away."""

    def answer(call: Call) -> web.StreamResponse:
        if call.count < 30:
            return good()
        return error(401, "No auth credentials found") if call.count % period else error(500, "no")

    found = night(moved_clock, answer, 80, concurrency=16)
    assert isinstance(found.stopped, CredentialsError)
    assert (len(found.labelled), found.without) == (30, set())
    assert 600 <= found.took_s < 700


def test_a_few_refusals_in_an_outage_are_part_of_it(moved_clock: RunOn) -> None:
    def answer(call: Call) -> web.StreamResponse:
        if call.count < 30 or call.at_s > 1800:
            return good()
        return error(401, "No auth credentials found") if call.count % 40 == 0 else error(503, "no")

    found = night(moved_clock, answer, 80, concurrency=16)
    assert (found.ending, found.stopped, len(found.labelled)) == (Ending.COMPLETE, None, 80)


# -- too large, in words that no table has -----------------------------------------------------------------------

SIZES = [
    "Request size 70000 tokens is greater than your TPM quota of 60000",
    "Request body too large for gpt-4o model. Max size: 8000 tokens.",
    "Input of 70,000 exceeds what may be sent: 60,000",
    "this one is longer than we let through",
]


@pytest.mark.parametrize(
    ("text", "bad"), list(zip(SIZES, [range(20, 40), range(190, 200), range(10), range(20, 40)], strict=True))
)
def test_a_record_too_large_in_any_words_is_rejected_soon(moved_clock: RunOn, text: str, bad: range) -> None:
    """Each was asked sixty times, and all waited for it."""
    answer: Callable[[Call], Any] = lambda call: error(429, text) if call.number in bad else good()  # noqa: E731
    found = night(moved_clock, answer, 200, concurrency=16)
    assert (found.ending, found.stopped, found.without) == (Ending.COMPLETE, None, set(bad))
    assert found.codes == {"too_large": len(bad)}
    assert max(found.calls[number] for number in bad) <= 4
    assert found.took_s < 60


def test_words_of_size_to_everybody_blame_nobody(moved_clock: RunOn) -> None:
    """A gateway that says so of all calls, the word too, means its limit."""

    def answer(call: Call) -> web.StreamResponse:
        is_bad = call.number == NO_RECORD or (call.count >= 30 and call.at_s < 300)
        return error(429, SIZES[1]) if is_bad else good()

    found = night(moved_clock, answer, 80, concurrency=16)
    assert (found.ending, found.stopped, len(found.labelled)) == (Ending.COMPLETE, None, 80)
