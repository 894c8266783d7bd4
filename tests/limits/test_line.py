"""The line of waiters: order, errors and cancels. What is made for nobody is given back."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pipeline.limits.line import Line

RunOn = Callable[[Coroutine[Any, Any, Any]], Any]


class Shop:
    """Makes numbers; `open` lets it make another one. Keeps what it began, let go, and got back."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.began: list[int] = []
        self.let_go: list[int] = []
        self.back: list[int] = []
        self.line: Line[int] = Line(self.back.append)

    async def make(self, number: int) -> int:
        self.began.append(number)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.let_go.append(number)
            raise
        if number < 0:
            raise ValueError(str(number))
        return number

    def wait(self, number: int) -> asyncio.Task[int]:
        return asyncio.ensure_future(self.line.wait(lambda: self.make(number)))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_all_that_can_go_on_are_served_in_a_few_turns(moved_clock: RunOn) -> None:
    async def main() -> None:
        shop = Shop()
        waiting = [shop.wait(number) for number in range(50)]
        await turns(3)
        assert shop.began == [0]  # one at a time
        shop.open.set()
        await turns(7)
        assert [task.result() for task in waiting] == shop.began == list(range(50))

    moved_clock(main())


def test_an_error_is_that_of_its_waiter_only(moved_clock: RunOn) -> None:
    async def main() -> None:
        shop = Shop()
        shop.open.set()
        given = await asyncio.gather(*map(shop.wait, [1, -2, 3]), return_exceptions=True)
        assert [repr(one) for one in given] == ["1", "ValueError('-2')", "3"]

    moved_clock(main())


@pytest.mark.parametrize("cancelled", [[0], [1], [0, 1], [1, 0], [0, 1, 2, 3]], ids=str)
@pytest.mark.parametrize("opens", ["before", "after"])
def test_whoever_is_cancelled_holds_nobody_up(moved_clock: RunOn, cancelled: list[int], opens: str) -> None:
    """`before`: in the same turn. What was being made is let go before the cancel is over."""

    async def main() -> None:
        shop = Shop()
        waiting = [shop.wait(number) for number in range(4)]
        await turns(3)
        if opens == "before":
            shop.open.set()
        for number in cancelled:
            waiting[number].cancel()
        await asyncio.wait([waiting[number] for number in cancelled])
        assert all(waiting[number].cancelled() for number in cancelled)
        assert (opens == "before" or cancelled[0] == 1) or 0 in shop.let_go
        shop.open.set()
        others = [number for number in range(4) if number not in cancelled]
        assert [await waiting[number] for number in others] == others
        assert set(shop.back) <= set(cancelled)
        assert await shop.wait(9) == 9

    moved_clock(main())


def test_what_was_made_for_a_waiter_that_is_cancelled_then_is_given_back(moved_clock: RunOn) -> None:
    async def main() -> None:
        shop = Shop()
        waiting = shop.wait(7)
        await turns(3)
        shop.open.set()
        await turns(1)  # it is made, and its waiter has not run yet
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert shop.back == [7]

    moved_clock(main())
