"""Whose fault a failure is: the record's, or everybody's. No row is lost to an outage, and none runs for ever."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from engine_parts import Rig, answered, items, request

from pipeline.engine import Job, Pool, PoolSizes
from pipeline.errors import (
    CredentialsError,
    QuotaError,
    RateLimitedError,
    RecordRefusedError,
    RequestShapeError,
    StoppedError,
    UnavailableError,
)
from pipeline.records import Outcome, Request, Response, Status, Usage

RunOn = Callable[[Any], Any]
#: Whether the server answers: by the seconds since the start, the request, and chance.
Up = Callable[[float, Request, random.Random], bool]


def run_pool(run_on: RunOn, up: Up, count: int, *, concurrency: int = 32) -> tuple[Counter[Status], Rig, float, int]:
    """`count` records through a server that answers or says 503. Statuses, the rig, seconds and calls."""
    outcomes: list[Outcome] = []

    async def commit(batch: Any) -> None:
        outcomes.extend(batch)

    async def main() -> tuple[Rig, float, int]:
        loop, chance, calls = asyncio.get_running_loop(), random.Random(3), 0
        began = loop.time()

        async def provider(asked: Request) -> Response:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.05 * (0.5 + chance.random()))
            if up(loop.time() - began, asked, chance):
                return answered()
            raise UnavailableError("503", status=503)

        rig = Rig(provider, concurrency=concurrency)
        jobs = items([Job(request(number)) for number in range(count)])
        pool = Pool(jobs, rig.asker, commit, sizes=PoolSizes.for_concurrency(concurrency, 30))
        async with asyncio.timeout(7200):
            await pool.run()
        return rig, loop.time() - began, calls

    rig, took_s, calls = run_on(main())
    assert len(outcomes) == len({outcome.record.key for outcome in outcomes}) == count
    return Counter(outcome.status for outcome in outcomes), rig, took_s, calls


def test_thirty_seconds_of_503_lose_nothing_and_cost_little(moved_clock: RunOn) -> None:
    statuses, rig, took_s, calls = run_pool(moved_clock, lambda t, q, r: not 2 < t < 32, 8000)
    assert statuses == {Status.LABELLED: 8000}
    # 8000 records take 12.5 s; probes come every 4 s at the latest, and the window opens within a second.
    assert took_s < 12.5 + 30 + 5
    assert calls < 8000 + 150
    assert len(rig.gate.outages) == 1


@pytest.mark.parametrize(
    "up",
    [
        pytest.param(lambda t, q, r: t % 22 < 2, id="up for 2 s, down for 20 s, again and again"),
        pytest.param(lambda t, q, r: not 2 < t < 62 or r.random() < 0.02, id="down, but 1 call of 50 gets through"),
        pytest.param(lambda t, q, r: not 2 < t < 62 or r.random() < 0.1, id="down, but 1 call of 10 gets through"),
    ],
)
def test_an_outage_with_lucky_answers_in_it_loses_nothing(moved_clock: RunOn, up: Up) -> None:
    """A single answer proved "others are answered": a hundred records were charged for what hit everybody."""
    statuses, rig, _, _ = run_pool(moved_clock, up, 1500)
    assert statuses == {Status.LABELLED: 1500}
    assert rig.gate.outages


@pytest.mark.parametrize("percent", [1, 5, 10])
def test_records_that_always_fail_are_given_up_while_the_rest_is_labelled(moved_clock: RunOn, percent: int) -> None:
    chance = random.Random(5)
    bad = {f"k{number}" for number in range(1000) if chance.random() < percent / 100}
    statuses, _, took_s, calls = run_pool(moved_clock, lambda t, q, r: q.record.key not in bad, 1000)
    assert statuses == {Status.LABELLED: 1000 - len(bad), Status.FAILED: len(bad)}
    assert calls <= 1000 + 8 * len(bad) + 50
    assert took_s < 120


def test_the_last_records_failing_does_not_hold_the_end_up(moved_clock: RunOn) -> None:
    statuses, _, took_s, _ = run_pool(moved_clock, lambda t, q, r: q.record.ordinal < 995, 1000)
    assert statuses == {Status.LABELLED: 995, Status.FAILED: 5}
    assert took_s < 60


def test_a_record_that_is_alone_and_always_fails_ends(moved_clock: RunOn) -> None:
    statuses, _, took_s, calls = run_pool(moved_clock, lambda t, q, r: False, 1)
    assert statuses == {Status.FAILED: 1}
    assert calls == 8
    assert took_s < 120


def test_everybody_refused_for_hours_gives_nobody_up(moved_clock: RunOn) -> None:
    """A day's quota without a header looks like this: 429 for each call, for hours, and then answers again."""

    async def main() -> tuple[list[Any], int]:
        loop, calls = asyncio.get_running_loop(), 0
        began = loop.time()

        async def provider(_: Request) -> Response:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.05)
            if 1 < loop.time() - began < 7200:
                raise RateLimitedError("429")
            return answered()

        rig = Rig(provider)
        await rig.asker.ask(request(0))
        await asyncio.sleep(2)
        return await asyncio.gather(*(rig.asker.ask(request(number)) for number in range(1, 40))), calls

    outcomes, calls = moved_clock(main())
    assert {one.status for one in outcomes} == {Status.LABELLED}
    assert calls < 3 * 7200 / 4


