"""The page in a real browser, by keyboard."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from browser import Chromium
from page_served import served
from review_runs import TOPICS, again, label_of, read, write_input

from pipeline import RunOptions

HOSTILE = [
    '<script>document.title = "owned"</script><img src=x onerror="document.title=1">',
    '=cmd|"/c calc"!A0',
    "../../../etc/passwd",
    "w" * 200_000,
    "\u05e9\u05dc\u05d5\u05dd \u202e right to left",
    "bell \x07 escape \x1b[31m",
]


async def _said(tab: Any, count: int) -> None:
    """Wait until so many answers are saved."""
    await tab.wait_for_function(
        "n => document.querySelector('#count').textContent.startsWith(`${n} of`) && "
        "document.querySelector('#saved').textContent !== 'Saving…'",
        arg=count,
    )


def test_twenty_records_by_keyboard(chromium: Chromium, folder: Path) -> None:
    with served(folder / "run", sample=20, blind=True, where="urgency > 0") as page:
        keys = [item["key"] for item in page.ask("state")[1]["items"]]

        async def look(tab: Any) -> None:
            for number, key in enumerate(keys):
                await tab.wait_for_function("key => document.querySelector('#key').textContent === key", arg=key)
                assert await tab.locator(".mark").count() == 0, "the model's label is not on the page yet"
                label = label_of(int(key[1:]))
                await tab.keyboard.press(str(TOPICS.index(label["topic"]) + 1))
                await tab.keyboard.press(str(label["urgency"]))
                if number == 0:
                    await _said(tab, 1)
                    await tab.keyboard.press("u")
                    await _said(tab, 0)
                    assert await tab.text_content("#key") == key
                    assert await tab.locator(".mark").count() == 2, "its label was seen"
                    await tab.keyboard.press("Enter")
                    assert await tab.is_visible("#alert")
                    await tab.keyboard.press("2")
                    assert await tab.text_content("#live") == "topic login. Now urgency.", "what a screen reader says"
                    await tab.keyboard.press("1")
            await tab.wait_for_selector("#learned:not([hidden])")
            assert "19 blind answers" in (await tab.text_content("#lessons") or "")

        chromium.look(page.address, look)
    # Nothing but keys, and each answer is in the files.
    rows = {row["id"]: row for row in read(folder / "run" / "labels.csv")}
    assert (rows[keys[0]]["topic"], rows[keys[0]]["urgency"]) == (TOPICS[1], "1")


def test_assisted_with_a_note_and_a_filter(chromium: Chromium, folder: Path) -> None:
    with served(folder / "run", sample=4) as page:
        first = page.record(0)["item"]["key"]

        async def look(tab: Any) -> None:
            await tab.wait_for_selector(".choice[aria-pressed=true]")
            await tab.keyboard.press("Enter")
            await _said(tab, 1)
            await tab.keyboard.press("?")
            await tab.keyboard.type("is a refund billing? <b>")
            await tab.keyboard.press("Enter")
            await _said(tab, 2)
            assert "do not measure" in (await tab.text_content("#estimate") or "")
            await tab.keyboard.press("f")
            await tab.keyboard.type(first)
            await tab.wait_for_function("key => document.querySelector('#key').textContent === key", arg=first)
            assert await tab.text_content("#matches") == "1 record found"
            await tab.keyboard.press("Escape")
            await tab.keyboard.press("l")
            await tab.wait_for_selector(".lesson")
            assert await tab.text_content(".noted") == "Note: is a refund billing? <b>"

        chromium.look(page.address, look)
        confirmed, unclear = page.record(0)["answer"], page.record(1)["answer"]
    assert (confirmed["blind"], confirmed["unclear"], set(confirmed["label"])) == (False, False, {"topic", "urgency"})
    assert (unclear["unclear"], unclear["label"]) == (True, {})


def test_hostile_records_are_text(chromium: Chromium, tmp_path: Path) -> None:
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "n", "text"], *([f"T{n}", n, text] for n, text in enumerate(HOSTILE))])
    again(tmp_path)
    with served(tmp_path / "run", sample=len(HOSTILE)) as page:
        keys = [item["key"] for item in page.ask("state")[1]["items"]]

        async def look(tab: Any) -> None:
            for key in keys:
                await tab.wait_for_function("key => document.querySelector('#key').textContent === key", arg=key)
                text = HOSTILE[int(key[1:])]
                told = text.replace("\x07", "\\x07").replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
                assert await tab.text_content(".text") == told
                assert await tab.get_attribute(".text", "dir") == "auto"
                for width, scheme in ((1280, "light"), (390, "dark")):
                    await tab.set_viewport_size({"width": width, "height": 900})
                    await tab.emulate_media(color_scheme=scheme)
                    assert await tab.evaluate("document.documentElement.scrollWidth") == width
                await tab.keyboard.press("ArrowRight")
            assert await tab.title() == "run – review"
            assert await tab.locator(".record script, .text img").count() == 0
            await tab.keyboard.press("h")
            assert await tab.is_visible("#keys")

        chromium.look(page.address, look)


def test_a_label_among_many_is_found_by_its_name(chromium: Chromium, tmp_path: Path) -> None:
    """The keys go on afterwards: they are not lost with the input that had the focus."""
    write_input(tmp_path, 2)
    topics = {"topic": [f"label {n}" for n in range(60)], "urgency": ["low", "high"]}
    labels = {"function": None, "labels": topics}
    again(tmp_path, RunOptions(quiet=True), task=labels, model={"base_url": "rehearsal"})
    with served(tmp_path / "run", sample=2) as page:

        async def look(tab: Any) -> None:
            await tab.wait_for_selector(".choice[aria-pressed=true]")
            await tab.keyboard.press(".")
            await tab.keyboard.type("label 44")
            await tab.keyboard.press("Enter")
            assert await tab.evaluate("document.activeElement.id") == "key"
            await tab.keyboard.press("2")
            await tab.keyboard.press("Enter")
            await _said(tab, 1)

        chromium.look(page.address, look)
        assert page.record(0)["answer"]["label"] == {"topic": "label 44", "urgency": "high"}


def test_an_answer_is_kept_until_the_server_has_it(chromium: Chromium, folder: Path) -> None:
    with served(folder / "run", sample=3, blind=True) as page:

        async def look(tab: Any) -> None:
            await tab.wait_for_selector(".choice")
            await tab.evaluate("""() => {
                const real = window.fetch;
                let times = 0;
                window.fetch = (path, ...how) => path === "answer" && times++ < 1
                    ? Promise.reject(new TypeError("gone")) : real(path, ...how);
            }""")
            await tab.keyboard.press("1")
            await tab.keyboard.press("1")
            await tab.wait_for_selector("#alert:not([hidden])")
            assert "1 answer not saved yet: labelpipe does not answer" in (await tab.text_content("#alert") or "")
            await _said(tab, 1)
            assert await tab.is_hidden("#alert")

        chromium.look(page.address, look)
        assert page.ask("state")[1]["counts"]["answered"] == 1


def test_no_key_is_lost_while_a_record_is_on_its_way(chromium: Chromium, folder: Path) -> None:
    """The second record is slow. Keys that come meanwhile are for it, also those that follow an undo at once."""
    with served(folder / "run", sample=5, blind=True) as page:

        async def look(tab: Any) -> None:
            await tab.wait_for_selector(".choice")
            await tab.evaluate("""() => {
                const real = window.fetch;
                records.clear();
                window.fetch = async (path, ...how) => {
                    if (path === "record?at=1") await new Promise((done) => { window.release = done; });
                    return real(path, ...how);
                };
            }""")
            for key in "1123":
                await tab.keyboard.press(key)
            await tab.evaluate("window.release()")
            await _said(tab, 2)
            for key in "u31":
                await tab.keyboard.press(key)
            await tab.wait_for_function("() => draw.counts.given === 3")

        chromium.look(page.address, look)
        labels = [page.record(at)["answer"]["label"] for at in (0, 1)]
        assert labels == [{"topic": "billing", "urgency": "1"}, {"topic": "other", "urgency": "1"}]
        assert page.record(2)["answer"] is None


def test_two_people_part_ways(chromium: Chromium, folder: Path) -> None:
    """Bob answers the second record while Ann is at the first one: Ann is sent to the middle of what is left."""
    with served(folder / "run", sample=12) as page, served(folder / "run", by="bob") as bob:
        keys = [item["key"] for item in page.ask("state")[1]["items"]]

        async def look(tab: Any) -> None:
            await tab.wait_for_selector(".choice[aria-pressed=true]")
            bob.say(1, 0)
            await tab.keyboard.press("Enter")
            await tab.wait_for_function("key => document.querySelector('#key').textContent === key", arg=keys[7])
            assert (await tab.text_content("#count") or "").startswith("2 of 12")
            await tab.keyboard.press("f")
            await tab.select_option("#filter", "answered")
            assert await tab.text_content("#matches") == "2 records found"

        chromium.look(page.address, look)
