"""A host whose name does not resolve: misspelled, where it was never reached; else the network is down."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from engine.engine_parts import Rig, items, request

from pipeline.engine import Job, Pool, PoolSizes, is_hopeless
from pipeline.errors import NoHostError
from pipeline.providers import ClientOptions, HttpProvider

RunOn = Callable[[Any], Any]


@pytest.mark.parametrize(("proven", "least_s", "most_s"), [(False, 60, 70), (True, 3600, 3610)])
def test_a_name_that_never_resolved_ends_the_run(
    moved_clock: RunOn, monkeypatch: pytest.MonkeyPatch, proven: bool, least_s: float, most_s: float
) -> None:
    """It was an outage for six hours, whatever stood in model.base_url."""

    async def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # The resolver works in a thread, for which a moved clock does not wait.
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", unknown)

    async def main() -> tuple[Exception | None, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        provider = HttpProvider(ClientOptions(base_url="http://nobody.invalid/v1", api_key="sk-test"))
        rig = Rig(provider, ping=provider.ping)
        rig.asker.judge.proven = proven
        loop.call_later(3600, rig.gate.stop, TimeoutError("an hour is over"))
        pool = Pool(items([Job(request(at)) for at in range(50)]), rig.asker, _none, sizes=PoolSizes(8))
        await pool.run()
        await provider.close()
        return rig.gate.stopped, loop.time() - began

    async def _none(_: Any) -> None:
        raise AssertionError("no record has an outcome")

    stopped, took_s = moved_clock(main())
    assert least_s <= took_s < most_s
    assert isinstance(stopped, TimeoutError if proven else NoHostError)
    assert proven or ("there is no host nobody.invalid" in str(stopped) and is_hopeless(stopped))
