"""The page of a run at work, over real sockets: renewed while it runs, and for nobody without its address."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from report.report_runs import model, run_of, settings_of

from pipeline import Request, Response, RunOptions, arun, awatch
from pipeline.errors import SetupError
from pipeline.loopback import PageRequest, PageResponse, serve_pages

Get = Callable[..., Awaitable[tuple[int, str]]]


async def served(folder: Path, look: Callable[[str, Get], Awaitable[Any]]) -> Any:
    """What `look` finds where the report of the run is served."""
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with aiohttp.ClientSession() as session:

        async def get(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
            async with session.request(method, url, headers=headers) as answer:
                return answer.status, await answer.text()

        watching = asyncio.create_task(awatch(folder, ready=address.set_result))
        await asyncio.wait({watching, address}, return_when=asyncio.FIRST_COMPLETED)
        try:
            return await look(await address, get)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def test_only_who_has_the_address_gets_the_page(tmp_path: Path) -> None:
    run_of(tmp_path, ["a fine day"])

    async def look(address: str, get: Get) -> None:
        root, port = address.rsplit("/", 2)[0], urlsplit(address).port
        assert address.startswith("http://127.0.0.1:")
        status, page = await get(address, Origin=root)
        assert (status, "refresh" in page, "<script" in page, "Complete" in page) == (200, False, False, True)
        assert (await get(f"http://127.0.0.1:{port}/"))[0] == 404
        assert (await get(f"{root}/wrong/"))[0] == 404
        assert (await get(f"{address}other"))[0] == 404
        assert (await get(address, Host="evil.example"))[0] == 403
        assert (await get(address, Host=f"evil.example:{port}"))[0] == 403
        assert (await get(address, Origin="http://evil.example"))[0] == 403
        assert (await get(address, Origin="null"))[0] == 403

    asyncio.run(served(tmp_path / "run", look))


def test_a_run_at_work_is_renewed_until_its_end(tmp_path: Path) -> None:
    go, asked = asyncio.Event(), asyncio.Event()

    async def waits(request: Request) -> Response:
        asked.set()
        await go.wait()
        return await model(request)

    async def program() -> None:
        settings = settings_of(tmp_path, ["a fine day"])
        running = asyncio.create_task(arun(settings, RunOptions(quiet=True, provider=waits)))
        await asked.wait()

        async def look(address: str, get: Get) -> None:
            page = (await get(address))[1]
            assert '<html lang="en" data-refresh="5">' in page
            assert '<noscript><meta http-equiv="refresh" content="5">' in page
            assert "Running" in page
            go.set()
            await running
            while "Complete" not in (page := (await get(address))[1]):
                await asyncio.sleep(0.05)
            assert "refresh" not in page

        await served(tmp_path / "run", look)

    asyncio.run(program())


def test_a_taken_port_is_named() -> None:
    async def answer(_asked: PageRequest) -> PageResponse:
        return PageResponse(b"")

    async def program() -> None:
        async with serve_pages(answer) as address:
            with pytest.raises(SetupError, match=r"--port \d+: cannot listen"):
                async with serve_pages(answer, port=urlsplit(address).port or 0):
                    pass

    asyncio.run(program())
