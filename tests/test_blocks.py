"""Blocks of a file, off the event loop."""

from __future__ import annotations

import asyncio
import gc
import warnings
from pathlib import Path

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

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(main())
        gc.collect()
    assert [str(one.message) for one in caught] == []
