"""Amounts are taken in turn and given back, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random

from pipeline.media.semaphore import WeightedSemaphore


async def _alone() -> None:
    held = WeightedSemaphore(100)
    async with held.acquire(60):
        large = asyncio.create_task(_hold(held, 500, []))
        await asyncio.sleep(0)
        assert held.used == 60
    await asyncio.sleep(0)
    assert held.used == 500
    await large
    assert held.used == 0


async def _hold(held: WeightedSemaphore, amount: int, seen: list[int]) -> None:
    async with held.acquire(amount):
        seen.append(held.used)
        await asyncio.sleep(0.001)


def run(coroutine: object) -> None:
    asyncio.run(coroutine)  # type: ignore[arg-type]


def test_more_than_the_room_goes_alone() -> None:
    run(_alone())


def test_first_come_first_served() -> None:
    async def play() -> None:
        held, order = WeightedSemaphore(10), []

        async def one(name: str, amount: int) -> None:
            async with held.acquire(amount):
                order.append(name)
                await asyncio.sleep(0)

        await asyncio.gather(one("a", 6), one("b", 8), one("c", 1), one("d", 1))
        assert order == ["a", "b", "c", "d"]

    run(play())


def test_an_amount_that_is_known_late_lets_others_in() -> None:
    async def play() -> None:
        held = WeightedSemaphore(10)
        async with held.acquire(10) as resize:
            other = asyncio.create_task(_hold(held, 7, []))
            await asyncio.sleep(0)
            resize(3)
            await asyncio.sleep(0)
            assert held.used == 10
            await other
        assert held.used == 0

    run(play())


def test_cancels_at_any_moment_lose_nothing() -> None:
    """300 holders, a third of them cancelled at random turns of the loop: all is given back and none is stuck."""

    async def play(seed: int) -> None:
        rng = random.Random(seed)
        held, seen = WeightedSemaphore(50), []

        async def one() -> None:
            async with held.acquire(rng.randint(1, 60)) as resize:
                seen.append(held.used)
                await asyncio.sleep(0)
                resize(rng.randint(0, 20))
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(one()) for _ in range(300)]
        for task in rng.sample(tasks, 100):
            for _ in range(rng.randint(0, 4)):
                await asyncio.sleep(0)
            task.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert held.used == 0
        assert max(seen) <= 60 + 20

    for seed in range(20):
        run(play(seed))


def test_a_failing_holder_gives_back() -> None:
    async def play() -> None:
        held = WeightedSemaphore(10)
        with contextlib.suppress(ZeroDivisionError):
            async with held.acquire(5):
                raise ZeroDivisionError
        assert held.used == 0

    run(play())
