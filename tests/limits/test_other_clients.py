"""Other users of the key: seen in what is left, yielded to, and their room taken back; sole users lose nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limit_servers import Bucket, Log

from pipeline.errors import RateLimitedError, StoppedError
from pipeline.limits import Admission, Gate, LocalResource, meters
from pipeline.limits.other_clients import RESERVE_SHARE, OtherClients
from pipeline.records import ServerLimits, Usage

RunOn = Callable[[Any], Any]
LIMIT = 1200
LATENCY_S = 0.2


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer looks: the rates here are low enough."""
    monkeypatch.setattr(meters, "POLL_S", 0.01)


def left_and_reset(server: Bucket | Log, now: float) -> tuple[int, float]:
    """What OpenAI's headers say of a bucket; of a window, when it is empty."""
    if isinstance(server, Bucket):
        rate, size = server.per_minute / 60, server.per_minute * server.span_s / 60
        level = size if server._level is None else min(size, server._level + (now - server._at) * rate)
        return int(level), (size - level) / rate
    return max(0, LIMIT - len(server._stamps)), (server._stamps[-1] + 60 - now if server._stamps else 0.0)


class Scene:
    """A server that tells what is left, our door, and another client who sends steadily and hears nothing."""

    def __init__(self, server: Bucket | Log) -> None:
        self.server = server
        self.door = Admission(gate=Gate(64), resource=LocalResource(LIMIT))
        self.ours: list[float] = []
        self.refused: list[float] = []
        self.others_refused = 0

    async def run(self, seconds: float, *, comes: float, goes: float, others: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        loop.call_later(seconds, self.door.gate.stop, StoppedError())
        other = asyncio.create_task(self._other(began + comes, began + goes, others))
        await asyncio.gather(*(self._work() for _ in range(32)))
        await other

    async def _other(self, comes: float, goes: float, per_minute: float) -> None:
        loop = asyncio.get_running_loop()
        while comes < goes:
            await asyncio.sleep(comes - loop.time())
            self.others_refused += self.server.take(loop.time()) is not None
            comes += 60 / per_minute

    async def _work(self) -> None:
        try:
            while True:
                await self._call()
        except StoppedError:
            return

    async def _call(self) -> None:
        loop = asyncio.get_running_loop()
        permit = await self.door.acquire(1)
        wait_s = self.server.take(loop.time())
        left, reset_s = left_and_reset(self.server, loop.time())
        if wait_s is None:
            await asyncio.sleep(LATENCY_S)
            self.ours.append(permit.sent_at)
            permit.settle(Usage(8, 2))
            self.door.on_answer(Usage(8, 2), ServerLimits(LIMIT, left, reset_s), LATENCY_S)
        else:
            self.refused.append(loop.time())
            self.door.on_refusal(RateLimitedError(retry_after_s=wait_s), permit.sent_at)
        permit.close()

    def rate(self, since: float, until: float) -> float:
        """Our calls a minute in a span of seconds from the first."""
        begin = self.ours[0]
        return sum(begin + since <= at < begin + until for at in self.ours) / (until - since) * 60


def test_half_of_a_bucket_is_left_to_another_and_taken_back(moved_clock: RunOn) -> None:
    scene = Scene(Bucket(LIMIT, 60))
    scene.server.take(1000.0)
    moved_clock(scene.run(400, comes=60, goes=300, others=LIMIT / 2))
    assert not scene.refused
    assert not scene.others_refused
    assert scene.rate(200, 300) == pytest.approx(LIMIT / 2, rel=0.05)
    assert scene.rate(320, 400) > 0.95 * LIMIT


@pytest.mark.parametrize("server", [Bucket(LIMIT, 60), Bucket(LIMIT, 1), Log(LIMIT, 60)], ids=["60 s", "1 s", "log"])
def test_alone_nothing_is_yielded(moved_clock: RunOn, server: Bucket | Log) -> None:
    scene = Scene(server)
    moved_clock(scene.run(120, comes=0, goes=0, others=1))
    assert scene.rate(10, 120) > 0.97 * LIMIT
    assert not scene.refused


def test_two_that_yield_share_a_bucket_evenly() -> None:
    """What is left is the same for both; so is the share, and it settles where both together use the rate."""
    one, two, left, now = OtherClients(3000), OtherClients(3000), 3000.0, 0.0
    while now < 600:
        now += 0.1
        for client in (one, two):
            client.on_headers(int(left), (3000 - left) / 50)
        left = min(3000.0, left + 5 - 4.95 * (one.share + two.share))
    assert one.share == two.share == pytest.approx(0.5, abs=0.05)
    assert left > 50


@pytest.mark.parametrize("told", [(0, 60.0), (1, 0.0), (0, 0.0), (150, 57.0), (3000, 60.0)])
def test_a_server_that_always_says_the_same_teaches_nothing(told: tuple[int, float]) -> None:
    others = OtherClients(3000)
    for _ in range(300):
        others.on_headers(*told)
    assert others.share == 1.0


@given(
    st.lists(
        st.tuples(
            st.integers(-10, 10_000),
            st.floats(0, 65),
        ),
        max_size=60,
    )
)
def test_no_header_takes_all_of_the_share(steps: list[tuple[int, float]]) -> None:
    others = OtherClients(3000)
    for left, reset_s in steps:
        others.on_headers(left, reset_s)
        assert RESERVE_SHARE <= others.share <= 1.0
