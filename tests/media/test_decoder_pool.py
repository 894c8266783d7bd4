"""Processes that take media apart: what takes too much is ended and told, and the next picture goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from media_files import huge_png, jpeg, many_scans, nested_pdf

from pipeline.errors import MediaError
from pipeline.media import decoder_pool
from pipeline.media.decode import DecodeJob, DecodeResult, decode
from pipeline.media.decoder_pool import DecoderPool, DecoderProcess

SMALL = jpeg((300, 200))
IMAGE = DecodeJob("image", "image/jpeg", "a.jpg", bound=(30, 20))
#: it would take all memory, or for ever
NESTED = DecodeJob("document", "application/pdf", "n.pdf", bound=(100, 100))


@asynccontextmanager
async def opened(size: int = 1) -> AsyncIterator[DecoderPool]:
    shop = DecoderPool(size)
    try:
        yield shop
    finally:
        shop.close()
        shop.close()


def worker_of(shop: DecoderPool) -> DecoderProcess:
    (worker,) = shop._all
    return worker


def after(data: bytes, order: DecodeJob) -> str:
    """What is told of the order; a picture that follows it is decoded."""

    async def main() -> str:
        async with opened() as shop:
            with pytest.raises(MediaError) as caught:
                await shop.decode(data, order)
            assert (await shop.decode(SMALL, IMAGE)).images[0].size.width == 30
            return str(caught.value)

    return asyncio.run(main())


def test_it_gives_what_decoding_here_would_give() -> None:
    async def main() -> list[DecodeResult]:
        async with opened() as shop:
            found = [
                await shop.decode(SMALL, IMAGE),
                await shop.decode(SMALL, DecodeJob("image", "image/jpeg", "a", False)),
            ]
            assert len(shop._all) == 1, "one process for both"
            return found

    scaled, same = asyncio.run(main())
    assert scaled == decode(SMALL, IMAGE)
    assert same.images[0].data == SMALL


def test_an_order_that_is_refused_costs_no_process() -> None:
    async def main() -> None:
        async with opened() as shop:
            for _ in range(3):
                with pytest.raises(MediaError, match="cut off"):
                    await shop.decode(SMALL[:-500], IMAGE)
            assert len(shop._all) == 1

    asyncio.run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no bound of CPU")
def test_what_takes_too_much_of_the_cpu_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(decoder_pool.CPU_S, "document", 1)
    monkeypatch.setattr(decoder_pool, "PATIENCE", 100)
    assert after(nested_pdf(fan=6), NESTED) == "n.pdf cannot be decoded: it takes more than 1 s of CPU"


@pytest.mark.skipif(sys.platform != "linux", reason="others have no bound of memory")
@pytest.mark.parametrize("kind", ["python", "c"])
def test_what_takes_too_much_memory_is_ended(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "MEMORY_BYTES", 300 * 1024 * 1024)
    if kind == "python":
        big = huge_png(9_000, 9_000)
        assert "it takes too much memory" in after(big, DecodeJob("image", "image/png", "b.png", bound=(90, 90)))
    else:
        assert "or takes more than 300 MB" in after(nested_pdf(), NESTED)


def test_what_does_not_come_back_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "PATIENCE", 0.01)
    assert after_slow() == "n.pdf cannot be decoded: it takes too long"


def after_slow() -> str:
    async def main() -> str:
        async with opened() as shop:
            with pytest.raises(MediaError) as caught:
                await shop.decode(nested_pdf(fan=6), NESTED)
            return str(caught.value)

    return asyncio.run(main())


def test_a_process_that_somebody_ends_is_replaced() -> None:
    async def main() -> None:
        async with opened() as shop:
            await shop.decode(SMALL, IMAGE)
            os.kill(worker_of(shop)._process.pid, signal.SIGKILL)
            with pytest.raises(MediaError, match=r"broke off \(signal 9\)"):
                await shop.decode(SMALL, IMAGE)
            assert (await shop.decode(SMALL, IMAGE)).images

    asyncio.run(main())


def test_a_cancel_ends_what_is_at_work_and_so_does_closing() -> None:
    async def main() -> None:
        async with opened(2) as shop:
            tasks = [asyncio.create_task(shop.decode(nested_pdf(fan=6), NESTED)) for _ in range(2)]
            while len(shop._all) < 2:
                await asyncio.sleep(0.01)
            tasks[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]
            assert (await shop.decode(SMALL, IMAGE)).images
            workers = list(shop._all)
            shop.close()
            with pytest.raises(MediaError, match="broke off"):
                await tasks[1]
        assert all(worker._process.returncode is not None for worker in workers)

    asyncio.run(main())


def test_a_decoder_that_cannot_begin_is_no_pictures_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "_PROGRAM", "raise SystemExit(3)")

    async def main() -> None:
        async with opened() as shop:
            with pytest.raises(decoder_pool.DecoderEndedError, match="exit code 3"):
                await shop.decode(SMALL, IMAGE)

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_process_has_no_key_and_no_modules_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.py").write_text("raise SystemExit(9)", encoding="utf-8")
    worker = DecoderProcess()
    try:
        assert worker.decode(SMALL, IMAGE).images
        assert b"sk-secret" not in Path(f"/proc/{worker._process.pid}/environ").read_bytes()
    finally:
        worker.kill()
        worker.reap()


def test_scans_without_end_are_refused_before_they_are_decoded() -> None:
    assert "has 107 scans" in after(many_scans(101), IMAGE)