def test_400_to_a_record_does_not_blame_others_for_an_outage(moved_clock: RunOn) -> None:
    """A gateway turns records down while the model behind it is away: that is no answer."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def provider(asked: Request) -> Response:
            await asyncio.sleep(0.02)
            if asked.record.ordinal % 10 == 9:
                raise RecordRefusedError("400 context_length_exceeded", status=400)
            if 0.1 < loop.time() - began < 60:
                raise UnavailableError("503", status=503)
            return answered()

        rig = Rig(provider, concurrency=16)
        return await asyncio.gather(*(rig.asker.ask(request(number)) for number in range(400)))

    statuses = Counter(one.status for one in moved_clock(main()))
    assert statuses == {Status.LABELLED: 360, Status.REJECTED: 40}


def test_the_first_record_alone_saying_400_waits_for_the_others_word(moved_clock: RunOn) -> None:
    """Its shape may be at fault or its content: the other records decide, and it does not ask like mad meanwhile."""

    async def main() -> tuple[list[Any], int]:
        calls = 0

        async def provider(asked: Request) -> Response:
            nonlocal calls
            if asked.record.ordinal == 0:
                calls += 1
                await asyncio.sleep(0.01)
                raise RequestShapeError("400 invalid_request_error", status=400)
            await asyncio.sleep(30)
            return answered()

        rig = Rig(provider)
        return await asyncio.gather(*(rig.asker.ask(request(number)) for number in range(6))), calls

    outcomes, calls = moved_clock(main())
    assert [one.status for one in outcomes] == [Status.REJECTED] + 5 * [Status.LABELLED]
    assert calls < 12


def test_a_certain_400_aborts_at_the_first_call(moved_clock: RunOn) -> None:
    async def main() -> int:
        async def provider(_: Request) -> Response:
            raise RequestShapeError("400: tools[0]", certain=True, status=400)

        rig = Rig(provider)
        asked = (rig.asker.ask(request(number)) for number in range(50))
        assert {type(one) for one in await asyncio.gather(*asked, return_exceptions=True)} == {StoppedError}
        return rig.admission.calls

    assert moved_clock(main()) == 1


@pytest.mark.parametrize("error", [QuotaError("429 insufficient_quota"), CredentialsError("401")])
def test_in_mid_run_the_end_of_the_quota_costs_what_is_in_flight(moved_clock: RunOn, error: Exception) -> None:
    async def main() -> tuple[list[Any], int]:
        calls = 0

        async def provider(_: Request) -> Response:
            nonlocal calls
            calls += 1
            mine = calls
            await asyncio.sleep(0.05)
            if mine > 100:
                raise error
            return answered()

        rig = Rig(provider, concurrency=8)
        asked = (rig.asker.ask(request(number)) for number in range(400))
        return await asyncio.gather(*asked, return_exceptions=True), calls

    outcomes, calls = moved_clock(main())
    # A key may be refused for a moment: it is asked again for some seconds, by one probe at a time.
    assert calls <= 100 + 8 + (0 if isinstance(error, QuotaError) else 12)
    assert sum(isinstance(one, Outcome) for one in outcomes) == 100
    assert all(isinstance(one, Outcome | StoppedError) for one in outcomes)


def test_usage_and_attempts_are_summed_over_repairs_and_failures(moved_clock: RunOn) -> None:
    steps = iter([UnavailableError("503"), answered("bad"), answered("bad"), answered()])

    async def provider(_: Request) -> Response:
        step = next(steps)
        if isinstance(step, Exception):
            raise step
        return step

    outcome = moved_clock(_ask_one(provider))
    assert outcome.status is Status.LABELLED
    assert (outcome.attempts, outcome.repairs) == (4, 2)
    assert outcome.usage == Usage(24, 6)
    assert outcome.request_digest == request(0).digest


async def _ask_one(provider: Callable[[Request], Any]) -> Any:
    return await Rig(provider).asker.ask(request(0))


def test_a_few_records_that_all_hang_end_the_run_all_the_same(moved_clock: Callable[[Any], Any]) -> None:
    """`retry` of two records that can never be answered looks like an outage: it is not taken for one for ever."""

    async def silent(_: Request) -> Response:
        await asyncio.sleep(100_000)
        raise AssertionError("never")

    async def main() -> tuple[list[Any], float]:
        rig = Rig(silent, timeout_s=60, max_attempts=6)
        before = asyncio.get_running_loop().time()
        outcomes = await asyncio.gather(*(rig.asker.ask(request(number)) for number in range(2)))
        return outcomes, asyncio.get_running_loop().time() - before

    outcomes, took_s = moved_clock(main())
    assert {one.status for one in outcomes} == {Status.FAILED}
    assert took_s < 3600
