"""Requests a day kept across restarts, and what a usage costs."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.limits import DayMeter, Price, Tariff, price_of
from pipeline.limits.price import MOST_TIERS
from pipeline.records import Usage

MIDNIGHT = 1_800_000_000 // 86_400 * 86_400.0


class Days:
    """Where the count is kept, and a clock that is moved."""

    def __init__(self, now: float = MIDNIGHT + 3600) -> None:
        self.counts: Counter[str] = Counter()
        self.now = now
        self.broken = False

    async def used(self, day: str) -> int:
        return self.counts[day]

    async def add(self, day: str, count: int) -> None:
        if self.broken:
            raise asyncio.CancelledError
        self.counts[day] += count

    def meter(self, limit: int | None) -> DayMeter:
        return DayMeter(limit, used=self.used, add=self.add, wall=lambda: self.now)

    @property
    def today(self) -> int:
        return sum(self.counts.values())


async def taken(meter: DayMeter, most: int) -> int:
    count = 0
    while count < most and not await meter.take():
        count += 1
    return count


def test_no_more_than_the_limit_and_then_the_seconds_until_midnight() -> None:
    async def main() -> tuple[int, float]:
        meter = Days().meter(250)
        return await taken(meter, 1000), await meter.take()

    assert asyncio.run(main()) == (250, 82_800.0)


def test_the_next_day_begins_anew() -> None:
    async def main() -> tuple[int, int]:
        days = Days(MIDNIGHT - 1)
        meter = days.meter(100)
        first = await taken(meter, 1000)
        days.now = MIDNIGHT
        return first, await taken(meter, 1000)

    assert asyncio.run(main()) == (100, 100)


def test_a_lease_that_is_not_used_is_given_back_once() -> None:
    async def main() -> list[int]:
        days = Days()
        meter, counts = days.meter(10_000), []
        await taken(meter, 30)
        counts.append(days.today)
        for _ in range(2):
            await meter.close()
            counts.append(days.today)
        return counts

    assert asyncio.run(main()) == [100, 30, 30]


def test_a_lease_whose_writing_was_cut_off_is_not_used() -> None:
    """It was in hand before it was written: closing gave back what never had been counted."""

    async def main() -> int:
        days = Days()
        meter = days.meter(1000)
        days.broken = True
        with pytest.raises(asyncio.CancelledError):
            await meter.take()
        days.broken = False
        await meter.close()
        return days.today

    assert asyncio.run(main()) == 0


@given(st.lists(st.tuples(st.integers(0, 90), st.booleans()), max_size=12), st.integers(1, 300))
def test_over_kills_and_restarts_never_too_few_are_counted(sessions: list[tuple[int, bool]], limit: int) -> None:
    async def main() -> None:
        days, sent = Days(), 0
        for calls, killed in sessions:
            meter = days.meter(limit)
            sent += await taken(meter, calls)
            if not killed:
                await meter.close()
            assert sent <= days.today <= limit

    asyncio.run(main())


async def commit(days: Days, meter: DayMeter, *, ok: bool = True) -> None:
    """What the ledger does with its next transaction."""
    taken = meter.take_uncounted()
    if ok:
        days.counts.update(taken)
    meter.on_written(taken, ok=ok)


def test_calls_without_a_limit_count_for_one_that_is_set_later() -> None:
    """A limit was set in the afternoon, live or for the next session: what left in the morning was not counted."""

    async def main() -> list[int]:
        days = Days()
        meter = days.meter(None)
        sent = [await taken(meter, 300)]
        await commit(days, meter)
        assert days.today == 300, "it goes with a write that happens anyhow"
        meter.set_limit(400)
        sent.append(await taken(meter, 1000))
        meter.set_limit(None)
        sent.append(await taken(meter, 30))
        await meter.close()
        meter = days.meter(450)
        return [*sent, await taken(meter, 1000)]

    assert asyncio.run(main()) == [300, 100, 30, 20]


def test_a_commit_that_fails_forgets_no_call() -> None:
    async def main() -> int:
        days = Days()
        meter = days.meter(None)
        await taken(meter, 7)
        await commit(days, meter, ok=False)
        await meter.close()
        return days.today

    assert asyncio.run(main()) == 7


def test_a_limit_that_is_set_while_calls_are_being_committed_counts_them() -> None:
    async def main() -> int:
        days = Days()
        meter = days.meter(None)
        await taken(meter, 60)
        meter.take_uncounted()
        meter.set_limit(100)
        return await taken(meter, 1000)

    assert asyncio.run(main()) == 40


Change = tuple[int, int | None, bool, bool]


@given(st.lists(st.tuples(st.integers(0, 90), st.none() | st.integers(1, 300), st.booleans(), st.booleans())))
def test_whatever_limits_are_set_in_a_day_all_its_calls_count(changes: list[Change]) -> None:
    async def main() -> None:
        days, sent = Days(), 0
        meter = days.meter(None)
        for calls, limit, restarts, commits in changes:
            if restarts:
                await meter.close()
                meter = days.meter(limit)
            else:
                meter.set_limit(limit)
            now = await taken(meter, calls)
            assert limit is None or not now or sent + now <= limit
            sent += now
            if commits:
                await commit(days, meter)
        await meter.close()
        assert days.today == sent

    asyncio.run(main())


def test_the_price_of_a_known_model() -> None:
    price = price_of("gpt-6-luna")
    assert price is not None
    assert (price.input, price.output, price.cached_input) == pytest.approx((0.10, 0.50, 0.01))
    assert price.cost_usd(Usage(prompt=1000, completion=100, cached=400)) == pytest.approx(
        (600 * 0.10 + 400 * 0.01 + 100 * 0.50) / 1e6
    )


def test_writing_to_the_cache_costs_more_from_a_model_on_and_reading_saves() -> None:
    before, after = price_of("gpt-5.5"), price_of("gpt-6-luna")
    assert before is not None
    assert after is not None
    assert before.written == pytest.approx(before.input)
    assert after.written == pytest.approx(1.25 * after.input)
    usage = Usage(prompt=2000, completion=0, cached=1200, cache_write=300)
    assert after.cost_usd(usage) == pytest.approx((500 * 0.10 + 1200 * 0.01 + 300 * 0.125) / 1e6)
    assert after.saved_usd(usage) == pytest.approx(1200 * (0.10 - 0.01) / 1e6)
    assert after.cache_write_usd(usage) == pytest.approx(300 * 0.025 / 1e6)


def test_a_server_that_tells_more_cached_than_prompted_saves_no_more_than_the_prompt() -> None:
    price = Price(2.0, 8.0, 1.0, "config")
    assert price.cost_usd(Usage(100, 0, 500, 0, 500)) == pytest.approx(100 * 1.0 / 1e6)
    assert price.saved_usd(Usage(100, 0, 500)) == pytest.approx(100 * 1.0 / 1e6)
    assert price.written == 2.0


def test_an_unknown_model_has_no_price() -> None:
    assert price_of("nobody-knows-this-model") is None


def test_a_price_of_the_config() -> None:
    assert Price(2.0, 8.0, 1.0, "config").cost_usd(Usage(1_000_000, 500_000, 250_000)) == pytest.approx(5.75)


def test_what_is_left_of_the_day_is_known() -> None:
    """The estimate of the end counts the days that have to pass."""
    counts: dict[str, int] = {}

    async def used(day: str) -> int:
        return counts.get(day, 250)

    async def add(day: str, count: int) -> None:
        counts[day] = counts.get(day, 250) + count

    async def main() -> list[int | None]:
        meter = DayMeter(1000, used=used, add=add, wall=lambda: 1_800_000_000.0)
        seen = [meter.left_today]
        for _ in range(15):
            await meter.take()
        return [*seen, meter.left_today]

    assert asyncio.run(main()) == [None, 735]


def test_the_room_until_a_moment_is_what_calls_and_batches_leave_of_each_day() -> None:
    async def main() -> list[int | None]:
        days = Days()
        meter = days.meter(1000)
        seen = [meter.room()]
        await meter.refresh()
        await taken(meter, 15)
        await meter.take_many(700)
        seen += [meter.room(), meter.room(22.9 * 3600), meter.room(23.1 * 3600)]
        assert await meter.take_many(300) > 0
        days.now += 23 * 3600
        return [*seen, meter.room(), Days().meter(None).room()]

    assert asyncio.run(main()) == [None, 285, 285, 1285, 1000, None]


def test_what_nobody_told_is_unknown_and_not_nothing() -> None:
    tariff = Tariff(Price(1.0, 2.0, 1.0, origin="x"))
    assert tariff.cost_usd(Usage(1_000_000, 0)) == 1.0
    assert tariff.cost_usd(Usage()) is None
    assert Tariff(None).cost_usd(Usage(1, 1)) is None


def test_an_answer_is_priced_by_the_tier_that_the_server_names() -> None:
    def of_tier(tier: str) -> Price | None:
        asked.append(tier)
        return {"flex": Price(0.5, 1.0, 0.5, origin="x"), "secret": None}.get(tier, usual)

    asked: list[str] = []
    usual = Price(1.0, 2.0, 1.0, origin="x")
    used = Usage(1_000_000, 0)
    tariff = Tariff(usual, of_tier)
    assert [tariff.cost_usd(used, tier) for tier in (None, "flex", "default", "flex")] == [1.0, 0.5, 1.0, 0.5]
    assert tariff.cost_usd(used, "secret") is None, "a tier without a price has none"
    assert asked == ["flex", "default", "secret"], "each is looked up once"
    for number in range(100):
        tariff.cost_usd(used, f"made up {number}")
    assert len(asked) == MOST_TIERS, "a server that makes names up does not fill the memory"
    own = Tariff(usual)
    assert own.cost_usd(used, "flex") == 1.0, "a price of the user's own is that of all tiers"


def test_the_price_list_knows_the_tiers_of_a_model() -> None:
    usual, flex = price_of("gpt-5.2"), price_of("gpt-5.2", service_tier="flex")
    assert usual is not None
    assert flex is not None
    assert flex.input == pytest.approx(usual.input / 2)
    assert price_of("gpt-5.2", service_tier="default") == usual
