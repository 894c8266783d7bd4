"""Rehearsal endpoints in a process of their own: `python endpoints.py`, told what to do by JSON lines on stdin.

`{"open": {option: value}}` is answered by `{"port": ...}`, `{"close": port}` by `{}`. It ends with its stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

from pipeline.rehearsal import Rehearsal, RehearsalOptions


async def serve() -> None:
    """Carry out commands until stdin ends."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    opened: dict[int, Rehearsal] = {}
    async with AsyncExitStack() as stack:
        stack.callback(pipe.close)
        while line := await commands.readline():
            answer = await _do(json.loads(line), opened, stack)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


async def _do(command: dict[str, Any], opened: dict[int, Rehearsal], stack: AsyncExitStack) -> dict[str, Any]:
    if "close" in command:
        await opened.pop(command["close"]).stop()
        return {}
    endpoint = await stack.enter_async_context(Rehearsal(RehearsalOptions(**command["open"])))
    opened[endpoint.port] = endpoint
    return {"port": endpoint.port}


if __name__ == "__main__":
    asyncio.run(serve())
