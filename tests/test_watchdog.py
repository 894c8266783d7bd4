"""Nothing moves: when that is said, and what is said of tasks that are really stuck."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.control import Watchdog, describe_tasks, group_tasks

SECRET = "the text of a record"


def test_a_stall_is_reported_once_and_again_each_time() -> None:
    dog = Watchdog(120, 1_000.0)
    assert not dog.is_due(1_119)
    assert dog.is_due(1_120)
    assert not dog.is_due(1_121)
    assert dog.is_due(1_240)
    dog.moved(1_241)
    assert not dog.is_due(1_360)
    assert dog.is_due(1_361)
    assert dog.still_for_s(1_361) == 120


def test_counters_that_stay_are_no_movement() -> None:
    dog = Watchdog(10, 0.0)
    dog.note((0, 0), 0)
    dog.note((1, 0), 5)
    dog.note((1, 0), 9)
    assert dog.still_for_s(15) == 10
    assert dog.is_due(15)


@given(st.lists(st.tuples(st.floats(0, 50), st.booleans()), max_size=60))
def test_no_stall_is_reported_early_nor_twice(steps: list[tuple[float, bool]]) -> None:
    dog, now, quiet_since = Watchdog(60, 0.0), 0.0, 0.0
    for step_s, moves in steps:
        now += step_s
        if moves:
            dog.moved(now)
            quiet_since = now
        barked = dog.is_due(now)
        assert barked == (now - quiet_since >= 60)
        if barked:
            quiet_since = now


# -- what tasks wait for -------------------------------------------------------------------------------------------


class Call:
    """As deep as a worker's call."""

    def __init__(self, last: Callable[[], Awaitable[Any]]) -> None:
        self._last = last

    async def outer(self) -> None:
        record = SECRET
        await self.inner(record)

    async def inner(self, record: str) -> None:
        await self._last()
        assert record


def described(last: Callable[[], Awaitable[Any]], *, name: str = "worker-0") -> dict[str, Any]:
    """What is said of a task that is stuck in `last`."""

    async def main() -> dict[str, Any]:
        task = asyncio.create_task(Call(last).outer(), name=name)
        for _ in range(5):
            await asyncio.sleep(0)
        (found,) = describe_tasks()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return found

    found = asyncio.run(main())
    assert SECRET not in repr(found)
    return found


def sleeping() -> Awaitable[Any]:
    return asyncio.sleep(3_600)


async def locked() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


async def queued() -> None:
    await asyncio.Queue[str](7).get()


async def full() -> None:
    queue = asyncio.Queue[str](1)
    await queue.put(SECRET)
    await queue.put(SECRET)


async def event() -> None:
    await asyncio.Event().wait()


async def future() -> None:
    await asyncio.get_running_loop().create_future()


async def another() -> None:
    task = asyncio.create_task(asyncio.sleep(3_600), name="progress")
    try:
        await task
    finally:
        task.cancel()


async def semaphore() -> None:
    await asyncio.Semaphore(0).acquire()


async def timeout() -> None:
    async with asyncio.timeout(60):
        await future()


@pytest.mark.parametrize(
    ("last", "awaits", "at"),
    [
        (sleeping, "sleep of 3600 s", "asyncio/tasks.py"),
        (locked, "Lock, locked, 1 waiting", "asyncio/locks.py"),
        (queued, "Queue with 0 of 7", "asyncio/queues.py"),
        (full, "Queue with 1 of 1", "asyncio/queues.py"),
        (event, "Event, 1 waiting", "asyncio/locks.py"),
        (semaphore, "Semaphore, locked, 1 waiting", "asyncio/locks.py"),
        (future, "Future pending", "tests/test_watchdog.py"),
        (another, "task progress", "tests/test_watchdog.py"),
        (timeout, "Future pending", "tests/test_watchdog.py"),
    ],
)
def test_what_a_stuck_task_waits_for(last: Callable[[], Awaitable[Any]], awaits: str, at: str) -> None:
    found = described(last)
    assert found["task"] == "worker-0"
    assert found["awaits"] == awaits
    assert found["at"].startswith(at)
    outer, inner, *deeper = found["stack"]
    assert outer.startswith("tests/test_watchdog.py:")
    assert outer.endswith(" Call.outer")
    assert inner.endswith(" Call.inner")
    assert found["at"] == (deeper or [inner])[-1]


def test_async_generators_are_looked_through() -> None:
    """`async for` hides what it steps through: the stack ended at the loop, not at what the reader waits for."""

    async def rows() -> AsyncGenerator[int, None]:
        yield 1
        await asyncio.sleep(3_600)

    async def reading() -> None:
        async for _ in rows():
            pass

    found = described(reading)
    assert found["awaits"] == "sleep of 3600 s"
    reader, generator, sleeper = (place.rpartition(" ")[2] for place in found["stack"][-3:])
    assert reader.endswith(".reading")
    assert generator.endswith(".rows")
    assert sleeper == "sleep"


def test_old_awaitables_are_looked_through() -> None:
    class Odd:
        def __await__(self) -> Generator[Any, None, None]:
            yield from asyncio.get_running_loop().create_future()

    async def waiting() -> None:
        await Odd()

    found = described(waiting)
    assert found["awaits"] == "Future pending"
    assert found["at"].endswith("Odd.__await__")


def test_only_workers_are_described_and_in_their_order() -> None:
    async def main() -> list[str]:
        names = ["worker-10", "worker-2", "writer", "progress", "worker-1"]
        tasks = [asyncio.create_task(asyncio.sleep(3_600), name=name) for name in names]
        await asyncio.sleep(0)
        found = [one["task"] for one in describe_tasks()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    assert asyncio.run(main()) == ["worker-1", "worker-2", "worker-10"]


def test_a_task_that_can_run_waits_for_nothing() -> None:
    async def main() -> dict[str, Any]:
        task = asyncio.create_task(asyncio.sleep(3_600), name="worker-0")
        (found,) = describe_tasks()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return found

    assert asyncio.run(main())["awaits"] == "nothing: it can run"


def test_those_that_stand_at_the_same_place_are_one_group() -> None:
    async def main() -> list[dict[str, Any]]:
        lock, event = asyncio.Lock(), asyncio.Event()
        await lock.acquire()

        async def work(number: int) -> None:
            await (lock.acquire() if number % 10 else event.wait())

        tasks = [asyncio.create_task(work(number), name=f"worker-{number}") for number in range(100)]
        await asyncio.sleep(0)
        found = group_tasks(describe_tasks())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    first, second = asyncio.run(main())
    assert (first["count"], first["awaits"]) == (90, "Lock, locked, 90 waiting")
    assert first["tasks"] == ["worker-1", "worker-2", "worker-3", "worker-4", "worker-5"]
    assert (second["count"], second["awaits"], second["tasks"][0]) == (10, "Event, 10 waiting", "worker-0")
    assert second["stack"][-1] == second["at"]
