"""The pool's five endings: to the end, soft stop, a worker's crash, the writer's crash, hard cancel."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from engine_parts import Rig, answered, items, record, request

from pipeline.engine import Ending, Job, Pool, PoolSizes
from pipeline.errors import InterruptedRunError, StoreError
from pipeline.records import Outcome, Problem, Request, Response, Status

RunOn = Callable[[Any], Any]


class Books:
    """A commit that remembers, and can break or be slow."""

    def __init__(self, *, break_at: int | None = None, slow_s: float = 0.0) -> None:
        self.outcomes: list[Outcome] = []
        self._break_at, self._slow_s = break_at, slow_s

    async def commit(self, batch: Sequence[Outcome]) -> None:
        if self._slow_s:
            await asyncio.sleep(self._slow_s)
        if self._break_at is not None and len(self.outcomes) + len(batch) >= self._break_at:
            raise StoreError("ledger.db: the disk is full")
        self.outcomes += batch

    @property
    def keys(self) -> list[str]:
        return [outcome.record.key for outcome in self.outcomes]


def pool_of(rig: Rig, books: Books, found: Sequence[Any], *, workers: int = 4, grace_s: float = 30.0) -> Pool:
    return Pool(items(found), rig.asker, books.commit, sizes=PoolSizes(workers=workers, grace_s=grace_s))


async def in_50_ms(_: Request) -> Response:
    await asyncio.sleep(0.05)
    return answered()


def test_to_the_end(moved_clock: RunOn) -> None:
    books = Books()

    async def main() -> Ending:
        bad = Outcome(record(99), Status.REJECTED, problem=Problem("unreadable", "line 100"))
        jobs = [Job(request(number)) for number in range(50)]
        return await pool_of(Rig(in_50_ms), books, [*jobs, bad]).run()

    assert moved_clock(main()) is Ending.COMPLETE
    assert sorted(books.keys) == sorted([f"k{number}" for number in range(50)] + ["k99"])


def test_soft_stop_drains_what_is_in_flight(moved_clock: RunOn) -> None:
    """What was sent is answered and written; nothing new is sent; the rest stays pending."""
    books, sent = Books(), []

    async def provider(asked: Request) -> Response:
        sent.append(asked.record.key)
        await asyncio.sleep(1.0)
        return answered()

    async def main() -> Ending:
        rig = Rig(provider, concurrency=4)
        pool = pool_of(rig, books, [Job(request(number)) for number in range(100)])
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(2.5)
        in_flight_then = list(sent)
        rig.gate.stop(InterruptedRunError())
        pool.stop()
        ending = await running
        assert sent == in_flight_then
        return ending

    assert moved_clock(main()) is Ending.STOPPED
    assert sorted(books.keys) == sorted(sent)
    assert len(sent) < 100


def test_soft_stop_waits_no_longer_than_the_grace(moved_clock: RunOn) -> None:
    async def hangs(asked: Request) -> Response:
        if asked.record.ordinal == 0:
            return answered()
        await asyncio.sleep(10_000)
        return answered()

    async def main() -> tuple[Ending, float]:
        rig, books = Rig(hangs, timeout_s=20_000), Books()
        pool = pool_of(rig, books, [Job(request(number)) for number in range(20)], grace_s=5)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(10)
        before = asyncio.get_running_loop().time()
        rig.gate.stop(InterruptedRunError())
        pool.stop()
        ending = await running
        assert books.keys == ["k0"]
        return ending, asyncio.get_running_loop().time() - before

    ending, waited_s = moved_clock(main())
    assert ending is Ending.STOPPED
    assert 5 <= waited_s < 6


def test_a_workers_crash_comes_out_after_what_was_answered_is_written(moved_clock: RunOn) -> None:
    """What no record has caused ends the run with that error; answers that were there are in the ledger."""
    books = Books(slow_s=0.2)

    async def provider(asked: Request) -> Response:
        await asyncio.sleep(0.01 * asked.record.ordinal)
        if asked.record.ordinal == 12:
            raise OSError(errno.EMFILE, "too many open files")
        return answered()

    async def main() -> None:
        await pool_of(Rig(provider), books, [Job(request(number)) for number in range(50)]).run()

    with pytest.raises(OSError, match="too many open files"):
        moved_clock(main())
    assert set(books.keys) >= {f"k{number}" for number in range(9)}
    assert len(books.keys) == len(set(books.keys)) < 50


def test_a_guards_crash_is_the_runs_error(moved_clock: RunOn) -> None:
    """It enforces stop_at and the outage limit: without it a run would go on for ever. What was answered is written."""
    books = Books(slow_s=0.2)

    async def guard() -> None:
        await asyncio.sleep(1.0)
        raise ZeroDivisionError("a bug")

    async def main() -> None:
        jobs = items([Job(request(number)) for number in range(500)])
        await Pool(jobs, Rig(in_50_ms).asker, books.commit, sizes=PoolSizes(workers=4), guard=guard).run()

    with pytest.raises(ZeroDivisionError, match="a bug"):
        moved_clock(main())
    assert 0 < len(books.keys) == len(set(books.keys)) < 500


def test_a_guard_ends_with_what_it_guards(moved_clock: RunOn) -> None:
    async def guard() -> None:
        await asyncio.sleep(1e9)

    async def main() -> Ending:
        return await Pool(
            items([Job(request(1))]), Rig(in_50_ms).asker, Books().commit, sizes=PoolSizes(workers=4), guard=guard
        ).run()

    assert moved_clock(main()) is Ending.COMPLETE


def test_a_writers_crash_ends_the_run_and_nothing_hangs(moved_clock: RunOn) -> None:
    """A first design waited in `finally` for a writer that was dead, for ever."""
    books = Books(break_at=10)

    async def main() -> None:
        async with asyncio.timeout(60):
            await pool_of(Rig(in_50_ms), books, [Job(request(number)) for number in range(500)]).run()

    with pytest.raises(StoreError, match="disk is full"):
        moved_clock(main())
    assert len(books.keys) < 10


def test_hard_cancel_writes_what_was_answered(moved_clock: RunOn) -> None:
    """Every answer that came before the cancel is committed, also those that wait for a slow disk."""
    books, got = Books(slow_s=0.5), []

    async def provider(asked: Request) -> Response:
        await asyncio.sleep(0.03)
        got.append(asked.record.key)
        return answered()

    async def main() -> None:
        pool = pool_of(Rig(provider), books, [Job(request(number)) for number in range(500)])
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(1.21)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    moved_clock(main())
    assert 8 < len(got) < 500
    assert sorted(books.keys) == sorted(got)


def test_queues_are_bounded(moved_clock: RunOn) -> None:
    """With a slow disk the producer does not run ahead by more than the queues hold."""
    taken = 0

    async def producer() -> Any:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield Job(request(number))

    async def at_once(_: Request) -> Response:
        return answered()

    async def main() -> int:
        books = Books(slow_s=1.0)
        pool = Pool(producer(), Rig(at_once).asker, books.commit, sizes=PoolSizes(workers=4))
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(0.5)
        ahead = taken
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return ahead

    assert moved_clock(main()) <= 4 + 4 + 8 + 8 + 2


def test_identical_requests_follow_the_one_that_is_asked(moved_clock: RunOn) -> None:
    books, calls = Books(), []

    async def provider(asked: Request) -> Response:
        calls.append(asked.record.key)
        await asyncio.sleep(0.05)
        return answered()

    async def main() -> Rig:
        rig = Rig(provider)
        job = Job(request(0), followers=[record(1), record(2)])
        await pool_of(rig, books, [job]).run()
        return rig

    rig = moved_clock(main())
    assert calls == ["k0"]
    assert [(one.record.key, one.copied_from, one.attempts) for one in books.outcomes] == [
        ("k0", None, 1),
        ("k1", "k0", 0),
        ("k2", "k0", 0),
    ]
    assert rig.task.called_back == ["k0", "k1", "k2"]
