"""Places at the gate and in the queues: what is answered is not lost, and nothing runs ahead of the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from engine_parts import FakeTask, Rig, answered, items, record, request

from pipeline.engine import Ending, Job, Pool, PoolSizes
from pipeline.records import CallbackContext, Outcome, Record, Request, Response, ValidCall

RunOn = Callable[[Any], Any]


async def in_10_ms(_: Request) -> Response:
    await asyncio.sleep(0.01)
    return answered()


def test_a_kill_costs_no_more_than_the_concurrency(moved_clock: RunOn) -> None:
    """An answer that waits for a slow disk keeps its place: sent and not yet written are never more than the limit."""
    written: list[Outcome] = []
    sent, most = 0, 0

    async def provider(asked: Request) -> Response:
        nonlocal sent, most
        sent += 1
        most = max(most, sent - len(written))
        return await in_10_ms(asked)

    async def commit(batch: Sequence[Outcome]) -> None:
        await asyncio.sleep(1.0)
        written.extend(batch)

    async def main() -> Ending:
        rig = Rig(provider, concurrency=4)
        jobs = items([Job(request(number)) for number in range(60)])
        ending = await Pool(jobs, rig.asker, commit, sizes=PoolSizes.for_concurrency(4, 30)).run()
        assert rig.gate.unwritten == 0
        return ending

    assert moved_clock(main()) is Ending.COMPLETE
    assert len(written) == 60
    assert most == 4


def test_a_cancel_during_a_followers_callback_keeps_what_was_answered(moved_clock: RunOn) -> None:
    """The answer and its followers were handed on together: a callback that hung took the answer with it."""
    written: list[str] = []

    class HangingTask(FakeTask):
        async def run_callback(self, said: ValidCall, record: Record, call: CallbackContext) -> ValidCall:
            if record.ordinal > 1:
                await asyncio.sleep(3600)
            return said

    async def commit(batch: Sequence[Outcome]) -> None:
        written.extend(outcome.record.key for outcome in batch)

    async def main() -> None:
        rig = Rig(in_10_ms)
        rig.asker._context.task = HangingTask()
        job = Job(request(0), followers=[record(1), record(2), record(3)])
        pool = Pool(items([job]), rig.asker, commit, sizes=PoolSizes(workers=2))
        running = asyncio.ensure_future(pool.run())
        await asyncio.sleep(60)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    moved_clock(main())
    assert written == ["k0", "k1"]


def test_followers_of_a_stopped_job_stay_pending(moved_clock: RunOn) -> None:
    written: list[str] = []

    async def commit(batch: Sequence[Outcome]) -> None:
        written.extend(outcome.record.key for outcome in batch)

    async def main() -> Ending:
        rig = Rig(in_10_ms)
        rig.gate.stop(ValueError("interrupted"))
        job = Job(request(0), followers=[record(1)])
        return await Pool(items([job]), rig.asker, commit, sizes=PoolSizes(workers=2)).run()

    assert moved_clock(main()) is Ending.STOPPED
    assert written == []
