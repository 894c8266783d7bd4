"""The threads that plain callbacks run in: how many, what becomes of those that hang, and of work that never begins."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import NotCalledError
from pipeline.records import Answer, CallbackContext, Record, ToolCall
from pipeline.task import Task
from pipeline.task import callback_threads as threads
from pipeline.task.callback_threads import NoThreadError, run_in_thread

#: Longer than any test waits.
LONG_S = 600.0


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> threads._ThreadPool:
    """Threads of the test's own."""
    made = threads._ThreadPool()
    monkeypatch.setattr(threads, "_pool", made)
    monkeypatch.setattr(threads, "IDLE_S", 60.0)  # longer than `until` waits: a thread that goes, goes for a reason
    return made


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """What functions wait for that hang; they return when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)  # another thread's doing has no clock to move


class Hung:
    """A call that has begun and that waits for `hold`."""

    def __init__(self, hold: threading.Event) -> None:
        self._hold = hold
        self._begun = threading.Event()

    def _function(self) -> None:
        self._begun.set()
        self._hold.wait(60)

    async def begin(self) -> asyncio.Task[None]:
        role = asyncio.create_task(run_in_thread(self._function, timeout_s=LONG_S))
        await asyncio.sleep(0)
        until(self._begun.is_set)
        return role


async def given_up(*roles: asyncio.Task[Any]) -> None:
    """Nobody waits for them any more."""
    for role in roles:
        role.cancel()
    await asyncio.wait(roles)


def test_many_slow_functions_wait_side_by_side() -> None:
    barrier = threading.Barrier(threads.MAX_THREADS)  # breaks unless so many are there at once

    async def main() -> list[int]:
        return await asyncio.gather(
            *[run_in_thread(barrier.wait, 30, timeout_s=60) for _ in range(threads.MAX_THREADS)]
        )

    assert sorted(asyncio.run(main())) == list(range(threads.MAX_THREADS))


def test_more_work_than_threads_is_all_done_and_the_threads_go(
    pool: threads._ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "IDLE_S", 0.01)
    monkeypatch.setattr(threads, "MAX_THREADS", 3)

    async def main() -> int:
        done = await asyncio.gather(*[run_in_thread(time.sleep, 0.001, timeout_s=60) for _ in range(60)])
        return len(done)

    for _ in range(5):
        assert asyncio.run(main()) == 60
    until(lambda: pool._threads == 0)
    assert pool._free == 0


def test_a_piece_of_work_never_waits_for_a_thread_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs, handed to an idle thread, must not take the next one with it."""

    def start(work: Callable[[], Any]) -> None:
        threads._pool.start(threads._WorkItem(work, pytest.fail))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for spins in range(0, 3000, 10):
            monkeypatch.setattr(threads, "_pool", threads._ThreadPool())
            hold, ran = threading.Event(), threading.Event()
            start(lambda: None)  # leaves a thread that is idle, or about to be
            time.sleep(0.0005)
            start(hold.wait)
            all(range(1, spins))  # the moment is the point here
            start(ran.set)
            assert ran.wait(30)
            hold.set()
    finally:
        sys.setswitchinterval(interval)


# -- work that never begins ------------------------------------------------------------------------------------------


