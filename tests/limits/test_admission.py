"""The one door: order, tokens, refusals, the day, and what a cancel leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import RateLimitedError, StoppedError
from pipeline.limits import Admission, DayMeter, Gate, LocalResource, ResourceState
from pipeline.records import ServerLimits, Usage

RunOn = Callable[[Any], Any]


def clock() -> float:
    return asyncio.get_running_loop().time()


async def opened(
    concurrency: int = 8,
    *,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    **parts: Any,
) -> Admission:
    """A door whose first call was answered."""
    resource = LocalResource(requests_per_minute, tokens_per_minute)
    door = Admission(gate=Gate(concurrency), resource=resource, **parts)
    permit = await door.acquire(1)
    door.on_answer(Usage(1, 1), None)
    permit.close()
    return door


def refuse(door: Admission, retry_after_s: float | None = None, **facts: Any) -> None:
    sent_at = facts.pop("sent_at", clock())
    door.on_refusal(RateLimitedError(retry_after_s=retry_after_s, **facts), sent_at)


def test_first_come_first_served(moved_clock: RunOn) -> None:
    async def main() -> list[int]:
        door, order = await opened(2, requests_per_minute=600), []

        async def go(number: int) -> None:
            permit = await door.acquire(1)
            order.append(number)
            await asyncio.sleep(0.1)
            permit.close()

        await asyncio.gather(*(go(number) for number in range(50)))
        return order

    assert moved_clock(main()) == list(range(50))


@pytest.mark.parametrize("shut", ["concurrency", "rate", "hold"])
def test_a_cancelled_acquire_leaks_no_permit_and_no_lock(moved_clock: RunOn, shut: str) -> None:
    async def main() -> None:
        door = await opened(1, requests_per_minute=6 if shut == "rate" else None)
        held = await door.acquire(1) if shut == "concurrency" else None
        if shut == "hold":
            door.gate.set_hold(clock() + 5, "429")
        waiting = [asyncio.ensure_future(door.acquire(1)) for _ in range(5)]
        await asyncio.sleep(0.1)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert door.gate.in_flight == (1 if held else 0)
        if held:
            held.close()
        async with asyncio.timeout(30):
            (await door.acquire(1)).close()
        assert door.gate.in_flight == 0
        assert door.calls == (3 if held else 2)

    moved_clock(main())


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_the_token_estimate_follows_the_usage(moved_clock: RunOn, factor: float) -> None:
    """With hundreds in flight the correction comes late: it must settle, not swing."""

    async def main() -> list[int]:
        door, sizes = await opened(200, tokens_per_minute=60_000_000), []

        async def go() -> None:
            permit = await door.acquire(1000)
            sizes.append(permit._size)
            await asyncio.sleep(0.5)
            permit.settle(Usage(round(1000 * factor), 0))
            permit.close()

        await asyncio.gather(*(go() for _ in range(3000)))
        return sizes

    sizes = moved_clock(main())
    low, high = sorted([1000 * factor, 1000])
    assert all(0.95 * low <= size <= 1.05 * high for size in sizes)
    assert sizes[-1] == pytest.approx(1000 * factor, rel=0.05)


def test_the_token_limit_holds_over_a_minute_although_estimates_are_wrong(moved_clock: RunOn) -> None:
    async def main() -> int:
        door, used = await opened(64, tokens_per_minute=600_000), 0
        end = clock() + 120

        async def work() -> None:
            nonlocal used
            while clock() < end:
                permit = await door.acquire(500)
                await asyncio.sleep(0.2)
                used += 1000
                permit.settle(Usage(900, 100))
                permit.close()

        await asyncio.gather(*(work() for _ in range(32)))
        return used

    assert 0.95 * 1_200_000 < moved_clock(main()) < 1.03 * 1_200_000


def test_a_call_without_usage_corrects_nothing(moved_clock: RunOn) -> None:
    async def main() -> int:
        door = await opened(tokens_per_minute=60_000)
        for _ in range(50):
            permit = await door.acquire(10)
            permit.settle(Usage())
            permit.close()
        return (await door.acquire(1000))._size

    assert moved_clock(main()) == 1000


def test_a_refusal_is_waited_out_exactly_as_told(moved_clock: RunOn) -> None:
    async def main() -> list[float]:
        door, waited = await opened(), []
        for told_s in (0.12, 7.0):
            began = clock()
            refuse(door, told_s)
            (await door.acquire(1)).close()
            waited.append(clock() - began)
        return waited

    assert moved_clock(main()) == pytest.approx([0.12, 7.0], abs=1e-3)


def test_refusals_without_a_word_wait_longer_each_time_up_to_a_cap(moved_clock: RunOn) -> None:
    async def main() -> list[float]:
        door, waited = await opened(), []
        for _ in range(7):
            permit = await door.acquire(1)
            began = clock()
            await asyncio.sleep(0.001)
            refuse(door, sent_at=permit.sent_at)
            permit.close()
            (await door.acquire(1)).close()
            waited.append(round(clock() - began, 1))
            await asyncio.sleep(0.001)
        return waited

    assert moved_clock(main()) == [0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0]


def test_where_more_is_refused_than_answered_half_as_many_are_under_way(moved_clock: RunOn) -> None:
    async def main() -> int:
        door = await opened(64)
        refuse(door, 0.01)  # as many as were answered
        permits = [await door.acquire(1) for _ in range(16)]
        for permit in permits[:12]:
            refuse(door, 0.1, sent_at=permit.sent_at)
            permit.close()
        with contextlib.suppress(TimeoutError):
            while True:
                await asyncio.wait_for(door.acquire(1), 0.5)
        return door.gate.in_flight

    assert moved_clock(main()) == 8


def test_many_refusals_of_calls_under_way_are_one(moved_clock: RunOn) -> None:
    """A hundred calls were in flight when the limit was met: their refusals say the same thing once."""

    async def main() -> float:
        door, began = await opened(200), clock()
        for _ in range(100):
            refuse(door, sent_at=began - 0.01)
        await asyncio.sleep(0.3)
        refuse(door, sent_at=began)  # the last of them, after the wait
        before = clock()
        (await door.acquire(1)).close()
        return clock() - before

    assert moved_clock(main()) == 0


def test_an_answer_makes_the_next_wait_short_again(moved_clock: RunOn) -> None:
    async def main() -> float:
        door = await opened()
        for _ in range(5):
            refuse(door, sent_at=clock() + 1)
            await asyncio.sleep(10)
        door.on_answer(Usage(1, 1), None)
        began = clock()
        refuse(door, sent_at=clock() + 1)
        (await door.acquire(1)).close()
        return clock() - began

    assert moved_clock(main()) == pytest.approx(0.2)


@pytest.mark.parametrize("scope", ["requests", "tokens"])
def test_a_refusal_for_tokens_slows_tokens_only(moved_clock: RunOn, scope: str) -> None:
    async def main() -> ResourceState:
        door = await opened(requests_per_minute=6000, tokens_per_minute=600_000)
        for number in range(300):
            await asyncio.sleep(0.01)
            (await door.acquire(100)).close()
            if number % 2:
                refuse(door, 0.001, scope=scope)
            else:
                door.on_answer(Usage(90, 10), None)
        return door.resource.state(clock())

    known = moved_clock(main())
    assert (known.requests.learned is not None) is (scope == "requests")
    assert (known.tokens.learned is not None) is (scope == "tokens")


def test_the_servers_own_numbers_are_taken_over(moved_clock: RunOn) -> None:
    async def main() -> tuple[Any, float]:
        door = await opened(requests_per_minute=6000)
        door.on_answer(Usage(1, 1), ServerLimits(3000, 10, 0.02, 90_000, 5, 0.1))
        state, began = door.state(), clock()
        door.on_answer(Usage(1, 1), ServerLimits(3000, 0, 2.5, 90_000, 5, 0.1))
        (await door.acquire(1)).close()
        return state, clock() - began

    state, waited_s = moved_clock(main())
    assert (state.requests_per_minute, state.tokens_per_minute) == (3000, 90_000)
    # The reset is when all of the limit is there again; the next call may go long before that.
    assert 0.05 < waited_s < 0.25


class _Days:
    """A day's count in memory, under the loop's clock."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def meter(self, limit: int) -> DayMeter:
        start = 86_400.0 * 20_000 - 30 - clock()
        return DayMeter(limit, used=self._used, add=self._add, wall=lambda: start + clock())

    async def _used(self, day: str) -> int:
        return self.counts[day]

    async def _add(self, day: str, count: int) -> None:
        self.counts[day] += count


