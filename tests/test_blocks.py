"""Blocks of a file, off the event loop."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pipeline.files import read_chunks


def test_a_cancel_while_a_file_is_opened_leaves_none_open(tmp_path: Path) -> None:
    """The thread goes on, and nobody closed what it had opened: a count that ends early left a file behind."""
    path = tmp_path / "in.csv"
    path.write_bytes(b"a\n1\n")

    async def main() -> None:
        for place in range(100):
            blocks = read_chunks(path)
            first = asyncio.ensure_future(anext(blocks))
            for _ in range(1 + place % 3):
                await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await blocks.aclose()

    assert _left_open(main) == []


def test_a_second_cancel_while_a_file_is_closed_leaves_none_open(tmp_path: Path) -> None:
    """Who waits for a reader hands its cancel on, and then cancels the reader too."""
    path = tmp_path / "in.csv"
    path.write_bytes(b"a\n1\n")

    async def read() -> None:
        async with aclosing(read_chunks(path)) as blocks:
            async for _ in blocks:
                await asyncio.sleep(60)

    async def main() -> None:
        for _ in range(100):
            reader = asyncio.ensure_future(read())
            await asyncio.sleep(0.002)
            reader.cancel()
            await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait({reader})

    assert _left_open(main) == []


def _left_open(main: Callable[[], Coroutine[Any, Any, None]]) -> list[str]:
    """What the collector finds open when it is over."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(main())
        gc.collect()
    return [str(one.message) for one in caught]
