"""What people write: AsyncOpenAI, a semaphore, gather over the whole file, a row appended as each answer comes.

python -m benchmarks.contenders.gather BASE_URL INPUT CONCURRENCY OUTPUT
"""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from benchmarks.truth import body_of


async def label(client: AsyncOpenAI, slots: asyncio.Semaphore, record: dict[str, Any], output: Path) -> None:
    """One call, one row."""
    async with slots:
        response = await client.chat.completions.create(**body_of(record["text"]))
    found = json.loads(response.choices[0].message.tool_calls[0].function.arguments)["label"]
    with output.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow([record["id"], record["text"], found])


async def main(base_url: str, records: list[dict[str, Any]], slots: asyncio.Semaphore, output: Path) -> None:
    """Everything at once."""
    async with AsyncOpenAI(base_url=base_url, api_key="bench") as client:
        ended = await asyncio.gather(
            *(label(client, slots, record, output) for record in records), return_exceptions=True
        )
    failed = [error for error in ended if error is not None]
    if failed:
        sys.stderr.write(f"{len(failed)} failed; one: {failed[0]!r}\n")


if __name__ == "__main__":
    base, source, count, rows = sys.argv[1:]
    lines = Path(source).read_text(encoding="utf-8").splitlines()
    asyncio.run(main(base, [json.loads(line) for line in lines], asyncio.Semaphore(int(count)), Path(rows)))
