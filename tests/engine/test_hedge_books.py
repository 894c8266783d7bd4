"""Two calls about one record: whose answer is kept, what is counted, and that no place and no money is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from engine_parts import Rig, answered, request

from pipeline.engine.hedge import HEDGE_KNOWN, Hedge
from pipeline.errors import CallError, UnavailableError
from pipeline.limits import Budget, Permit
from pipeline.records import Outcome, Request, Response, Status, Usage

RunOn = Callable[[Any], Any]
USUAL_S = 0.01
KNOWN_USAGE = HEDGE_KNOWN * answered().usage.total
FIRST, SECOND = Usage(30, 5), Usage(40, 7)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one call goes: when it ends, from the first call of its record on, and what comes then."""

    ends_at_s: float
    comes: Response | CallError


def planned(*plans: Plan) -> Callable[[Request], Any]:
    """The known records are answered as usual; the calls of the one after them go by the plans."""
    left: Iterator[Plan] = iter(plans)
    began: list[float] = []

    async def provider(asked: Request) -> Response:
        now = asyncio.get_running_loop().time()
        if asked.record.ordinal < HEDGE_KNOWN:
            await asyncio.sleep(USUAL_S)
            return answered()
        began.append(now)
        plan = next(left)
        await asyncio.sleep(began[0] + plan.ends_at_s - now)
        if isinstance(plan.comes, CallError):
            raise plan.comes
        return plan.comes

    return provider


def answer(label: str, usage: Usage) -> Response:
    return replace(answered(label), usage=usage, request_id=f"id of {label}", latency_s=0.02)


async def at_the_tail(*plans: Plan) -> tuple[Rig, Budget]:
    """A rig with a budget that knows how long calls take, and is at the end of its input."""
    budget = Budget(usd=None, tokens=10_000_000, price=None)
    rig = Rig(planned(*plans), hedge_after_p=95, budget=budget, timeout_s=10)
    for number in range(HEDGE_KNOWN):
        await rig.asker.ask(request(number))
    rig.asker.judge.tail.set()
    return rig, budget


def last_asked(run_on: RunOn, *plans: Plan) -> tuple[Outcome, Rig, int, int]:
    """The outcome of the record with two calls; the tokens that were spent on it, and those that perhaps were."""

    async def main() -> tuple[Outcome, Rig, int, int]:
        rig, budget = await at_the_tail(*plans)
        outcome = await rig.asker.ask(request(HEDGE_KNOWN))
        assert rig.gate.in_flight == 0
        assert budget.counted == budget.spent, "nothing is reserved any more"
        most = rig.asker._most(request(HEDGE_KNOWN))
        assert most is not None
        spent = (budget.spent.tokens or 0) - KNOWN_USAGE
        perhaps = spent - outcome.usage.total
        assert perhaps % (most.prompt + most.output) == 0
        return outcome, rig, outcome.usage.total, perhaps // (most.prompt + most.output)

    found: tuple[Outcome, Rig, int, int] = run_on(main())
    return found


def test_the_winners_answer_id_and_usage_are_kept_and_the_lost_call_may_be_billed(moved_clock: RunOn) -> None:
    slow, quick = Plan(5.0, answer("slow", FIRST)), Plan(0.1, answer("quick", SECOND))
    outcome, rig, spent, perhaps = last_asked(moved_clock, slow, quick)
    assert (outcome.label, outcome.request_id, outcome.latency_s) == ({"label": "quick"}, "id of quick", 0.02)
    assert (outcome.usage, outcome.attempts, spent) == (SECOND, 2, SECOND.total)
    assert rig.stats.usage.total == KNOWN_USAGE + SECOND.total
    assert perhaps == 1, "the call that was broken off"


def test_the_first_call_may_win_too(moved_clock: RunOn) -> None:
    slow, slower = Plan(1.0, answer("first", FIRST)), Plan(5.0, answer("second", SECOND))
    outcome, _, spent, perhaps = last_asked(moved_clock, slow, slower)
    assert (outcome.label, outcome.request_id) == ({"label": "first"}, "id of first")
    assert (outcome.usage, outcome.attempts, spent, perhaps) == (FIRST, 2, FIRST.total, 1)


