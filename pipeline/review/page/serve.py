"""The page of a draw, served to one person on this machine until that person has done."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import LabelpipeError, SetupError
from pipeline.loopback import serve_pages
from pipeline.review.draw_lookup import find_or_make_draw
from pipeline.review.drawing import DrawOptions, draw_facts
from pipeline.review.page.estimates import describe_scope, estimates
from pipeline.review.page.handlers import PageHandlers
from pipeline.review.page.media import MediaPreview
from pipeline.review.page.reuse import reuse_files_of
from pipeline.review.page.session import ReviewSession
from pipeline.review.reviewed_run import ReviewedRun, load_reviewed_run
from pipeline.runner import rewrite
from pipeline.store import Ledger, open_reviews

#: How long nobody must have answered before the files are written again, in seconds; and of the time that takes, how
#: many times as long they are left alone: a large file must not be written all the time.
QUIET_S, REST = 3.0, 5.0


async def review_page(
    run: str | Path | None,
    options: DrawOptions | None = None,
    *,
    draw: int | None = None,
    by: str | None = None,
    port: int = 0,
    ready: Callable[[Mapping[str, Any]], None] = lambda _: None,
    done: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Serve the page of a draw until the person ends the review on it, or until cancelled; what came of it.

    The draw is `draw`, or the one that was made with the same options before, or a new one; without options the last
    one. `ready` gets the facts with the `address` to open, `done` those at the end, also where it was cancelled. Raises
    SetupError.
    """
    who = (by or _login()).strip()
    if not who:
        raise SetupError("name the reviewer: --by NAME")
    found = await load_reviewed_run(run)
    made, items, was_there = await find_or_make_draw(found, options or DrawOptions(), draw)
    fingerprint: Mapping[str, Any] = (found.run_dir.read_manifest() or {}).get("fingerprint") or {}
    places = await asyncio.to_thread(reuse_files_of, found.run_dir.path)
    async with AsyncExitStack() as stack:
        reviews = stack.enter_context(open_reviews(found.run_dir.path))
        ledger = await stack.enter_async_context(await Ledger.open(found.run_dir.ledger.absolute(), read_only=True))
        showing = MediaPreview(found.run_dir.path, fingerprint)
        stack.push_async_callback(showing.close)
        desk = ReviewSession(found, made, items, reviews, who)
        await desk.open(ledger)
        files = _OutputUpdater(found)
        if await asyncio.to_thread(reviews.version) > found.layout.corrected:
            files.note()  # what a review that was killed had taken
        page = PageHandlers(desk, showing, places, fingerprint, files)
        facts = {**draw_facts(found, made, items, None), "by": who, "continued": was_there}
        del facts["items"], facts["file"]
        try:
            async with serve_pages(page.answer, port=port) as address:
                ready({**facts, "address": address, **desk.counts()})
                await _wait_for_end(page, files)
        finally:
            await files.write()
            facts |= {
                **desk.counts(),
                "estimates": estimates(desk),
                "meant": describe_scope(made),
                "files": files.told(),
            }
            done(facts)
    return facts


async def _wait_for_end(page: PageHandlers, files: _OutputUpdater) -> None:
    """Wait until the review is ended on the page; meanwhile the files follow the answers."""
    async with asyncio.TaskGroup() as group:
        following = group.create_task(files.follow(), name="files follow answers")
        await page.ended.wait()
        following.cancel()


def _login() -> str:
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return "reviewer"


class _OutputUpdater:
    """The run's files, which are written again with the answers when nobody has answered for a while."""

    def __init__(self, found: ReviewedRun) -> None:
        self._run_dir = found.run_dir
        # All state that changes: that there is something to write, since when, and what became of the last writing.
        self._wake = asyncio.Event()
        self._answered_at = 0.0
        self._took_s = 0.0
        self._last: dict[str, str] = {"state": "unchanged", "told": ""}

    def note(self) -> None:
        """An answer has come that the files do not have."""
        self._answered_at = time.monotonic()
        self._wake.set()

    def told(self) -> dict[str, str]:
        """What became of the files: state and a sentence."""
        return dict(self._last)

    async def follow(self) -> None:
        """Write them whenever there is something to write and nobody answers."""
        while True:
            await self._wake.wait()
            quiet_s = max(QUIET_S, REST * self._took_s)
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
            self._last = {"state": done.state, "told": done.told}
        except LabelpipeError as error:
            self._last = {"state": "waiting", "told": f"The files were not written: {error}"}
        self._took_s = time.monotonic() - began_at
