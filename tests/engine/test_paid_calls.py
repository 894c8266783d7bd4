"""What a call costs the budget by how it ends, and a look for life that is paid for like anything else."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from engine_parts import Rig, answered, request

from pipeline.engine import most_of
from pipeline.engine.health import CHECK_MESSAGES
from pipeline.errors import CallError, CallTimeoutError, RateLimitedError, StoppedError, UnavailableError
from pipeline.limits import Budget, BudgetReachedError
from pipeline.records import Outcome, Request, Response, Status, Usage

RunOn = Callable[[Any], Any]
USED = answered().usage.total
PING_MOST = sum(dataclasses.astuple(most_of(dataclasses.replace(request(0), messages=CHECK_MESSAGES))))


def budget_of(tokens: int = 10_000_000) -> Budget:
    return Budget(usd=None, tokens=tokens, price=None)


async def _silent(_: Request) -> Response:
    await asyncio.Event().wait()
    raise AssertionError("never")


def most_of_a_call() -> int:
    """The tokens that are reserved for one call."""
    most = Rig(_silent, budget=budget_of()).asker._most(request(0))
    assert most is not None
    return most.prompt + most.output


# -- how a call ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "is_kept"),
    [
        *[pytest.param(UnavailableError("x", status=code), False, id=str(code)) for code in (409, 500, 502, 503, 529)],
        pytest.param(RateLimitedError("x"), False, id="429"),
        pytest.param(UnavailableError("x"), False, id="no connection"),
        pytest.param(UnavailableError("x", status=504, billed=True), True, id="504"),
        pytest.param(UnavailableError("x", billed=True), True, id="reset"),
        pytest.param(CallTimeoutError("x", billed=True), True, id="silent connection"),
        pytest.param(None, True, id="no answer in time"),
    ],
)
def test_only_what_was_certainly_not_billed_is_given_back(
    moved_clock: RunOn, error: CallError | None, is_kept: bool
) -> None:
    """A gateway that gave up and a connection that broke leave open whether the model worked; a 503 does not."""
    budget, calls = budget_of(), 0

    async def provider(_: Request) -> Response:
        nonlocal calls
        calls += 1
        if calls == 2:
            return answered()
        if error is None:
            await asyncio.Event().wait()
        raise error or AssertionError

    async def main() -> tuple[Outcome, Rig]:
        rig = Rig(provider, budget=budget, timeout_s=5)
        return await rig.asker.ask(request(0)), rig

    outcome, rig = moved_clock(main())
    assert (outcome.status, outcome.attempts, rig.gate.in_flight) == (Status.LABELLED, 2, 0)
    assert budget.counted == budget.spent
    assert budget.spent.tokens == USED + is_kept * most_of_a_call()


# -- a look for life -------------------------------------------------------------------------------------------------


@dataclass
class Pings:
    """A server that is asked for a sign of life, and how that went."""

    budget: Budget | None = None
    fails_with: BaseException | None = None
    hangs: bool = False
    sent: int = 0
    ended: list[BaseException | None] = field(default_factory=list)

    async def __call__(self, asked: Request) -> Usage:
        assert asked.messages == CHECK_MESSAGES
        self.sent += 1
        if self.budget is not None:
            assert (self.budget.counted.tokens or 0) >= (self.budget.spent.tokens or 0) + PING_MOST, "reserved first"
        try:
            await self._answer()
        except BaseException as error:
            self.ended.append(error)
            raise
        self.ended.append(None)
        return Usage()  # not every server tells it

    async def _answer(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails_with is not None:
            raise self.fails_with


def rig_of(ping: Pings, budget: Budget | None = None, **rules: Any) -> Rig:
    return Rig(_silent, ping=ping, budget=budget, **{"timeout_s": 20, "max_attempts": 1, **rules})


def test_a_ping_is_reserved_and_counted(moved_clock: RunOn) -> None:
    budget = budget_of()
    ping = Pings(budget)

    async def main() -> Outcome:
        return await rig_of(ping, budget).asker.ask(request(0))

    outcome = moved_clock(main())
    assert (outcome.status, ping.ended) == (Status.FAILED, [None])
    assert budget.counted == budget.spent
    assert budget.spent.tokens == outcome.attempts * most_of_a_call() + PING_MOST


def test_with_a_budget_that_is_used_up_no_ping_leaves_and_the_run_stops(moved_clock: RunOn) -> None:
    """It was sent in spite of the cap, and when it was refused the run ended with a traceback."""
    budget, ping = budget_of(2 * most_of_a_call() - 1), Pings()

    async def main() -> Rig:
        rig = rig_of(ping, budget, max_attempts=8)
        with pytest.raises(StoppedError, match=r"limits\.budget_tokens"):
            await rig.asker.ask(request(0))
        return rig

    rig = moved_clock(main())
    assert isinstance(rig.gate.stopped, BudgetReachedError)
    assert (ping.sent, rig.admission.calls, rig.gate.in_flight) == (0, 1, 0)
    assert budget.spent.tokens == most_of_a_call()


def test_a_ping_that_fits_once_a_call_has_ended_does_not_leave_before(moved_clock: RunOn) -> None:
    """All that is left is reserved for a call that is still awaited: nothing is known of the server meanwhile."""
    budget, ping = budget_of(2 * most_of_a_call() + PING_MOST - 1), Pings()

    async def provider(asked: Request) -> Response:
        await asyncio.sleep(1000 if asked.record.ordinal == 0 else 12)
        return answered()

    async def main() -> list[Any]:
        rig = Rig(provider, ping=ping, budget=budget, timeout_s=20, max_attempts=1)
        asking = [asyncio.create_task(rig.asker.ask(request(0)))]
        await asyncio.sleep(10)
        asking.append(asyncio.create_task(rig.asker.ask(request(1))))
        done = await asyncio.gather(*asking)
        assert (rig.gate.in_flight, rig.gate.outages) == (0, [])
        return done

    assert [one.status for one in moved_clock(main())] == [Status.FAILED, Status.LABELLED]
    assert ping.sent == 0
    assert budget.counted == budget.spent


def test_an_error_that_nobody_thought_of_comes_out_of_a_ping(moved_clock: RunOn) -> None:
    """It was kept in the task, and each record that asked took it for a server that is silent."""
    budget = budget_of()

    async def main() -> tuple[list[Any], Rig]:
        rig = rig_of(Pings(fails_with=ValueError("a fault of ours")), budget)
        asking = (rig.asker.ask(request(number)) for number in range(3))
        return await asyncio.gather(*asking), rig

    found, rig = moved_clock(main())
    assert all("a fault of ours" in one.problem.message for one in found)
    assert (rig.gate.in_flight, rig.asker.judge.active) == (0, 0)
    assert budget.counted == budget.spent


def test_closing_cancels_a_ping_that_is_under_way(moved_clock: RunOn) -> None:
    """It outlived the run by ten seconds, and with it the connection that was to be closed."""
    budget, ping = budget_of(), Pings(hangs=True)

    async def main() -> None:
        rig = rig_of(ping, budget)
        asking = asyncio.create_task(rig.asker.ask(request(0)))
        await asyncio.sleep(21)
        assert (ping.sent, ping.ended) == (1, [])
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert ping.ended == [], "who asks shares it with others"
        rig.asker.close()
        rig.asker.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [type(one) for one in ping.ended] == [asyncio.CancelledError]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert budget.counted == budget.spent

    moved_clock(main())


def test_who_waits_for_a_ping_that_is_cancelled_goes_on(moved_clock: RunOn) -> None:
    async def main() -> Outcome:
        rig = rig_of(Pings(hangs=True))
        asyncio.get_running_loop().call_later(21, rig.asker.close)
        async with asyncio.timeout(600):
            return await rig.asker.ask(request(0))

    assert moved_clock(main()).status is Status.FAILED
