"""The page in a real browser: nothing runs, nothing is loaded, and it fits a screen, a phone and paper."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Chromium
from report.report_runs import HOSTILE, run_of

from pipeline.loopback import PageRequest, PageResponse, serve_pages
from pipeline.report import load_report_data, render
from pipeline.report.page import policy


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report with hostile records, whose file also has a pace to draw."""
    folder = tmp_path_factory.mktemp("browser")
    run_of(folder, [*HOSTILE, "refuse this"])
    return (folder / "run" / "report.html").as_uri()


def test_it_fits_and_is_text(chromium: Chromium, page: str) -> None:
    async def look(tab: Any) -> None:
        for width, scheme in itertools.product((1280, 390), ("light", "dark")):
            await tab.set_viewport_size({"width": width, "height": 900})
            await tab.emulate_media(color_scheme=scheme)
            assert await tab.evaluate("document.documentElement.scrollWidth") == width
            assert await tab.title() == "run – labeling report"
            assert await tab.get_by_text("<script>document.title", exact=False).first.is_visible()
            shown = [await chart.is_visible() for chart in await tab.locator("svg.chart.latency").all()]
            assert shown == ([True, False] if width > 620 else [False, True]), "one size of the two"
            ground = await tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(255, 255, 255)") == (scheme == "light")

    chromium.look(page, look)


def test_it_can_be_printed(chromium: Chromium, page: str, tmp_path: Path) -> None:
    async def look(tab: Any) -> None:
        await tab.pdf(path=str(tmp_path / "page.pdf"), format="A4")
        await tab.emulate_media(media="print", color_scheme="dark")
        assert await tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"

    chromium.look(page, look, scheme="dark")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_of_a_run_at_work_is_renewed_in_its_place(chromium: Chromium, tmp_path: Path) -> None:
    """What has the focus keeps it."""
    run_of(tmp_path, ["a fine day"])

    async def program() -> None:
        found = await load_report_data(tmp_path / "run")
        asked = 0

        async def answer(_asked: PageRequest) -> PageResponse:
            nonlocal asked
            asked += 1
            state = {**found.state, "labelled": asked}
            page = render(replace(found, state=state), refresh_s=0.05 if asked < 3 else 0)
            return PageResponse(page.encode(), policy=policy(is_live=True))

        async def look(tab: Any) -> None:
            await tab.locator("pre").last.focus()
            await tab.locator("dd.figure").first.filter(has_text="3").wait_for()
            assert await tab.evaluate("document.activeElement.tagName") == "PRE"
            assert not await tab.locator("#lost").is_visible()

        async with serve_pages(answer) as address:
            await asyncio.to_thread(chromium.look, address, look)

    asyncio.run(program())
