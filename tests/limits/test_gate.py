"""The gate on a moved clock: the first call alone, holds, outages with probes, blame, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StoppedError
from pipeline.limits import Gate
from pipeline.limits.gate import ALONE_S, EVIDENCE, WARM_UP_S

RunOn = Callable[[Any], Any]


def clock() -> float:
    return asyncio.get_running_loop().time()


async def passes(gate: Gate, within_s: float = 0.001) -> bool:
    """Whether a call gets through now; if so it is in flight."""
    try:
        async with asyncio.timeout(within_s):
            await gate.wait()
    except TimeoutError:
        return False
    gate.enter(clock())
    return True


async def passing(gate: Gate) -> int:
    """How many calls leave at once now."""
    count = 0
    while await passes(gate):
        count += 1
    return count


def fail(gate: Gate, key: str, **facts: Any) -> bool:
    plain = {"sent_at": clock(), "answers_before": gate.answers, "failing": 0, "others": 50, "reason": "503"}
    return gate.on_failure(key, **{**plain, **facts}, now=clock())


def answered(gate: Gate, sent_at: float | None = None) -> None:
    gate.leave()
    gate.on_answer(clock(), sent_at)


async def opened(concurrency: int = 8) -> Gate:
    """A gate whose first call was answered."""
    gate = Gate(concurrency)
    assert await passes(gate)
    answered(gate)
    return gate


async def shut(**facts: Any) -> Gate:
    """A gate in an outage that has just begun."""
    gate = await opened(**facts)
    for number in range(EVIDENCE):
        assert not fail(gate, f"k{number}")
    assert gate.outage is not None
    return gate


# -- the first call --------------------------------------------------------------------------------------------------


def test_the_first_call_goes_alone_and_its_answer_opens_the_gate(moved_clock: RunOn) -> None:
    async def main() -> tuple[int, int]:
        gate = Gate(8)
        alone = await passing(gate)
        answered(gate)
        return alone, await passing(gate)

    assert moved_clock(main()) == (1, 8)


def test_a_silent_first_call_does_not_stop_the_others(moved_clock: RunOn) -> None:
    async def main() -> list[int]:
        gate, seen = Gate(64), []
        for _ in range(4):
            await passing(gate)
            seen.append(gate.in_flight)
            await asyncio.sleep(ALONE_S)
        return seen

    assert moved_clock(main()) == [1, 4, 16, 64]


def test_a_first_call_that_warms_a_cache_is_waited_for_once(moved_clock: RunOn) -> None:
    """After the first answers a silence is no warm-up any more."""

    async def main() -> list[int]:
        gate, seen = Gate(64, alone_s=WARM_UP_S), []
        for rest_s in (WARM_UP_S - 0.1, 0.2):
            await passing(gate)
            seen.append(gate.in_flight)
            await asyncio.sleep(rest_s)
        await passing(gate)
        seen.append(gate.in_flight)
        answered(gate)
        gate.shrink()
        for _ in range(2):
            await passing(gate)
            seen.append(gate.in_flight)
            await asyncio.sleep(ALONE_S)
        return seen

    assert moved_clock(main()) == [1, 1, 4, 3, 4]


@given(
    concurrency=st.integers(1, 12),
    steps=st.lists(st.sampled_from(["pass", "answer", "fail", "refuse", "wait"]), max_size=60),
)
def test_never_more_in_flight_than_the_concurrency(concurrency: int, steps: list[str]) -> None:
    """Whatever comes back in whatever order, in an outage too: silent probes must not pile up beyond the limit."""
    gate, now = Gate(concurrency), 0.0
    for number, step in enumerate(steps):
        if step == "pass":
            now += min(gate._delay_s(now), 100.0)
            if gate._delay_s(now) <= 0:
                gate.enter(now)
        elif step == "wait":
            now += 5.0
        elif gate.in_flight:
            gate.leave()
            if step == "answer":
                gate.on_answer(now)
            elif step == "fail":
                gate.on_failure(
                    str(number), sent_at=now, answers_before=gate.answers, failing=0, others=9, reason="x", now=now
                )
            else:
                gate.on_refusal(now)
                gate.shrink()
        assert 0 <= gate.in_flight <= concurrency


# -- holds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told_s", [0.12, 1.0, 3600.0])
def test_a_hold_lasts_exactly_as_told(moved_clock: RunOn, told_s: float) -> None:
    async def main() -> float:
        gate = await opened()
        began = clock()
        gate.set_hold(began + told_s, "429")
        await gate.wait()
        return clock() - began

    assert moved_clock(main()) == pytest.approx(told_s, abs=1e-6)


def test_an_earlier_end_does_not_shorten_a_hold_and_a_later_one_reaches_who_waits(moved_clock: RunOn) -> None:
    async def main() -> float:
        gate = await opened()
        began = clock()
        gate.set_hold(began + 2, "first")
        gate.set_hold(began + 1, "second")
        waiter = asyncio.ensure_future(gate.wait())
        await asyncio.sleep(0.5)
        gate.set_hold(began + 3, "third")
        await waiter
        assert gate.current_hold.reason == "third"
        return clock() - began

    assert moved_clock(main()) == pytest.approx(3.0)


# -- outages ---------------------------------------------------------------------------------------------------------


def test_an_outage_needs_distinct_records_in_a_row(moved_clock: RunOn) -> None:
    async def main() -> Gate:
        gate = await opened()
        for _ in range(3 * EVIDENCE):
            fail(gate, "the same")
        assert gate.outage is None
        for number in range(EVIDENCE - 2):
            fail(gate, f"k{number}")
        gate.on_answer(clock())  # one answer clears all evidence
        for number in range(EVIDENCE - 1):
            fail(gate, f"m{number}")
        assert gate.outage is None
        fail(gate, "one more")
        return gate

    assert moved_clock(main()).outage is not None


@pytest.mark.parametrize(("others", "needed"), [(0, None), (1, 2), (3, 4), (9, EVIDENCE)])
def test_with_few_records_left_fewer_make_an_outage(moved_clock: RunOn, others: int, needed: int | None) -> None:
    async def main() -> int | None:
        gate = await opened()
        for number in range(min(others + 1, 20)):
            fail(gate, f"k{number}", others=others)
            if gate.outage is not None:
                return number + 1
        return None

    assert moved_clock(main()) == needed


def test_one_probe_at_a_time_with_doubled_waits(moved_clock: RunOn) -> None:
    async def main() -> list[float]:
        gate, waits, last = await shut(), [], clock()
        for _ in range(6):
            await gate.wait()
            waits.append(round(clock() - last, 3))
            gate.enter(clock())
            assert not await passes(gate, 0.01)
            gate.leave()
            fail(gate, "probe")
            last = clock()
        assert gate.outage is not None
        assert gate.outage.probes == 6
        return waits

    assert moved_clock(main()) == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_a_silent_probe_does_not_block_the_next(moved_clock: RunOn) -> None:
    async def main() -> list[float]:
        gate, began = await shut(), clock()
        times = []
        for _ in range(3):
            await gate.wait()
            gate.enter(clock())
            times.append(round(clock() - began, 3))
        return times

    assert moved_clock(main()) == [0.5, 4.5, 8.5]


def test_late_failures_of_calls_sent_before_do_not_lengthen_the_wait(moved_clock: RunOn) -> None:
    """64 calls were under way when it began: their timeouts must not push the first probe away."""

    async def main() -> float:
        gate = await shut()
        began = clock()
        for number in range(64):
            fail(gate, f"late{number}", sent_at=began - 1)
        assert gate.outage is not None
        assert gate.outage.probes == 0
        await gate.wait()
        return clock() - began

    assert moved_clock(main()) == pytest.approx(0.5)


@pytest.mark.parametrize("how", ["answer", "429"])
def test_what_left_before_an_outage_does_not_end_it_but_is_followed_by_a_probe(moved_clock: RunOn, how: str) -> None:
    """Answers that were under way ended it, and it began again: one outage of 8 s was told as five."""

    async def main() -> list[float]:
        gate = await shut()
        began, waits, last = clock(), [], clock()
        for number in range(12):
            await gate.wait()
            sent_at, waited_s = clock(), clock() - last
            waits.append(round(waited_s, 3))
            gate.enter(sent_at)
            gate.leave()
            fail(gate, f"probe{number}")
            last = clock()
            await asyncio.sleep(0.1)
            if how == "answer":
                gate.on_answer(clock(), began - 1.0)
            else:
                gate.on_refusal(clock(), began - 1.0)
            assert gate.outage is not None
        assert gate.outages == []
        await gate.wait()
        sent_at = clock()
        gate.enter(sent_at)
        answered(gate, sent_at)
        assert gate.outage is None, "the answer of a probe opens it"
        return waits

    assert moved_clock(main()) == [0.5, *[0.6] * 11], "no storm, and none later than half a second after an answer"


def test_outages_that_follow_each_other_before_the_window_is_open_are_one(moved_clock: RunOn) -> None:
    async def main() -> Gate:
        gate, began = await shut(concurrency=64), clock()
        for bout in range(4):
            await gate.wait()
            gate.enter(clock())
            await asyncio.sleep(0.2)
            answered(gate, clock() - 0.2)
            assert gate.outage is None
            assert (len(gate.outages), gate.is_settling(clock())) == (1, True)
            await asyncio.sleep(0.5)
            if bout < 3:
                for number in range(EVIDENCE):
                    fail(gate, f"again{number}", answers_before=gate.answers)
                assert gate.outage is not None
                assert gate.outage.since == began
        assert gate.outages[0].until == pytest.approx(began + 4 * 0.7 + 3 * 0.5, abs=0.01)
        await asyncio.sleep(20)
        assert not gate.is_settling(clock())
        for number in range(EVIDENCE):
            fail(gate, f"later{number}", answers_before=gate.answers)
        return gate

    gate = moved_clock(main())
    assert (len(gate.outages), gate.outage is not None) == (1, True)


def test_late_failures_of_calls_from_an_outage_that_is_over_begin_none(moved_clock: RunOn) -> None:
    """64 calls were hanging when it began, and all time out after it has ended: nothing is wrong then."""

    async def main() -> None:
        gate, began = await shut(concurrency=64), clock()
        await gate.wait()
        gate.enter(clock())
        answered(gate)
        await asyncio.sleep(30)
        for number in range(59):
            assert not fail(gate, f"late{number}", sent_at=began - 1, answers_before=0)
        assert gate.outage is None

    moved_clock(main())


def test_after_an_outage_the_window_doubles_with_each_round(moved_clock: RunOn) -> None:
    async def main() -> list[int]:
        gate = await shut(concurrency=16)
        await gate.wait()
        gate.enter(clock())
        answered(gate)
        rounds = []
        for _ in range(5):
            rounds.append(await passing(gate))
            for _ in range(rounds[-1]):
                answered(gate)
        assert gate.outage is None
        assert gate.outages[0].until == pytest.approx(gate.outages[0].since + 0.5, abs=0.1)
        return rounds

    assert moved_clock(main()) == [2, 4, 8, 16, 16]


def test_a_refusal_ends_an_outage_but_answers_nothing(moved_clock: RunOn) -> None:
    """A gateway that refuses a record with 400 while the model behind it is down must not put blame on others."""

    async def main() -> None:
        gate = await shut()
        before = gate.answers
        gate.on_refusal(clock())
        assert gate.outage is None
        assert not fail(gate, "k0", answers_before=before)

    moved_clock(main())


# -- whose fault -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "failing", "own"), [(0, 0, False), (1, 0, True), (1, 40, False), (10, 40, True), (3, 3, True)]
)
def test_a_record_is_to_blame_when_enough_others_are_answered(
    moved_clock: RunOn, answers: int, failing: int, own: bool
) -> None:
    """One lucky answer in an outage must not blame the forty that still fail."""

    async def main() -> bool:
        gate = await opened()
        before = gate.answers
        for _ in range(answers):
            gate.on_answer(clock())
        return fail(gate, "k", answers_before=before, failing=failing)

    assert moved_clock(main()) is own


def test_a_records_own_failures_never_make_an_outage(moved_clock: RunOn) -> None:
    async def main() -> Gate:
        gate = await opened()
        for number in range(20):
            fail(gate, f"k{number}", answers_before=gate.answers - 1)
        return gate

    assert moved_clock(main()).outage is None


# -- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["full", "held", "outage"])
def test_stop_reaches_who_waits_at_once_with_the_first_reason(moved_clock: RunOn, state: str) -> None:
    async def main() -> float:
        gate = await (shut() if state == "outage" else opened())
        if state == "full":
            await passing(gate)
        if state == "held":
            gate.set_hold(clock() + 1000, "429")
        waiter = asyncio.ensure_future(gate.wait())
        await asyncio.sleep(0.1)
        began = clock()
        gate.stop(ValueError("no quota"))
        gate.stop(ValueError("later"))
        with pytest.raises(StoppedError, match="no quota"):
            await waiter
        with pytest.raises(StoppedError, match="no quota"):
            await gate.wait()
        return clock() - began

    assert moved_clock(main()) == 0


def test_a_pause_ends_with_a_stop(moved_clock: RunOn) -> None:
    async def main() -> tuple[float, float]:
        gate, began = await opened(), clock()
        await gate.pause(2.0)
        whole = clock() - began
        asyncio.get_running_loop().call_later(0.5, gate.stop, ValueError())
        await gate.pause(100.0)
        return whole, clock() - began - whole

    assert moved_clock(main()) == (pytest.approx(2.0), pytest.approx(0.5))


def test_a_cancelled_wait_leaves_nothing_behind(moved_clock: RunOn) -> None:
    async def main() -> bool:
        gate = await opened(1)
        assert await passes(gate)
        assert not await passes(gate, 0.5)
        gate.leave()
        return await passes(gate)

    assert moved_clock(main())
