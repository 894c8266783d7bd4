"""How long a connection may take to be made: a network that is dead must not look like a server that is silent."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from provider_servers import provider_at, request

from pipeline.errors import UnavailableError

RunOn = Callable[[Any], Any]


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of a server that takes up no connection: its queue is full, and nobody empties it."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("timeout_s", "wait_s"),
    [
        pytest.param(2.0, 1.6, id="most of a short call"),
        pytest.param(10.0, 8.0, id="most of a call"),
        pytest.param(25.0, 20.0, id="just the most"),
        pytest.param(600.0, 20.0, id="no longer than that in a long call"),
    ],
)
@pytest.mark.parametrize("road", ["call", "model"])
def test_a_connection_that_is_not_made_is_told_before_the_calls_time_is_over(
    moved_clock: RunOn, deaf: str, timeout_s: float, wait_s: float, road: str
) -> None:
    """With as much time for the connection as for the call the engine's own limit came first: "no answer in 20 s"."""

    async def main() -> float:
        clock = asyncio.get_running_loop().time
        began = clock()
        async with provider_at(deaf, timeout_s=timeout_s) as provider:
            with pytest.raises(UnavailableError, match="no connection in time") as caught:
                async with asyncio.timeout(timeout_s):
                    await (provider(request()) if road == "call" else provider.model("m"))
        assert not caught.value.billed
        return clock() - began

    # aiohttp rounds the end of a longer wait up to a whole second.
    assert wait_s - 0.01 <= moved_clock(main()) <= wait_s + 1.0
