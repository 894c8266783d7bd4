"""Serves the page of a draw to one person on this machine until that person ends the review."""

import asyncio
import getpass
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError
from pipeline.loopback import serve_pages
from pipeline.review.drawing import DrawOptions, draw_facts, find_or_make_draw
from pipeline.review.page.estimates import describe_scope, estimates
from pipeline.review.page.handlers import PageHandlers
from pipeline.review.page.media import MediaPreview
from pipeline.review.page.output_updater import OutputUpdater
from pipeline.review.page.reuse import reuse_files_of
from pipeline.review.page.session import ReviewSession
from pipeline.review.reviewed_run import load_reviewed_run
from pipeline.store import Ledger, open_reviews


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
    """Serve the page of a draw until the person ends the review there, or until canceled; return the facts.

    The draw is `draw`, or the one that was made with the same options before, or a new one; without options the last
    one. `ready` receives the facts with the `address` to open, `done` those at the end, even if canceled. Raises
    SetupError.
    """
    who = (by or _login_name()).strip()
    if not who:
        raise SetupError("name the reviewer: --by NAME")
    reviewed_run = await load_reviewed_run(run)
    stored_draw, items, is_continued = await find_or_make_draw(reviewed_run, options or DrawOptions(), draw)
    fingerprint: Mapping[str, Any] = (reviewed_run.run_dir.read_manifest() or {}).get("fingerprint") or {}
    reuse_files = await asyncio.to_thread(reuse_files_of, reviewed_run.run_dir.path)
    async with AsyncExitStack() as stack:
        reviews = stack.enter_context(open_reviews(reviewed_run.run_dir.path))
        ledger = await stack.enter_async_context(
            await Ledger.open(reviewed_run.run_dir.ledger.absolute(), read_only=True)
        )
        media_preview = MediaPreview(reviewed_run.run_dir.path, fingerprint)
        stack.push_async_callback(media_preview.close)
        session = ReviewSession(reviewed_run, stored_draw, items, reviews, who)
        await session.open(ledger)
        updater = OutputUpdater(reviewed_run)
        if await asyncio.to_thread(reviews.version) > reviewed_run.layout.corrected:
            updater.on_answer()  # answers from a review that was killed
        page = PageHandlers(session, media_preview, reuse_files, fingerprint, updater)
        facts = {**draw_facts(reviewed_run, stored_draw, items, None), "by": who, "continued": is_continued}
        del facts["items"], facts["file"]
        try:
            async with serve_pages(page.answer, port=port) as address:
                ready({**facts, "address": address, **session.counts()})
                await _wait_for_end(page, updater)
        finally:
            await updater.write()
            facts |= {
                **session.counts(),
                "estimates": estimates(session),
                "meant": describe_scope(stored_draw),
                "files": updater.status(),
            }
            done(facts)
    return facts


async def _wait_for_end(page: PageHandlers, updater: OutputUpdater) -> None:
    """Wait until the review is ended on the page, and meanwhile update the files with the answers."""
    async with asyncio.TaskGroup() as group:
        following = group.create_task(updater.follow(), name="files follow answers")
        await page.ended.wait()
        following.cancel()


def _login_name() -> str:
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return "reviewer"
