"""Serves the report of an active run, updated on request."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.loopback import PageRequest, PageResponse, serve_pages
from pipeline.report.data import load_report_data
from pipeline.report.page import policy, render
from pipeline.store import RunDir
from pipeline.threads import in_daemon

#: The seconds between reloads of an active run's page, and the share of the time that may be spent on creating it:
#: reading a large ledger takes time, and viewing a run must not slow it down.
REFRESH_S, SHARE = 5.0, 0.2
LOOK_S = 1.0


async def watch(
    folder: Path, *, port: int = 0, ready: Callable[[str], None], ended: Callable[[], None] = lambda: None
) -> None:
    """Serve the report of a run until canceled. Raises SetupError if there is no run or the port is taken.

    `ready` receives the address to open; `ended` is called when the run has ended.
    """
    page = _Page(folder)
    await page.body()
    run_dir = RunDir(folder)
    async with serve_pages(page.answer, port=port) as address:
        ready(address)
        was_running = run_dir.is_running()
        while True:
            is_running = run_dir.is_running()
            if was_running and not is_running:
                ended()
            was_running = is_running
            await asyncio.sleep(LOOK_S)


class _Page:
    """The page, which is created again if it is requested and outdated."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Mutable state: the page, when it becomes outdated, and a lock while it is created.
        self._body = b""
        self._good_until = 0.0
        self._making = asyncio.Lock()

    async def answer(self, request: PageRequest) -> PageResponse:
        if request.path:
            return PageResponse(b"Not found.", kind="text/plain", status=404)
        return PageResponse(await self.body(), policy=policy(is_live=True))

    async def body(self) -> bytes:
        """Return the current page, or create a new one."""
        async with self._making:
            if time.monotonic() >= self._good_until:
                began_at = time.monotonic()
                report = await load_report_data(self._folder)
                refresh_s = max(REFRESH_S, (time.monotonic() - began_at) / SHARE) if report.state["running"] else 0
                page = await in_daemon(lambda: render(report, refresh_s=round(refresh_s)))
                self._body = page.encode(errors="replace")
                now = time.monotonic()
                self._good_until = now + max(LOOK_S, (now - began_at) / SHARE)
        return self._body
