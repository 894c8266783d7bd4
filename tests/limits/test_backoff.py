"""What a server asks for is waited out, but only for so long at a time; then one call asks again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from pipeline.errors import RateLimitedError
from pipeline.limits import Admission, DayLimitReachedError, DayMeter, Gate, Hours
from pipeline.limits.backoff import DAY_MOST_S, HEARD_S
from pipeline.records import ServerLimits, Usage

RunOn = Callable[[Any], Any]


def clock() -> float:
    return asyncio.get_running_loop().time()


def answer(door: Admission, limits: ServerLimits | None = None) -> None:
    door.gate.leave()
    door.on_answer(Usage(1, 1), limits)


def refuse(door: Admission, wait_s: float | None) -> None:
    door.gate.leave()
    door.on_refusal(RateLimitedError(retry_after_s=wait_s), clock())


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
            assert ("asks for longer" if told_s > DAY_MOST_S else "day limit") in door.state().hold_reason
            assert door.state().asked_for_s > 0
            await asyncio.sleep(8.5)
            seen.append((clock() - began, await leaving(door)))
            refuse(door, told_s)
        assert door.resource.state(clock()).requests.learned is None, "a wait of hours is about no rate a minute"
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
        door.on_answer(Usage(1, 1), ServerLimits(10_000, 0, 86_400.0))
        await door.acquire(1)
        return clock() - began, await leaving(door)

    waited_s, beside = moved_clock(main())
    assert waited_s == pytest.approx(HEARD_S)
    assert beside == 0


def test_a_wait_of_hours_is_told_as_the_servers_day_with_its_moment(moved_clock: RunOn) -> None:
    """In the same words to its end, also when less than an hour of it is left: it is one event."""

    async def main() -> set[str]:
        door, ends_at, reasons = await opened(), clock() + 10 * 3600.0, set()
        while clock() < ends_at - 1:
            await door.acquire(1)
            if clock() < ends_at - 1:
                door.gate.leave()
                told = RateLimitedError(retry_after_s=round(ends_at - clock()), day_limit="200 requests")
                door.on_refusal(told, clock())
                assert door.state().waits_s == pytest.approx(ends_at - clock(), abs=2)
                assert door.is_excused
                reasons.add(door.state().hold_reason)
        answer(door)
        await asyncio.sleep(1)
        door.gate.enter(clock())
        answer(door)
        assert not door.is_excused
        assert door.state().server_day_s == 0
        return reasons

    moment = datetime.now().astimezone() + timedelta(hours=10)
    near = {f"{moment + timedelta(minutes=more):%H:%M}" for more in (-1, 0, 1)}
    (reason,) = moved_clock(main())
    assert reason.startswith("the server's day limit of 200 requests; waits until ")
    assert any(one in reason for one in near)


def test_an_answer_after_hours_of_refusals_ends_the_wait_at_once(moved_clock: RunOn) -> None:
    """The server was wrong, or somebody raised the limit: nothing of what it asked for is left in what is shown."""

    async def main() -> None:
        door = await opened()
        door.gate.enter(clock())
        refuse(door, 10 * 3600.0)
        await door.acquire(1)
        await asyncio.sleep(1)
        answer(door)
        state = door.state()
        assert (state.asked_for_s, state.server_day_s, state.excused, state.hold_s) == (0, 0, False, 0)
        assert await leaving(door) > 1

    moved_clock(main())


@pytest.mark.parametrize("way", ["refusal", "answer"])
def test_the_servers_day_ends_the_run_where_it_is_to_stop_at_one(moved_clock: RunOn, way: str) -> None:
    async def main() -> Exception | None:
        door = await opened(stop_at_day_limit=True)
        door.gate.enter(clock())
        if way == "answer":
            answer(door, ServerLimits(200, 0, 36_000.0))
        else:
            door.on_refusal(RateLimitedError(retry_after_s=36_000.0, day_limit="200 requests"), clock())
        return door.gate.stopped

    stopped = moved_clock(main())
    assert isinstance(stopped, DayLimitReachedError)
    used_up = r"the server's day limit of 200 requests is used up until \d\d:\d\d"
    told = used_up + r" \(10 h(?: 00 min)?\); the same command resumes then"
    assert re.fullmatch(told, str(stopped))


@pytest.mark.parametrize("told_s", [59 * 60.0, 26 * 3600.0, 1e11])
def test_less_than_an_hour_and_more_than_a_day_is_no_days_limit(moved_clock: RunOn, told_s: float) -> None:
    async def main() -> None:
        door = await opened(stop_at_day_limit=True)
        door.gate.enter(clock())
        refuse(door, told_s)
        assert door.gate.stopped is None
        assert door.state().server_day_s == 0

    moved_clock(main())


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
        door = await opened(day=DayMeter(None, used=_count, add=_add, wall=clock))
        if why == "hours":
            door.set_hours(_Closed(None, None))
        if why == "day":
            door.set_day_limit(0)
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