def test_the_days_limit_is_waited_out_until_midnight(moved_clock: RunOn) -> None:
    async def main() -> tuple[float, str]:
        door, began = await opened(day=_Days().meter(3)), clock()
        for _ in range(2):
            (await door.acquire(1)).close()
        waiting = asyncio.ensure_future(door.acquire(1))
        await asyncio.sleep(1)
        told = door.state().hold_reason
        (await waiting).close()
        return clock() - began, told

    waited_s, told = moved_clock(main())
    assert waited_s == pytest.approx(30, abs=0.1)
    assert "3 requests a day" in told


def test_or_the_run_stops_there(moved_clock: RunOn) -> None:
    async def main() -> None:
        door = await opened(day=_Days().meter(1), stop_at_day_limit=True)
        with pytest.raises(StoppedError, match="1 requests a day are used up"):
            await door.acquire(1)

    moved_clock(main())


@pytest.mark.parametrize("new", [6000, None])
@pytest.mark.parametrize("limit", ["requests", "tokens"])
def test_a_limit_that_is_raised_reaches_who_waits_for_a_meter(moved_clock: RunOn, limit: str, new: int | None) -> None:
    """At three calls a minute the waiter slept for 20 s, whatever the config said meanwhile."""

    async def main() -> float:
        door = await opened(**{f"{limit}_per_minute": 3})
        waiting = [asyncio.ensure_future(door.acquire(1)) for _ in range(4)]
        await asyncio.sleep(1)
        began = clock()
        door.resource.configure(*((new, None) if limit == "requests" else (None, new)))
        await asyncio.gather(*waiting)
        return clock() - began

    assert moved_clock(main()) < 0.1


