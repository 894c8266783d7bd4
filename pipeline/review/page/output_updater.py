"""Rewrites the run's files with the answers that people give on the page."""

import asyncio
import time

from pipeline.errors import LabelpipeError
from pipeline.review.reviewed_run import ReviewedRun
from pipeline.runner import rewrite

#: How many seconds must pass without an answer before the files are rewritten, and the pause as a multiple of the time
#: that this took last: a large file must not be rewritten all the time.
QUIET_S, REST = 3.0, 5.0


class OutputUpdater:
    """Rewrites the run's files with the answers when nobody has answered for a while."""

    def __init__(self, reviewed_run: ReviewedRun) -> None:
        self._run_dir = reviewed_run.run_dir
        # Mutable state: whether there is something to write, since when, and the duration and result of the last write.
        self._wake = asyncio.Event()
        self._answered_at = 0.0
        self._last_write_s = 0.0
        self._last: dict[str, str] = {"state": "unchanged", "told": ""}

    def on_answer(self) -> None:
        """Record that there is an answer that the files do not contain."""
        self._answered_at = time.monotonic()
        self._wake.set()

    def status(self) -> dict[str, str]:
        """Return the result of the last write: state and a sentence."""
        return dict(self._last)

    async def follow(self) -> None:
        """Write the files whenever there is something to write and nobody answers."""
        while True:
            await self._wake.wait()
            quiet_s = max(QUIET_S, REST * self._last_write_s)
            while (left := self._answered_at + quiet_s - time.monotonic()) > 0:  # noqa: ASYNC110 - it is a pause
                await asyncio.sleep(left)
            await self.write()

    async def write(self) -> None:
        """Write the files now, if there is something to write. If canceled, finishes them first."""
        if not self._wake.is_set():
            return
        self._wake.clear()
        writing = asyncio.create_task(self._write(), name="files are written")
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise

    async def _write(self) -> None:
        began_at = time.monotonic()
        try:
            done = await rewrite(self._run_dir)
            self._last = {"state": done.state, "told": done.message}
        except LabelpipeError as error:
            self._last = {"state": "waiting", "told": f"The files were not written: {error}"}
        self._last_write_s = time.monotonic() - began_at
