"""The meters on a moved clock: the whole rate is used, never more than it, and smoothly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.limits.meters import CATCH_UP_S, HEADROOM, Meter

RunOn = Callable[[Any], Any]


async def _stamps(meter: Meter, seconds: float, units: float = 1.0) -> list[float]:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    stamps = []
    while loop.time() < end:
        await meter.acquire(units)
        stamps.append(loop.time())
    return stamps


@pytest.mark.parametrize(("per_minute", "seconds"), [(6, 180), (500, 75), (6000, 75), (60_000, 65)])
def test_uses_the_rate_and_never_passes_it(moved_clock: RunOn, per_minute: int, seconds: float) -> None:
    """Slices of seconds, of many looks, of few, and with several calls in each."""
    stamps = moved_clock(_stamps(Meter(per_minute), seconds))

    used = len(stamps) / (per_minute * seconds / 60)
    assert used > 0.98 * HEADROOM - 2 / len(stamps)
    assert _most_in(stamps, 60.0) <= per_minute


def _most_in(stamps: list[float], span_s: float) -> int:
    """The most stamps in any window of that length."""
    most = left = 0
    for right, stamp in enumerate(stamps):
        while stamps[left] <= stamp - span_s:
            left += 1
        most = max(most, right - left + 1)
    return most


def test_leaves_smoothly_not_in_bursts(moved_clock: RunOn) -> None:
    stamps = moved_clock(_stamps(Meter(6000), 30))

    # 100 a second: no second may hold much more than its share, for servers that enforce short spans.
    assert _most_in(stamps, 1.0) <= 110


def test_a_pause_is_not_followed_by_a_burst(moved_clock: RunOn) -> None:
    async def main() -> list[float]:
        meter = Meter(6000)
        await _stamps(meter, 5)
        await asyncio.sleep(120)
        return await _stamps(meter, 5)

    stamps = moved_clock(main())
    assert _most_in(stamps, 1.0) <= 100 * (1 + CATCH_UP_S) + 10


def test_a_busy_loop_is_caught_up(moved_clock: RunOn) -> None:
    """The loop was late by 30 ms in every slice: the long-run rate holds all the same."""

    async def main() -> int:
        meter, loop = Meter(6000), asyncio.get_running_loop()
        end, count = loop.time() + 60, 0
        while loop.time() < end:
            for _ in range(5):
                await meter.acquire()
                count += 1
            await asyncio.sleep(0.03)
        return count

    assert moved_clock(main()) > 0.97 * 6000


def test_tokens_are_paid_by_weight(moved_clock: RunOn) -> None:
    stamps = moved_clock(_stamps(Meter(200_000), 60, units=500))

    assert 0.96 * 200_000 < len(stamps) * 500 <= 200_000


def test_a_request_larger_than_a_slice_waits_its_time(moved_clock: RunOn) -> None:
    async def main() -> float:
        meter, loop = Meter(60_000), asyncio.get_running_loop()
        await meter.acquire(1)
        before = loop.time()
        await meter.acquire(10_000)
        return loop.time() - before

    assert 9.5 < moved_clock(main()) < 10.5


def test_refunds_let_more_through(moved_clock: RunOn) -> None:
    async def main() -> int:
        meter, loop = Meter(60_000), asyncio.get_running_loop()
        end, count = loop.time() + 60, 0
        while loop.time() < end:
            await meter.acquire(1000)
            meter.refund(500)  # half of the estimate was too much
            count += 1
        return count

    assert 115 < moved_clock(main()) <= 121


def test_a_cancelled_wait_gives_its_units_back(moved_clock: RunOn) -> None:
    async def main() -> float:
        meter, loop = Meter(60_000), asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await meter.acquire(50_000)
        before = loop.time()
        await meter.acquire(100)
        return loop.time() - before

    assert moved_clock(main()) < 0.5


def test_the_limit_may_change_live(moved_clock: RunOn) -> None:
    async def main() -> tuple[int, int, int]:
        meter = Meter(6000)
        fast = len(await _stamps(meter, 10))
        meter.set_limit(600)
        slow = len(await _stamps(meter, 10))
        meter.set_limit(None)
        await meter.acquire()
        return fast, slow, 0

    fast, slow, _ = moved_clock(main())
    assert 950 < fast <= 1010
    assert 95 < slow <= 106


def test_no_limit_never_waits(moved_clock: RunOn) -> None:
    async def main() -> float:
        meter, loop = Meter(None), asyncio.get_running_loop()
        before = loop.time()
        for _ in range(10_000):
            await meter.acquire()
        return loop.time() - before

    assert moved_clock(main()) == 0


def test_a_pause_that_is_known_is_not_caught_up(moved_clock: RunOn) -> None:
    """The gate was shut for a fifth of a second: twenty calls are not owed for it."""

    async def main(known_s: float) -> float:
        loop, meter = asyncio.get_running_loop(), Meter(6000)
        await meter.acquire()
        await asyncio.sleep(0.2)
        meter.skip(known_s)
        began = loop.time()
        for _ in range(20):
            await meter.acquire()
        return loop.time() - began

    assert moved_clock(main(0.0)) < 0.1
    assert moved_clock(main(0.2)) > 0.17
