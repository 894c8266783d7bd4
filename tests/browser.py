"""Debian's Chromium by Playwright, for tests of our pages: one browser for all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

PROGRAM = Path("/usr/bin/chromium")
#: Without them Chromium tries to reach hosts of its own, and, as root, does not start. With the last ones it starts no
#: process that draws in the GPU's place, and none for a page that may come next.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-software-rasterizer", "--disable-features=SpareRendererForSitePerProcess",
)  # fmt: skip
_T = TypeVar("_T")


class Chromium:
    """A browser in a thread with a loop of its own: Playwright's plain form leaves its loop in the tests' thread."""

    def __init__(self) -> None:
        from playwright.async_api import async_playwright

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chromium", daemon=True)
        self._thread.start()
        self._context = async_playwright()
        self._browser: Any = self._do(self._launch())

    async def _launch(self) -> Any:
        playwright = await self._context.start()
        return await playwright.chromium.launch(executable_path=str(PROGRAM), args=list(FLAGS))

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    def look(self, address: str, look: Callable[[Any], Awaitable[_T]], *, scheme: str = "light") -> _T:
        """What `look` finds on the page, in a fresh context. A page that asks another machine, or breaks, fails."""
        return self._do(self._look(address, look, scheme))  # type: ignore[no-any-return]

    async def _look(self, address: str, look: Callable[[Any], Awaitable[_T]], scheme: str) -> _T:
        context = await self._browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
        wrong: list[str] = []
        try:
            page = await context.new_page()
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
            page.on("request", lambda request: wrong.append(request.url) if not _is_here(request.url) else None)
            await page.goto(address)
            found = await look(page)
        finally:
            await context.close()
        assert wrong == []
        return found

    def close(self) -> None:
        """End the browser and its thread."""
        self._do(self._browser.close())
        self._do(self._context.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _is_here(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:", "http://localhost:"))
