"""Whole runs against simulated servers on a clock that jumps: the door of a run, and workers that always want to call.

The servers are those of `rules`, which the endpoint plays too. Nothing here depends on how fast the machine is, so a
figure changes only when the code or a seed does.
"""

from __future__ import annotations

import asyncio
import math
import random
import selectors
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from unittest import mock

from asyncio_throttle import throttler

from benchmarks.rules import KNEES, Limit, Meter, Rules, meter_of, retry_after_s
from pipeline.errors import RateLimitedError, StoppedError
from pipeline.limits import Admission, Gate, LocalResource, Tuner
from pipeline.records import ServerLimits, Usage

#: A call reaches the server after 0 to this many seconds; a refusal takes as long as this.
ROAD_S = 0.01
#: What a failed call waits before its worker tries again, where no outage is known.
RETRY_S = 1.0
HIGHEST = 64
#: A client that sends more calls than this hammers the server; it is stopped, and what it has not got counts.
MOST_CALLS = 20_000


@dataclass(frozen=True, slots=True)
class Scene:
    """A kind of server, what the config says about it, and for how long it is watched. Times in seconds."""

    rules: Rules
    #: requests a minute in the config; None: nothing is said
    config: float | None = None
    #: calls in flight; None: "auto", between 1 and 64
    concurrency: int | None = 64
    seconds: float = 120.0
    #: nothing counts toward the share before this
    since_s: float = 20.0
    #: the share of calls that is refused at random, and the wait that these are told
    busy: float = 0.0
    busy_wait_s: float | None = 1.0
    #: calls beyond so many in flight are refused
    most_in_flight: int | None = None
    #: calls do not return after this; they time out
    timeout_s: float = math.inf
    #: the share of answers whose headers say one a minute
    slips: float = 0.0
    #: how scattered latencies are: the deviation of their logarithm
    scatter: float = 0.1
    #: a client of the same key that hears nothing: from, to, requests a minute
    other: tuple[float, float, float] | None = None
    #: doors like ours at the same key
    doors: int = 1
    #: from this moment on the server gives this many a minute
    changes: tuple[float, float] | None = None
    #: from this moment on so many are served at once
    knee_changes: tuple[float, int] | None = None
    #: 503 from, to
    outage: tuple[float, float] | None = None
    #: what could be had at most, calls a second; None: what the limit gives
    best_per_s: float | None = None


@dataclass(slots=True)
class Score:
    """What came of a scene: the share of what could be had, and the share of calls that was refused or failed."""

    used: float
    refused: float


class _Jump(selectors.SelectSelector):
    """Where a selector would wait, the clock jumps. Nobody comes from outside."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("the simulated run is stuck: nothing is left that could wake it")
        self.now += max(0.0, timeout)
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


@dataclass(slots=True)
class _Server:
    """One key's server: what is counted, and what all clients have in flight."""

    scene: Scene
    began_at: float
    dice: random.Random
    meter: Meter | None = None
    in_flight: int = 0
    passed_at: list[float] = field(default_factory=list)
    calls: int = 0
    turned_away: int = 0

    def arrive(self, now: float) -> RateLimitedError | None:
        """Why a call is refused; None if it is let in."""
        scene, limit = self.scene, self.scene.rules.limit
        if self.dice.random() < scene.busy:
            return RateLimitedError(retry_after_s=scene.busy_wait_s)
        if scene.most_in_flight is not None and self.in_flight >= scene.most_in_flight:
            return RateLimitedError(retry_after_s=scene.busy_wait_s)
        wait_s = 0.0 if self.meter is None else self.meter.take(now)
        if not wait_s or limit is None:
            return None
        return RateLimitedError(retry_after_s=retry_after_s(limit, wait_s))

    def is_down(self, now: float) -> bool:
        """Whether it answers 503."""
        outage = self.scene.outage
        return outage is not None and outage[0] <= now - self.began_at < outage[1]

    def latency_s(self) -> float:
        """How long a call takes that is let in now."""
        rules, change = self.scene.rules, self.scene.knee_changes
        is_changed = change is not None and asyncio.get_running_loop().time() - self.began_at >= change[0]
        knee = change[1] if change is not None and is_changed else rules.knee
        load = max(1.0, self.in_flight / knee) if knee else 1.0
        if rules.slow and self.dice.random() < rules.slow:
            load *= rules.slow_factor
        return rules.latency_s * KNEES[rules.knee_kind](load) * math.exp(self.dice.gauss(0, self.scene.scatter))

    def headers(self, now: float) -> ServerLimits | None:
        """What an answer says of the limit."""
        limit = self.scene.rules.limit
        if limit is None or self.meter is None or not limit.headers:
            return None
        if self.scene.slips and self.dice.random() < self.scene.slips:
            return ServerLimits(1, 0, 60.0)
        return ServerLimits(round(limit.per_minute), self.meter.remaining(now), self.meter.reset_s(now))


