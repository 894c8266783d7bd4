"""What a server asks for is waited out, but only for so long at a time; then one call asks again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import RateLimitedError
from pipeline.limits import Admission, DayMeter, Gate, Hours
from pipeline.limits.waits import HEARD_S
from pipeline.records import ServerLimits, Usage

RunOn = Callable[[Any], Any]


def clock() -> float:
    return asyncio.get_running_loop().time()


def answer(door: Admission, limits: ServerLimits | None = None) -> None:
    door.gate.leave()
    door.succeeded(Usage(1, 1), limits)


def refuse(door: Admission, wait_s: float | None) -> None:
    door.gate.leave()
    door.refused(RateLimitedError(retry_after_s=wait_s), clock())


async def opened(concurrency: int = 8, **limits: Any) -> Admission:
    """A door whose first call was answered."""
    door = Admission(gate=Gate(concurrency), **limits)
    await door.acquire(1)
    answer(door)
    return door


async def leaving(door: Admission) -> int:
    """How many calls leave within a second, none of them answered."""
    count = 0
    try:
        async with asyncio.timeout(1):
            while True:
                await door.acquire(1)
                count += 1
    except TimeoutError:
        return count


@pytest.mark.parametrize("told_s", [5 * 3600.0, 1e11, 1e40, 1e300])
def test_hours_and_nonsense_are_heard_for_a_quarter_of_an_hour_at_a_time(moved_clock: RunOn, told_s: float) -> None:
    async def main() -> list[tuple[float, int]]:
        door, began = await opened(), clock()
        await leaving(door)
        refuse(door, told_s)
        while door.gate.in_flight:
            answer(door)  # what was under way may be answered: it opens nothing
        seen = []
        for _ in range(3):
            await asyncio.sleep(HEARD_S - 10)
            assert await leaving(door) == 0
            assert "asks for longer" in door.state().held_reason
            assert door.state().asked_for_s > 0
            await asyncio.sleep(8.5)
            seen.append((clock() - began, await leaving(door)))
            refuse(door, told_s)
        assert door.request_pace.learned is None, "a wait of hours is about no rate a minute"
        return seen

    for number, (at, left) in enumerate(moved_clock(main()), start=1):
        assert at == pytest.approx(number * HEARD_S, abs=3)
        assert left == 1


def test_the_last_part_of_hours_is_waited_out_exactly(moved_clock: RunOn) -> None:
    async def main() -> float:
        door, began = await opened(), clock()
        ends_at = began + 5000.0
        while clock() < ends_at:
            await door.acquire(1)
            refuse(door, ends_at - clock()) if clock() < ends_at else answer(door)
        return clock() - began

    assert moved_clock(main()) == pytest.approx(5000.0, abs=0.01)


def test_a_day_that_is_used_up_by_the_servers_count_is_asked_for_again_by_one_call(moved_clock: RunOn) -> None:
    async def main() -> tuple[float, int]:
        door, began = await opened(), clock()
        door.succeeded(Usage(1, 1), ServerLimits(10_000, 0, 86_400.0))
        await door.acquire(1)
        return clock() - began, await leaving(door)

    waited_s, beside = moved_clock(main())
    assert waited_s == pytest.approx(HEARD_S)
    assert beside == 0


def test_refused_since_is_that_of_the_first_after_the_last_answer(moved_clock: RunOn) -> None:
    async def main() -> None:
        door = await opened()
        assert door.state().refused_since is None
        began = clock()
        for _ in range(3):
            await door.acquire(1)
            refuse(door, 7.0)
            assert door.state().refused_since == began
        await door.acquire(1)
        answer(door)
        assert door.state().refused_since is None

    moved_clock(main())


async def _count(_day: str, _added: int = 0) -> int:
    return 0


async def _add(_day: str, _count: int) -> None:
    pass


@pytest.mark.parametrize("why", ["hours", "day", "pause", "429"])
def test_who_waits_by_the_users_own_limits_rests(moved_clock: RunOn, why: str) -> None:
    async def main() -> bool:
        door = await opened()
        if why == "hours":
            door.set_hours(_Closed(None, None))
        if why == "day":
            door.set_day(DayMeter(0, used=_count, add=_add, wall=clock))
        if why == "pause":
            door.gate.set_paused(True)
        if why == "429":
            door.gate.enter(clock())
            refuse(door, 60.0)
        assert await leaving(door) == 0
        return door.state().resting

    assert moved_clock(main()) is (why != "429")


class _Closed(Hours):
    def wait_s(self, now: object) -> float:
        return 3600.0
