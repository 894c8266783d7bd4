"""The floor: a bare aiohttp loop with so many workers. It reads each answer and looks at none.

python -m benchmarks.contenders.floor BASE_URL INPUT WORKERS
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from benchmarks.truth import body_of


async def work(session: aiohttp.ClientSession, url: str, lines: Iterator[str]) -> None:
    """Send what is left of the shared iterator."""
    for line in lines:
        async with session.post(url, json=body_of(json.loads(line)["text"])) as response:
            await response.read()


async def main(base_url: str, lines: Iterator[str], workers: int) -> None:
    """All workers, one session."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=workers)) as session:
        url = f"{base_url}/chat/completions"
        await asyncio.gather(*(work(session, url, lines) for _ in range(workers)))


if __name__ == "__main__":
    base, source, count = sys.argv[1:]
    asyncio.run(main(base, iter(Path(source).read_text(encoding="utf-8").splitlines()), int(count)))
