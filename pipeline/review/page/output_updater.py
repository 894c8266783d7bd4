"""Writes the run's files again with the answers that people give on the page."""

import asyncio
import time

from pipeline.errors import LabelpipeError
from pipeline.review.reviewed_run import ReviewedRun
from pipeline.runner import rewrite

#: How long nobody must have answered before the files are written again, in seconds; and of the time that takes, how
#: many times as long they are left alone: a large file must not be written all the time.
QUIET_S, REST = 3.0, 5.0


class OutputUpdater:
    """The run's files, which are written again with the answers when nobody has answered for a while."""

    def __init__(self, reviewed_run: ReviewedRun) -> None:
        self._run_dir = reviewed_run.run_dir
        # All state that changes: that there is something to write, since when, and what became of the last writing.
        self._wake = asyncio.Event()
        self._answered_at = 0.0
        self._last_write_s = 0.0
        self._last: dict[str, str] = {"state": "unchanged", "told": ""}

    def on_answer(self) -> None:
        """An answer has come that the files do not have."""
        self._answered_at = time.monotonic()
        self._wake.set()

    def status(self) -> dict[str, str]:
        """What became of the files: state and a sentence."""
        return dict(self._last)

    async def follow(self) -> None:
        """Write them whenever there is something to write and nobody answers."""
        while True:
            await self._wake.wait()
            quiet_s = max(QUIET_S, REST * self._last_write_s)
            while (left := self._answered_at + quiet_s - time.monotonic()) > 0:  # noqa: ASYNC110 - it is a pause
                await asyncio.sleep(left)
            await self.write()

    async def write(self) -> None:
        """Write them now, if there is something to write. Cancelled, it ends when they are whole."""
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
