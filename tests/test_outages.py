"""When a run that gets no answers ends: an outage, or refusals alone; its own pauses and hours do not count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import LabelpipeError, RateLimitedError
from pipeline.limits import Admission, Gate
from pipeline.records import Usage
from pipeline.runner.supervisor import OutageLimitError, OutageWatch

RunOn = Callable[[Any], Any]
LIMIT_S = 3600.0


class Desk:
    """A door whose calls are refused, and the watch that looks at it each second."""

    def __init__(self) -> None:
        self.door = Admission(gate=Gate(8))
        self.stopped: list[LabelpipeError] = []
        self.watch = OutageWatch(self.door, self._stop)
        self.watch.limit_s = LIMIT_S
        self.began = self.now

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def _stop(self, reason: LabelpipeError) -> None:
        self.stopped.append(reason)
        self.stopped_at = self.now
        self.door.gate.stop(reason)

    async def pass_time(
        self, seconds: float, *, every_s: float = 60.0, refused: bool = True, look_s: float = 1.0
    ) -> None:
        """Let time pass; each so often a call is refused, and each so often the watch looks."""
        ends, next_at = self.now + seconds, self.now
        while self.now < ends and not self.stopped:
            if refused and self.now >= next_at:
                self.door.on_refusal(RateLimitedError(retry_after_s=every_s), self.now)
                next_at = self.now + every_s
            self.watch.check()
            await asyncio.sleep(look_s)


def test_refusals_without_an_answer_end_the_run(moved_clock: RunOn) -> None:
    async def main() -> Desk:
        desk = Desk()
        await desk.pass_time(2 * LIMIT_S)
        assert desk.now - desk.began == pytest.approx(LIMIT_S, abs=3)
        return desk

    (reason,) = moved_clock(main()).stopped
    assert isinstance(reason, OutageLimitError)
    assert reason.code == "outage"
    assert "429" in str(reason)


def test_an_answer_begins_it_anew(moved_clock: RunOn) -> None:
    async def main() -> Desk:
        desk = Desk()
        for _ in range(5):
            await desk.pass_time(LIMIT_S - 10)
            desk.door.on_answer(Usage(1, 1), None)
        return desk

    assert not moved_clock(main()).stopped


def test_nights_without_a_call_are_none_of_it(moved_clock: RunOn) -> None:
    """Hours of nothing before the first refusal, and a pause between two: only what was refused counts."""

    async def main() -> Desk:
        desk = Desk()
        desk.door.on_answer(Usage(1, 1), None)
        await desk.pass_time(3 * LIMIT_S, refused=False)
        await desk.pass_time(LIMIT_S / 2)
        desk.door.gate.set_paused(True)
        await desk.pass_time(3 * LIMIT_S, refused=False)
        desk.watch.check()
        await asyncio.sleep(10 * LIMIT_S)  # the machine was busy, or slept
        desk.door.gate.set_paused(False)
        await desk.pass_time(LIMIT_S / 2 - 10)
        assert not desk.stopped
        await desk.pass_time(20)
        return desk

    assert moved_clock(main()).stopped


def test_an_outage_ends_it_by_its_own_beginning(moved_clock: RunOn) -> None:
    async def main() -> Desk:
        desk = Desk()
        for number in range(5):
            desk.door.gate.on_failure(
                str(number), sent_at=desk.now, answers_before=0, failing=0, others=9, reason="503", now=desk.now
            )
        await desk.pass_time(2 * LIMIT_S, refused=False)
        assert desk.now - desk.began == pytest.approx(LIMIT_S, abs=3)
        return desk

    (reason,) = moved_clock(main()).stopped
    assert "503" in str(reason)


def test_hours_that_the_server_asks_for_are_no_outage(moved_clock: RunOn) -> None:
    """It named the moment, and is asked each quarter of an hour; from that moment on it is an outage like any."""

    async def main() -> Desk:
        desk = Desk()
        ends_at = desk.now + 10 * 3600.0
        while desk.now < ends_at:
            desk.door.on_refusal(RateLimitedError(retry_after_s=ends_at - desk.now), desk.now)
            await desk.pass_time(900.0, refused=False, look_s=10.0)
        assert not desk.stopped
        await desk.pass_time(2 * LIMIT_S)
        assert desk.now - ends_at == pytest.approx(LIMIT_S, abs=60)
        return desk

    assert moved_clock(main()).stopped


@pytest.mark.parametrize("told_s", [10 * 3600.0, 5 * 86_400.0, 1e11])
def test_a_server_that_always_asks_for_hours_is_excused_for_25_hours_at_most(moved_clock: RunOn, told_s: float) -> None:
    async def main() -> Desk:
        desk = Desk()
        for _ in range(200):
            desk.door.on_refusal(RateLimitedError(retry_after_s=told_s), desk.now)
            await desk.pass_time(900.0, refused=False, look_s=10.0)
        return desk

    desk = moved_clock(main())
    assert desk.stopped
    assert desk.stopped_at - desk.began == pytest.approx(25 * 3600.0 + LIMIT_S, abs=60)