def test_where_too_many_hang_nothing_begins_until_one_returns(
    pool: threads._ThreadPool, hold: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MAX_HUNG", 2)
    ran: list[str] = []

    async def main() -> None:
        await given_up(*[await Hung(hold).begin() for _ in range(2)])
        with pytest.raises(NoThreadError, match="2 calls of plain functions hang"):
            await run_in_thread(ran.append, "too early", timeout_s=LONG_S)
        hold.set()
        until(lambda: pool._hung == 0)
        await run_in_thread(ran.append, "again", timeout_s=LONG_S)

    asyncio.run(main())
    assert ran == ["again"]


def test_what_waits_when_too_many_come_to_hang_is_refused_at_once(
    pool: threads._ThreadPool, hold: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would wait for a thread that nobody makes any more."""
    monkeypatch.setattr(threads, "MAX_THREADS", 1)
    monkeypatch.setattr(threads, "MAX_HUNG", 2)
    ran: list[int] = []

    async def main() -> None:
        await given_up(await Hung(hold).begin())
        last = await Hung(hold).begin()
        waiting = [asyncio.create_task(run_in_thread(ran.append, number, timeout_s=LONG_S)) for number in range(3)]
        await asyncio.sleep(0)
        await given_up(waiting.pop())
        await given_up(last)
        async with asyncio.timeout(30):
            found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in found] == [NoThreadError] * 2
        hold.set()
        until(lambda: pool._hung == 0)
        await run_in_thread(ran.append, 7, timeout_s=LONG_S)

    asyncio.run(main())
    assert ran == [7], "what was refused never begins"


def test_work_that_does_not_begin_in_time_never_does(
    pool: threads._ThreadPool, hold: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record has its ending by then, and a call with the same idempotency key may be under way."""
    monkeypatch.setattr(threads, "MAX_THREADS", 1)
    ran: list[str] = []

    async def main() -> None:
        slow = await Hung(hold).begin()
        cancelled = asyncio.create_task(run_in_thread(ran.append, "cancelled", timeout_s=LONG_S))
        with pytest.raises(NoThreadError, match=r"no thread became free for it in 0\.0\d+ s"):
            await run_in_thread(ran.append, "late", timeout_s=0.01)
        await given_up(cancelled)
        hold.set()
        await slow
        await run_in_thread(ran.append, "next", timeout_s=LONG_S)

    asyncio.run(main())
    assert ran == ["next"]


def test_the_wait_for_a_thread_grows_with_the_work_ahead(
    pool: threads._ThreadPool, hold: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven rounds of work that each take nearly their time limit are no reason to refuse the last."""
    monkeypatch.setattr(threads, "MAX_THREADS", 1)

    async def main() -> float:
        slow = await Hung(hold).begin()
        ahead = [asyncio.create_task(run_in_thread(int, timeout_s=LONG_S)) for _ in range(9)]
        await asyncio.sleep(0)
        with pytest.raises(NoThreadError) as refused:
            await run_in_thread(int, timeout_s=0.01)
        hold.set()
        await asyncio.gather(slow, *ahead)
        return float(str(refused.value).split()[-2])

    assert asyncio.run(main()) == pytest.approx(0.01 * (threads.START_ROUNDS + 10))


def test_a_system_that_gives_no_thread_ends_nothing_but_the_wait(
    pool: threads._ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", none_left)
            with pytest.raises(NoThreadError):
                await run_in_thread(ran.append, "never", timeout_s=0.01)
        await run_in_thread(ran.append, "later", timeout_s=LONG_S)

    asyncio.run(main())
    assert ran == ["later"]
    until(lambda: pool._free == 1)
    assert pool._threads == 1


def test_threads_that_return_take_work_again_and_are_no_more_than_before(
    pool: threads._ThreadPool, hold: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MAX_THREADS", 2)
    more = threading.Event()

    async def main() -> None:
        await given_up(*[await Hung(hold).begin() for _ in range(2)])
        others = [await Hung(more).begin() for _ in range(2)]
        assert (pool._threads, pool._hung) == (4, 2)
        hold.set()
        until(lambda: pool._threads == 2)
        more.set()
        await asyncio.gather(*others)
        await asyncio.gather(*[run_in_thread(int, timeout_s=LONG_S) for _ in range(20)])

    asyncio.run(main())
    until(lambda: pool._free == 2)
    assert (pool._threads, pool._hung) == (2, 0)


def test_a_cancel_at_any_moment_keeps_the_count(pool: threads._ThreadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread begins while the loop cancels: what is counted as lost must be what has begun, and no more."""
    monkeypatch.setattr(threads, "MAX_THREADS", 4)
    dice = random.Random(7)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    async def one() -> None:
        role = asyncio.create_task(run_in_thread(time.sleep, 0.0002, timeout_s=LONG_S))
        for _ in range(dice.randint(0, 12)):
            await asyncio.sleep(0)
        await given_up(role)

    async def main() -> None:
        for _ in range(100):
            await asyncio.gather(*[one() for _ in range(8)])

    try:
        asyncio.run(main())
    finally:
        sys.setswitchinterval(interval)
    until(lambda: pool._hung == 0 and pool._free == pool._threads)
    assert pool._work.empty()


def test_a_callback_that_was_not_called_is_told_to_the_user_and_not_to_the_model(
    pool: threads._ThreadPool,
    module: Callable[..., Path],
    make_task: Callable[..., Task],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "MAX_HUNG", 0)
    base = module("def save(label, record):\n    return None\n")
    record = Record("f", 0, "k", {"text": "fine"}, 1, 0)
    for turns in (1, 3):
        task = make_task(base=base, callback="mytools:save", max_turns=turns)
        (said,) = task.parse_calls(Answer((ToolCall("1", "set_label", '{"label":"neutral"}'),)), record)
        with pytest.raises(NotCalledError, match=r"0 calls of plain functions hang.*`labelpipe replay`"):
            asyncio.run(task.run_callback(said, record, CallbackContext("the key", 0, said.tool)))


# -- the end of the process ------------------------------------------------------------------------------------------


HANGS = """
import asyncio, time
from pipeline.task.callback_threads import run_in_thread

async def main():
    try:
        await run_in_thread(time.sleep, 3600, timeout_s=0.05)
    except TimeoutError:
        print("left alone")

asyncio.run(main())
"""


def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "left alone\n"