def test_what_the_server_says_reaches_who_waits_for_a_meter(moved_clock: RunOn) -> None:
    async def main() -> float:
        door = await opened()
        for limit in (1, 3000):
            door.on_answer(Usage(1, 1), ServerLimits(limit))
            (await door.acquire(1)).close()
            waiting = asyncio.ensure_future(door.acquire(1))
            await asyncio.sleep(1)
            began = clock()
        await waiting
        return clock() - began

    assert moved_clock(main()) < 0.1


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute"])
def test_a_stop_reaches_who_waits_for_a_meter(moved_clock: RunOn, limit: str) -> None:
    """At one request a minute the waiter slept for a minute, past every grace."""

    async def main() -> float:
        door = await opened(**{limit: 1.0})
        waiting = [asyncio.ensure_future(door.acquire(50)) for _ in range(10)]
        await asyncio.sleep(0.1)
        began = clock()
        door.gate.stop(ValueError("interrupted"))
        door.on_answer(Usage(1, 1), ServerLimits(3000))  # an answer that was under way
        assert {type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)} == {StoppedError}
        return clock() - began

    assert moved_clock(main()) < 0.1


def test_what_the_day_did_not_use_is_given_back(moved_clock: RunOn) -> None:
    async def main() -> int:
        days = _Days()
        door = await opened(day=days.meter(10_000))
        for _ in range(2):
            await door.close()
        return days.counts.total()

    assert moved_clock(main()) == 1