def test_where_both_answer_at_once_the_losers_usage_is_counted(moved_clock: RunOn) -> None:
    first, second = Plan(2.0, answer("first", FIRST)), Plan(2.0, answer("second", SECOND))
    outcome, rig, spent, perhaps = last_asked(moved_clock, first, second)
    assert (outcome.label, outcome.request_id) == ({"label": "first"}, "id of first")
    assert outcome.usage == FIRST + SECOND
    assert (spent, perhaps) == (FIRST.total + SECOND.total, 0)
    assert rig.stats.usage.total == KNOWN_USAGE + spent


BUSY = UnavailableError("503", status=503)
LATE = UnavailableError("504", status=504, billed=True)


@pytest.mark.parametrize(
    ("first", "second", "label", "lost"),
    [
        pytest.param(Plan(1.0, answer("first", FIRST)), Plan(0.1, BUSY), "first", 0, id="the second is refused"),
        pytest.param(Plan(0.5, BUSY), Plan(1.0, answer("second", SECOND)), "second", 0, id="the first is refused"),
        pytest.param(Plan(0.5, LATE), Plan(1.0, answer("second", SECOND)), "second", 1, id="a gateway gave up"),
        pytest.param(Plan(2.0, BUSY), Plan(2.0, answer("second", SECOND)), "second", 0, id="both at once"),
    ],
)
def test_of_two_calls_a_refusal_releases_its_own_money(
    moved_clock: RunOn, first: Plan, second: Plan, label: str, lost: int
) -> None:
    """What was reserved for the refused one was taken for perhaps billed, since only the other's end was seen."""
    outcome, _, _, perhaps = last_asked(moved_clock, first, second)
    assert (outcome.status, outcome.label, outcome.attempts) == (Status.LABELLED, {"label": label}, 2)
    assert perhaps == lost


def test_two_refusals_release_both_and_the_record_is_asked_again(moved_clock: RunOn) -> None:
    plans = Plan(0.5, BUSY), Plan(1.0, BUSY), Plan(0.0, answer("third", FIRST))
    outcome, _, spent, perhaps = last_asked(moved_clock, *plans)
    assert (outcome.label, outcome.attempts) == ({"label": "third"}, 3)
    assert (spent, perhaps) == (FIRST.total, 0)


@pytest.mark.parametrize("after_s", [0.001, USUAL_S, 0.0105, 0.02, 0.5])
def test_a_cancel_at_any_moment_leaves_no_place_and_nothing_reserved(moved_clock: RunOn, after_s: float) -> None:
    async def main() -> None:
        rig, budget = await at_the_tail(Plan(5.0, answered()), Plan(5.0, answered()))
        asking = asyncio.create_task(rig.asker.ask(request(HEDGE_KNOWN)))
        asyncio.get_running_loop().call_later(after_s, asking.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert rig.gate.in_flight == 0
        assert budget.counted == budget.spent

    moved_clock(main())


@pytest.mark.parametrize("turns", range(8))
def test_nor_does_a_cancel_that_comes_with_the_second_permit(moved_clock: RunOn, turns: int) -> None:
    """The permit was there, and its record had no turn yet to take it: nobody gave it back."""

    async def main() -> None:
        rig, budget = await at_the_tail()
        loop = asyncio.get_running_loop()

        async def permit() -> Permit:
            return await rig.asker._permit(history)

        async def wanted() -> Permit:
            _in_turns(loop, turns, asking.cancel)
            return await permit()

        async def call(_: Permit) -> Response:
            await asyncio.sleep(5.0)
            return answered()

        history: Any = _Asked(request(HEDGE_KNOWN))
        hedge, first = Hedge(rig.stats, rig.asker.judge.tail), await permit()
        asking = asyncio.create_task(hedge.answer(95, first, call, wanted))
        with pytest.raises(asyncio.CancelledError):
            await asking
        first.close()
        assert rig.gate.in_flight == 0
        assert budget.counted == budget.spent

    moved_clock(main())


@dataclass(frozen=True, slots=True)
class _Asked:
    request: Request
    failing: bool = False


def _in_turns(loop: asyncio.AbstractEventLoop, turns: int, act: Callable[[], Any]) -> None:
    """Do it so many turns of the loop from now."""
    if turns:
        loop.call_soon(_in_turns, loop, turns - 1, act)
    else:
        act()
