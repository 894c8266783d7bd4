"""Another client of the same key: so many calls a minute, evenly, whatever is answered.

python -m benchmarks.contenders.steady BASE_URL PER_MINUTE SECONDS
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp

from benchmarks.truth import body_of, text_of


async def call(session: aiohttp.ClientSession, url: str, number: int) -> None:
    """One call; its answer is read and not looked at."""
    async with session.post(url, json=body_of(text_of(number))) as response:
        await response.read()


async def main(base_url: str, per_minute: float, seconds: float) -> None:
    """Each call leaves at its time, also where answers are late."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as calls:
        for number in range(int(per_minute * seconds / 60)):
            await asyncio.sleep(began_at + number * 60 / per_minute - loop.time())
            calls.create_task(call(session, f"{base_url}/chat/completions", number))


if __name__ == "__main__":
    base, rate, length = sys.argv[1:]
    asyncio.run(main(base, float(rate), float(length)))
