"""Calls that are never answered: a few hundred records that hang are no outage, and a silent server is one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from engine_parts import Rig, answered, items, request

from pipeline.engine import Job, Pool, PoolSizes
from pipeline.errors import UnknownRefusalError
from pipeline.records import Outcome, Request, Response, Status, Usage

RunOn = Callable[[Any], Any]
#: Whether a call hangs: by the seconds since the start, and the record's ordinal.
Hangs = Callable[[float, int], bool]
TIMEOUT_S, ATTEMPTS = 20.0, 4


def run_pool(
    run_on: RunOn,
    hangs: Hangs,
    count: int,
    *,
    concurrency: int = 64,
    stop_after_s: float | None = None,
    timeout_s: float = TIMEOUT_S,
    attempts: int = ATTEMPTS,
    refuses_words: bool = False,
) -> tuple[Counter[Status], Rig, float]:
    """`count` records through a server that answers in 50 ms or never. Statuses, the rig, seconds."""
    outcomes: list[Outcome] = []
    pings: list[float] = []

    async def commit(batch: Any) -> None:
        outcomes.extend(batch)

    async def main() -> tuple[Rig, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def provider(asked: Request) -> Response:
            if hangs(loop.time() - began, asked.record.ordinal):
                await asyncio.Event().wait()
            await asyncio.sleep(0.05)
            return answered()

        async def ping(_: Request) -> Usage:
            pings.append(loop.time())
            if hangs(loop.time() - began, -1):
                await asyncio.Event().wait()
            if refuses_words:
                await asyncio.sleep(0.05)
                raise UnknownRefusalError("400: what is this?", status=400)
            return Usage(8, 2)

        rig = Rig(provider, concurrency=concurrency, ping=ping, timeout_s=timeout_s, max_attempts=attempts)
        jobs = items([Job(request(number)) for number in range(count)])
        pool = Pool(jobs, rig.asker, commit, sizes=PoolSizes.for_concurrency(concurrency, 1))
        if stop_after_s is not None:
            loop.call_later(stop_after_s, rig.gate.stop, RuntimeError("enough"))
            loop.call_later(stop_after_s, pool.stop)
        async with asyncio.timeout(7200):
            await pool.run()
        return rig, loop.time() - began

    rig, took_s = run_on(main())
    assert len(outcomes) == len({outcome.record.key for outcome in outcomes})
    assert rig.gate.in_flight == rig.gate.unwritten == rig.asker.judge.active == 0
    assert len(pings) <= 2 + took_s / 5  # one word a round, not one a record
    return Counter(outcome.status for outcome in outcomes), rig, took_s


@pytest.mark.parametrize(
    ("hanging", "count"),
    [
        pytest.param(range(50), 250, id="the first"),
        pytest.param(range(200, 250), 250, id="the last"),
        pytest.param(range(100, 150), 250, id="in the middle"),
        pytest.param(range(0, 250, 5), 250, id="spread"),
        pytest.param(range(50), 50, id="all there are"),
    ],
)
def test_many_records_that_hang_end_in_time(moved_clock: RunOn, hanging: range, count: int) -> None:
    """The first of a file filled all workers: nobody else was asked, which looked like an outage and lasted hours.

    A word to the server that is about no record tells it from one.
    """
    statuses, rig, took_s = run_pool(moved_clock, lambda _t, ordinal: ordinal in hanging, count)
    expected = Counter({Status.LABELLED: count - len(hanging), Status.FAILED: len(hanging)})
    assert statuses == +expected
    assert took_s < TIMEOUT_S * ATTEMPTS + 10
    assert not rig.gate.outages


def test_a_server_that_refuses_the_word_is_up_however_short_the_timeouts(moved_clock: RunOn) -> None:
    """Only the first refusal told it: the next one was not asked for within 5 s, and so 200 records were an outage."""
    statuses, rig, took_s = run_pool(
        moved_clock,
        lambda _t, ordinal: ordinal >= 1,
        201,
        concurrency=256,
        timeout_s=4.0,
        attempts=2,
        refuses_words=True,
    )
    assert statuses == Counter({Status.LABELLED: 1, Status.FAILED: 200})
    assert took_s < 2 * 4.0 + 10
    assert not rig.gate.outages


@pytest.mark.parametrize(
    ("silent_from_s", "count"),
    [
        pytest.param(2.0, 6_000, id="in the middle"),
        pytest.param(0.0, 20, id="from the start, a small run"),
        pytest.param(0.12, 250, id="at the end"),
    ],
)
def test_a_server_that_is_silent_for_ten_minutes_costs_no_row(
    moved_clock: RunOn, silent_from_s: float, count: int
) -> None:
    """At the end of the input each silence was charged: a small run lost every record to a server that was starting."""
    statuses, rig, took_s = run_pool(moved_clock, lambda t, _o: silent_from_s <= t < silent_from_s + 600, count)
    assert statuses == {Status.LABELLED: count}
    assert took_s < count / 64 * 0.05 + 600 + 4 * TIMEOUT_S
    assert len(rig.gate.outages) == 1
