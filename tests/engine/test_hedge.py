"""At the end of the input a call that takes long is asked a second time: the first answer wins, and nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from engine_parts import Rig, answered, request

from pipeline.errors import UnavailableError
from pipeline.records import Request, Response, Status

RunOn = Callable[[Any], Any]
KNOWN = 60


async def at_the_tail(provider: Callable[[Request], Any], *, concurrency: int = 8) -> Rig:
    """A rig that knows how long calls take, and is at the end of its input."""
    rig = Rig(provider, concurrency=concurrency, hedge_after_p=95)
    for number in range(KNOWN):
        await rig.asker.ask(request(number))
    rig.asker.judge.tail.set()
    return rig


def slow_at_first(*slow_s: float) -> Callable[[Request], Any]:
    """Each record beyond the known ones takes `slow_s`, one after another; later calls are quick."""
    waits = iter(slow_s)

    async def provider(asked: Request) -> Response:
        await asyncio.sleep(next(waits, 0.01) if asked.record.ordinal >= KNOWN else 0.01)
        return answered()

    return provider


def test_the_second_call_wins_where_the_first_hangs(moved_clock: RunOn) -> None:
    async def main() -> tuple[Any, float, int]:
        rig = await at_the_tail(slow_at_first(50.0))
        began = asyncio.get_running_loop().time()
        outcome = await rig.asker.ask(request(KNOWN))
        assert rig.gate.in_flight == 0
        return outcome, asyncio.get_running_loop().time() - began, rig.stats.retries["hedge"]

    outcome, took_s, hedges = moved_clock(main())
    assert outcome.status is Status.LABELLED
    assert outcome.attempts == 2
    assert took_s < 0.2
    assert hedges == 1


@pytest.mark.parametrize("concurrency", [1, 4])
def test_where_all_places_are_taken_by_slow_calls_nobody_waits_for_ever(moved_clock: RunOn, concurrency: int) -> None:
    """Each kept its place while it waited for a second one: with as many slow calls as places the run stood still."""

    async def main() -> list[Any]:
        rig = await at_the_tail(slow_at_first(*concurrency * [5.0]), concurrency=concurrency)
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*(rig.asker.ask(request(KNOWN + n)) for n in range(concurrency)))
        assert rig.gate.in_flight == 0
        return outcomes

    assert {one.status for one in moved_clock(main())} == {Status.LABELLED}


def test_a_second_call_that_fails_does_not_hide_the_first_ones_answer(moved_clock: RunOn) -> None:
    calls = 0

    async def provider(asked: Request) -> Response:
        nonlocal calls
        calls += asked.record.ordinal >= KNOWN
        if calls == 2:
            raise UnavailableError("503", status=503)
        await asyncio.sleep(1.0 if calls else 0.01)
        return answered()

    async def main() -> Any:
        rig = await at_the_tail(provider)
        return await rig.asker.ask(request(KNOWN))

    outcome = moved_clock(main())
    assert outcome.status is Status.LABELLED
    assert calls == 2


def test_a_stop_while_it_waits_leaves_the_first_call_its_time(moved_clock: RunOn) -> None:
    async def main() -> Any:
        rig = await at_the_tail(slow_at_first(5.0), concurrency=1)
        asyncio.get_running_loop().call_later(1.0, rig.gate.stop, ValueError("interrupted"))
        return await rig.asker.ask(request(KNOWN))

    assert moved_clock(main()).status is Status.LABELLED
