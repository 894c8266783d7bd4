"""A second client on the same key, which takes half of the limit in bursts."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from end_to_end.stage import Endpoint, Line, project, rows
from killing import Scene, prove
from sky import Skies, Sky

pytestmark = pytest.mark.chaos

PER_MINUTE, BURST_S = 3000, 1.0


class Ours(Endpoint):
    """The endpoint's books without the other client's lines."""

    def lines(self, from_byte: int = 0) -> list[Line]:
        return [line for line in super().lines(from_byte) if line.key != "other"]


@contextlib.contextmanager
def company(skies: Skies, sky: Sky, dice: random.Random) -> Iterator[None]:
    """Another client: now and then as many calls at once as half of the limit allows since the last time."""

    async def call(session: aiohttp.ClientSession) -> None:
        messages = [{"role": "user", "content": "other client"}]
        body = {"model": "gpt-6-luna", "messages": messages, "response_format": {"type": "json_object"}}
        async with session.post(f"{sky.base_url}/chat/completions", json=body) as answer:
            await answer.read()

    async def call_in_bursts() -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                wait_s = dice.uniform(0.3, 1.2)
                await asyncio.sleep(wait_s)
                await asyncio.gather(*(call(session) for _ in range(int(PER_MINUTE / 60 / 2 * wait_s))))

    calling = asyncio.run_coroutine_threadsafe(call_in_bursts(), skies.loop)
    try:
        yield
    finally:
        calling.cancel()
        skies.settle()


def test_half_of_the_limit_is_somebody_elses(tmp_path: Path, skies: Skies, seed: int) -> None:
    dice = random.Random(seed)
    says = {"headers": dice.random() < 0.6, "retry_after": dice.random() < 0.6}
    sky = skies.open(requests_per_minute=PER_MINUTE, burst_s=BURST_S, **says)
    given = rows(300)
    concurrency = dice.choice([8, 32, "auto"])
    user = project(tmp_path / "company", sky.base_url, len(given), limits={"concurrency": concurrency})
    most = 32 if concurrency == "auto" else int(concurrency)
    ours = Ours(sky.port, sky.endpoint.books_path)
    scene = Scene(user, ours, given, seed, most_wasted=most)
    told = f"{scene}, concurrency {concurrency}, {says}"
    with company(skies, sky, random.Random(seed + 1)):
        scene.strike("run", "job.toml", most_calls=100)
        summary = user.run()
    prove(scene)
    assert summary["failed"] == 0, f"{told}: given up"
    lines = sky.endpoint.lines()
    what = Counter(line.what for line in ours.lines())
    theirs = Counter(line.what for line in lines if line.key == "other")
    assert theirs["answered"] > 0, told
    # Who is not told the limit has to find it by being refused, in each of two sessions anew.
    most_refused = 0.1 if says["headers"] else 0.2
    share = what["refused"] / what.total()
    assert share < most_refused, f"{told}: {share:.0%} of our calls were refused: {what}, the other's {theirs}"
    passed = sorted(line.at_s for line in lines if line.what == "answered")
    # Books say when a call ends: a second's window may hold those of its latency more.
    allowed = PER_MINUTE / 60 * (1.0 + 0.1 + BURST_S)
    for at, first in enumerate(passed):
        within = sum(when < first + 1.0 for when in passed[at:])
        assert within <= allowed, f"{told}: {within} answers within a second, {allowed} allowed"