class _Client:
    """A door and its workers."""

    def __init__(self, server: _Server, name: str) -> None:
        self._server, self._scene, self._name = server, server.scene, name
        scene = self._scene
        tuner = None
        if scene.concurrency is None:
            tuner = Tuner(lowest=1, highest=HIGHEST, timeout_s=scene.timeout_s)
        concurrency = tuner.limit if tuner is not None else scene.concurrency or 1
        self.door = Admission(gate=Gate(concurrency), resource=LocalResource(scene.config), tuner=tuner)
        self.workers = 2 * HIGHEST + 2 if tuner is not None else 2 * concurrency + 2

    async def work(self, number: int) -> None:
        """Call again and again until the gate stops."""
        pause_s = 0.0
        try:
            while True:
                answers = self.door.gate.answers
                pause_s = await self._call(f"{self._name}{number}", answers)
                if pause_s:
                    await self.door.gate.pause(pause_s)
        except StoppedError:
            return

    async def _call(self, key: str, answers: int) -> float:
        """One call; gives how long its worker waits before the next one."""
        server, loop = self._server, asyncio.get_running_loop()
        permit = await self.door.acquire(100)
        try:
            await asyncio.sleep(ROAD_S * server.dice.random())
            server.calls += 1
            if server.calls > MOST_CALLS:
                self.door.gate.stop(StoppedError())
            if server.is_down(loop.time()):
                server.turned_away += 1
                await asyncio.sleep(ROAD_S)
                return self._failed(key, permit.sent_at, answers)
            refusal = server.arrive(loop.time())
            if refusal is not None:
                server.turned_away += 1
                await asyncio.sleep(ROAD_S)
                return self.door.on_refusal(refusal, permit.sent_at)
            return await self._answer(permit.sent_at)
        finally:
            permit.close()

    async def _answer(self, sent_at: float) -> float:
        server, loop = self._server, asyncio.get_running_loop()
        server.in_flight += 1
        try:
            latency_s = server.latency_s()
            if latency_s > self._scene.timeout_s:
                await asyncio.sleep(self._scene.timeout_s)
                server.turned_away += 1
                self.door.on_timeout(sent_at)
                return RETRY_S
            arrived_at = loop.time()
            told = server.headers(arrived_at)
            await asyncio.sleep(latency_s)
        finally:
            server.in_flight -= 1
        server.passed_at.append(arrived_at)
        self.door.on_answer(Usage(80, 20), told, loop.time() - sent_at, sent_at=sent_at)
        return 0.0

    def _failed(self, key: str, sent_at: float, answers: int) -> float:
        gate, now = self.door.gate, asyncio.get_running_loop().time()
        gate.on_failure(
            key, sent_at=sent_at, answers_before=answers, failing=0, others=self.workers, reason="503", now=now
        )
        return 0.0 if gate.outage is not None else RETRY_S


async def _other(server: _Server, comes: float, goes: float, per_minute: float) -> None:
    """Sends steadily, whatever it is told."""
    loop = asyncio.get_running_loop()
    at = server.began_at + comes
    while at < server.began_at + goes:
        await asyncio.sleep(at - loop.time())
        if server.meter is not None and not server.meter.take(loop.time()):
            server.passed_at.append(loop.time())
        at += 60 / per_minute


def _change(server: _Server, per_minute: float) -> None:
    """From now on the server gives this rate; its count begins anew."""
    limit = server.scene.rules.limit
    assert limit is not None
    kind = Limit(limit.kind, per_minute, limit.span_s, 0.0, headers=limit.headers, retry_after=limit.retry_after)
    server.meter = meter_of(kind, asyncio.get_running_loop().time())


async def _play(scene: Scene, seed: int) -> Score:
    loop = asyncio.get_running_loop()
    began_at, limit = loop.time(), scene.rules.limit
    server = _Server(scene, began_at, random.Random(seed), None if limit is None else meter_of(limit, began_at))
    clients = [_Client(server, f"{door}/") for door in range(scene.doors)]
    for client in clients:
        loop.call_later(scene.seconds, client.door.gate.stop, StoppedError())
    if scene.changes is not None:
        loop.call_later(scene.changes[0], _change, server, scene.changes[1])
    others = [] if scene.other is None else [_other(server, *scene.other)]
    await asyncio.gather(*others, *(client.work(at) for client in clients for at in range(client.workers)))
    passed = sum(scene.since_s <= at - began_at < scene.seconds for at in server.passed_at)
    return Score(passed / _most(scene), server.turned_away / max(1, server.calls))


def _most(scene: Scene) -> float:
    """How many calls could be answered in the time that counts."""
    limit = scene.rules.limit
    assert limit is not None or scene.best_per_s is not None
    per_s = scene.best_per_s or (limit.per_minute / 60 if limit is not None else 0.0)
    if scene.config is not None:
        per_s = min(per_s, scene.config / 60)
    seconds = scene.seconds - scene.since_s
    if scene.outage is not None:
        seconds -= scene.outage[1] - scene.outage[0]
    if scene.changes is None:
        return per_s * seconds
    at, then = scene.changes
    return per_s * (at - scene.since_s) + then / 60 * (scene.seconds - at)


async def _acquire(self: throttler.Throttler) -> None:
    """As the real one, but it waits for as long as it has to at once: to look every few milliseconds costs time."""
    loop, log = asyncio.get_running_loop(), self._task_logs
    while True:
        self.flush()  # type: ignore[no-untyped-call]
        if len(log) < self.rate_limit:
            log.append(loop.time())
            return
        await asyncio.sleep(max(0.0, log[0] + self.period - loop.time()) + 1e-6)


def play(scene: Scene, seeds: Sequence[int]) -> Score:
    """The mean score of a scene over some seeds."""
    scores = []
    for seed in seeds:
        loop = _Loop()
        clock = mock.Mock(monotonic=loop.time)
        with mock.patch.object(throttler, "time", clock), mock.patch.object(throttler.Throttler, "acquire", _acquire):
            scores.append(loop.run_until_complete(_play(scene, seed)))
        loop.close()
    return Score(statistics.fmean(one.used for one in scores), statistics.fmean(one.refused for one in scores))
