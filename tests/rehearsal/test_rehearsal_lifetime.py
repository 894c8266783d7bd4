"""Starting, stopping, and serving alone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import openai
import pytest
from openai import AsyncOpenAI
from rehearsal_client import ask, until, with_endpoint

from pipeline.errors import SetupError
from pipeline.rehearsal import Rehearsal, RehearsalOptions


def test_a_taken_port_is_told() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        other = Rehearsal(RehearsalOptions(port=endpoint.port))
        with pytest.raises(SetupError, match=rf"cannot listen on 127\.0\.0\.1:{endpoint.port}"):
            await other.start()
        await other.stop()

    with_endpoint(test)


def test_stop_ends_calls_on_their_way_and_may_be_called_twice() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        call = asyncio.create_task(client.chat.completions.create(**ask()))
        await until(lambda: endpoint.books.in_flight == 1)
        async with asyncio.timeout(3.0):
            await endpoint.stop()
            await endpoint.stop()
        with pytest.raises(openai.APIConnectionError):
            await call
        assert endpoint.books.in_flight == 0
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(**ask())

    with_endpoint(test, latency_ms=60_000.0)


ALONE = """
import sys
from pipeline.rehearsal import RehearsalOptions, serve
totals = serve(RehearsalOptions(latency_ms=0), lambda endpoint: print(endpoint.base_url, flush=True))
print(totals.calls, totals.answered)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_alone_it_serves_until_a_signal_and_gives_its_totals(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-W", "error", "-c", ALONE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()

        async def call() -> None:
            async with AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
                await client.chat.completions.create(**ask())

        asyncio.run(call())
        process.send_signal(number)
        told, _ = process.communicate(timeout=10)
    assert told.split() == ["1", "1"]
    assert process.returncode == 0
