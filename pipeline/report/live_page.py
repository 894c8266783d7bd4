"""The report of a run at work, made anew as it is asked for."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.loopback import PageRequest, PageResponse, serve_pages
from pipeline.report.data import load_report_data
from pipeline.report.page import policy, render
from pipeline.store import RunDir
from pipeline.threads import in_daemon

#: How often the page of a run at work loads itself again, and the share of the time that may go into making it: a large
#: ledger takes its time to be read, and the run must not be slowed down by being watched.
REFRESH_S, SHARE = 5.0, 0.2
LOOK_S = 1.0


async def watch(
    folder: Path, *, port: int = 0, ready: Callable[[str], None], ended: Callable[[], None] = lambda: None
) -> None:
    """Serve the report of a run until cancelled. Raises SetupError where there is no run, or the port is taken.

    `ready` is told the address to open, `ended` that the run has ended.
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
    """The page, which is made again when somebody asks for it and it is old."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # All state that changes: the page, when it is old, and that it is being made.
        self._body = b""
        self._good_until = 0.0
        self._making = asyncio.Lock()

    async def answer(self, request: PageRequest) -> PageResponse:
        if request.path:
            return PageResponse(b"Not found.", kind="text/plain", status=404)
        return PageResponse(await self.body(), policy=policy(is_live=True))

    async def body(self) -> bytes:
        """The page as it is, or a new one."""
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
