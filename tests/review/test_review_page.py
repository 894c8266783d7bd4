"""What the page asks for and sends, over real sockets: answers, blind and assisted, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from end_to_end.stage import Process, Project
from page_served import Served, served
from review_runs import TOPICS, again, answer, label_of, read, settings, write_input

from pipeline import Answer, Request, Response, RunOptions, ToolCall, Usage, areview_page, certify, quality, run
from pipeline.review.page import output_updater
from pipeline.store import read_reviews


def _model(key: str) -> int:
    return TOPICS.index(label_of(int(key[1:]))["topic"])


def test_only_who_has_the_address_gets_anything(folder: Path) -> None:
    with served(folder / "run", sample=5) as page:
        status, html = page.ask("")
        assert (status, b"<script>" in html) == (200, False), "no inline script, for the policy forbids it"
        state = page.ask("state")
        assert state[0] == 200
        assert page.ask("/")[0] == page.ask("/wrong/state")[0] == page.ask("other")[0] == 404
        assert page.ask("state", Host="evil.example")[0] == 403
        assert page.ask("state", Origin="http://evil.example")[0] == 403
        assert page.ask("answer", {"at": 0}, Origin="null")[0] == 403
        assert page.ask("undo")[0] == 405, "nothing is changed by a GET"
        assert page.ask("state", {})[0] == 405
        assert page.ask("answer", {"at": 0, "note": "x" * 17_000_000})[0] == 413
        assert page.ask(urlsplit(page.address).path.rstrip("/"))[0] == 308, "its script would not be found otherwise"
        assert page.ask("", method="HEAD") == (200, b"")
        for wrong in ("-1", "5", "1e9", "x", "9999999999"):
            assert page.ask(f"record?at={wrong}")[0] == 422
        assert page.ask("media/0/0")[0] == page.ask("media/../0")[0] == 404


def test_a_blind_answer_comes_before_the_label_is_shown(folder: Path) -> None:
    with served(folder / "run", sample=8, blind=True) as page:
        assert page.ask("state")[1]["items"][0]["label"] == {}
        before = page.record(0)
        assert (before["model"], before["begin"], before["answer"]) == (None, {}, None)
        model = _model(before["item"]["key"])
        told = page.say(0, (model + 1) % 3)
        assert told["model"]["topic"] == TOPICS[model]
        assert told["answer"]["blind"]
        assert told["estimates"][0] | {"more": 0} == {
            "field": "topic", "n": 1, "right": 0, "mean": 0.0, "low": 0.0, "high": quality.wilson(0, 1)[1], "more": 0,
            "left": 7,
        }  # fmt: skip
        # Taken back and given again, it is no longer blind: the label was seen.
        assert page.ask("undo", {})[1]["at"] == 0
        assert not page.say(0, model)["answer"]["blind"]
        assert page.ask("undo", {})[1]["at"] == 0
        assert page.ask("undo", {})[1]["at"] is None
    with served(folder / "run", sample=8) as page:
        assert page.record(0)["begin"]["topic"] == model, "assisted: the label is filled in"
        page.say(0, model)
    with served(folder / "run", blind=True, sample=20) as page:
        at = [item["key"] for item in page.ask("state")[1]["items"]].index(before["item"]["key"])
        assert page.record(at)["seen"], "answered in another draw"
        assert not page.say(at, model)["answer"]["blind"]


def test_the_estimate_is_qualitys(folder: Path) -> None:
    """A draw with several probabilities: each answer counts by the inverse of its probability."""
    with served(folder / "run", uncertain=5, sample=10, blind=True) as page:
        state = page.ask("state")[1]
        hits = []
        for at, item in enumerate(state["items"]):
            right = at % 3 != 0
            hits.append(right)
            told = page.say(at, (_model(item["key"]) + (not right)) % 3)
        reviews = read_reviews(folder / "run")
        assert reviews is not None
        with reviews:
            chances = [item.probability for item in reviews.items_of(1)]
        expected = quality.weighted_mean([float(hit) for hit in hits], chances)
        [topic, urgency] = told["estimates"]
        assert (topic["mean"], topic["low"], topic["high"]) == pytest.approx(
            (expected.mean, expected.low, expected.high)
        )
        assert (topic["n"], topic["left"], urgency["n"]) == (len(hits), 0, 0)
    [lesson, _] = _learned(folder)
    assert sum(row["n"] for row in lesson["differing"]) == hits.count(False)


def _learned(folder: Path) -> Any:
    with served(folder / "run", draw=1) as page:
        return page.ask("learned")[1]["fields"]


def test_answers_reach_the_files_and_are_continued(folder: Path) -> None:
    with served(folder / "run", sample=6) as page:
        key = page.record(0)["item"]["key"]
        wrong = (_model(key) + 1) % 3
        page.say(0, wrong)
        page.say(0, wrong)  # sent twice, kept once
        page.say(1, unclear=True, note="=cmd")
        status, told = page.ask("answer", {"at": 2, "mark": page.record(2)["mark"], "fields": {"topic": 7}})
        assert (status, told["error"]) == (422, "topic: there is no such choice")
        assert page.ask("answer", {"at": 2, "mark": "old", "fields": {"topic": 1}})[0] == 422
        assert page.ask("answer", {"at": 2, "mark": page.record(2)["mark"], "fields": {}})[0] == 422
    assert {row["id"]: row["topic"] for row in read(folder / "run" / "labels.csv")}[key] == TOPICS[wrong]
    with served(folder / "run", sample=6, by="bob") as page:
        state = page.ask("state")[1]
        assert (state["draw"], state["counts"]["answered"], state["items"][0]["by"]) == (1, 2, "ann")
        assert page.ask("undo", {})[1]["at"] is None, "an answer of somebody else"
        page.end()
    assert (page.facts["answered"], page.facts["given"], page.facts["continued"]) == (2, 0, True)
    with served(folder / "run", sample=6, seed=1) as page:
        assert page.ask("state")[1]["draw"] == 2


def test_a_review_that_is_broken_off_while_it_writes_the_files_writes_them_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended before them. What still wrote was cut off by the end of the loop, and nobody was told."""
    monkeypatch.setattr(output_updater, "QUIET_S", 0.0)

    async def main() -> tuple[str, set[str]]:
        addresses: list[str] = []
        review = asyncio.create_task(areview_page(folder / "run", sample=1, by="ann", ready=addresses.append))
        while not addresses:
            await asyncio.sleep(0)
        page = Served(addresses[0])
        told = await asyncio.to_thread(page.say, 0, 2)
        while "files are written" not in _tasks():
            await asyncio.sleep(0)
        review.cancel()
        await asyncio.wait([review])
        return told["item"]["key"], _tasks()

    key, left = asyncio.run(main())
    assert left == {"main"}
    assert {row["id"]: row["topic"] for row in read(folder / "run" / "labels.csv")}[key] == TOPICS[2]


def _tasks() -> set[str]:
    return {"main" if task is asyncio.current_task() else task.get_name() for task in asyncio.all_tasks()}


def test_a_record_without_a_label_gets_one(folder: Path) -> None:
    with served(folder / "run", where="status == 'rejected'", sample=2) as page:
        record = page.record(0)
        fields = {"topic": 2, "urgency": 0}
        status, told = page.ask("answer", {"at": 0, "mark": record["mark"], "fields": fields})
        assert (status, told["error"]) == (422, "The record has no label, so it needs a value for confidence too.")
        assert (
            "confidence"
            in page.ask("answer", {"at": 0, "mark": record["mark"], "fields": {**fields, "confidence": "much"}})[1][
                "error"
            ]
        )
        body = {"at": 0, "mark": record["mark"], "fields": {**fields, "confidence": "0,5"}}
        assert page.ask("answer", body)[1]["answer"]["label"] == {"topic": "other", "urgency": "1", "confidence": "0.5"}
    rows = {row["id"]: row for row in read(folder / "run" / "labels.csv")}
    assert (rows[record["item"]["key"]]["topic"], rows[record["item"]["key"]]["confidence"]) == ("other", "0.5")


def test_a_text_goes_back_as_it_was(tmp_path: Path) -> None:
    """The page spells control characters out; what is sent back untouched is the label as it was."""
    write_input(tmp_path, 2)

    async def says(_request: Request) -> Response:
        return Response(Answer((ToolCall("c", "set_label", '{"reason": "a bell: \\u0007"}'),)), Usage(10, 5), "model")

    again(tmp_path, RunOptions(provider=says, quiet=True), task={"function": None, "labels": {"reason": "text"}})
    with served(tmp_path / "run", sample=2) as page:
        record = page.record(0)
        assert record["begin"] == {"reason": "a bell: \\x07"}
        told = page.ask("answer", {"at": 0, "mark": record["mark"], "fields": record["begin"]})[1]
        assert (told["counts"]["confirmed"], told["estimates"][0]["right"]) == (1, 1)
        body = {"at": 1, "mark": page.record(1)["mark"], "fields": {"reason": " A  BELL: \u0007"}}
        assert page.ask("answer", body)[1]["estimates"][0]["right"] == 2, "case and white space are no difference"


def test_a_certificate_goes_on_from_a_blind_draw(folder: Path) -> None:
    """Its page has the answers to the draw of the review, and asks for the others only."""
    with served(folder / "run", sample=5, blind=True) as page:
        for at in range(4):
            page.say(at, 0)
    found = certify(folder / "run", error=0.2, confidence=0.8, column="topic")
    assert (found["extends"], found["answered"]) == (1, 4)
    with served(folder / "run", draw=found["draw"]) as page:
        counts = page.ask("state")[1]["counts"]
    assert (counts["records"], counts["answered"], counts["blind_answers"]) == (found["drawn"], 4, 4)


def test_two_reviewers_at_once_share_a_draw(folder: Path) -> None:
    with served(folder / "run", sample=6, blind=True) as ann, served(folder / "run", blind=True, by="bob") as bob:
        ann.say(0, 0)
        item = bob.record(0)
        assert (item["item"]["by"], item["item"]["label"], item["answer"]) == (None, {}, None), "not read yet"
        told = bob.say(1, 0)
        assert [one["by"] for one in told["items"]] == ["ann", "bob", None, None, None, None]
        assert told["items"][0]["label"] == {}, "what bob has not answered stays blind for bob"
        assert bob.record(0)["model"] is None
        assert bob.ask("learned")[1]["counts"]["answered"] == 2


def test_a_record_becomes_an_example_and_gold(folder: Path) -> None:
    with served(folder / "run", sample=3) as page:
        key = page.record(0)["item"]["key"]
        assert page.ask("example", {"at": 0})[0] == 422, "nobody has given it a label"
        page.say(0, 1)
        for what, file in (("example", "examples.jsonl"), ("gold", "gold.csv")):
            first, second = page.ask(what, {"at": 0})[1]["told"], page.ask(what, {"at": 0})[1]["told"]
            assert ("Added" in first, "already" in second) == (True, True)
            path = folder / "run" / file  # the run was started from Python: there is no config to be beside
            assert str(path) in first
        page.say(0, 2)
        assert "another label" in page.ask("gold", {"at": 0})[1]["error"]
        assert [part["title"] for part in page.ask("guideline")[1]["parts"]] == ["Prompt"]
    example = json.loads((folder / "run" / "examples.jsonl").read_bytes())
    assert example["label"]["topic"] == TOPICS[1]
    assert set(example) == {"text", "label"}
    [gold] = read(folder / "run" / "gold.csv")
    assert (gold["id"], gold["topic"]) == (key, TOPICS[1])


def test_a_record_that_has_changed_is_looked_at_again(tmp_path: Path) -> None:
    write_input(tmp_path, 5)
    again(tmp_path)
    with served(tmp_path / "run", sample=5) as page:
        mark = page.record(0)["mark"]
        (tmp_path / "in.csv").write_text((tmp_path / "in.csv").read_text().replace("=text", "=other text"))
        again(tmp_path, RunOptions(provider=answer, quiet=True, relabel=True))
        status, told = page.ask("answer", {"at": 0, "mark": mark, "fields": {"topic": 1}})
        assert status == 422
        assert "changed in the meantime" in told["error"]


CONFIG = """
[input]
path = "in.jsonl"
key = "id"
[output]
dir = "run"
[model]
name = "model"
[limits]
stop_rejected = 0
[task]
prompt = "{{ title }}{{ image(picture) }}"
examples_file = "shown.jsonl"
[task.media]
root = "pictures"
[task.labels]
topic = ["billing", "login", "other"]
"""


def test_other_labels_under_an_open_page(folder: Path) -> None:
    """A choice of the page is a place among the labels: where these have changed, it is asked for anew."""
    function = json.loads(json.dumps(settings(folder).model_dump()["task"]["function"]))
    function["parameters"]["properties"]["topic"]["enum"] = ["account", *TOPICS]
    with served(folder / "run", sample=5) as page:
        page.say(0, 1)
        options = RunOptions(provider=answer, quiet=True, relabel=True, corrections="keep")
        again(folder, options, task={"function": function})
        body = {"at": 1, "mark": page.record(1)["mark"], "fields": {"topic": 1}}
        status, told = page.ask("answer", body)
        assert (status, "Load the page again" in told["error"]) == (422, True)
        state = page.ask("state")[1]
        assert [one["text"] for one in state["fields"][0]["choices"]] == ["account", *TOPICS]
        assert state["items"][0]["label"]["topic"] == ["login"]
        assert page.say(1, 1)["answer"]["label"]["topic"] == "billing"


def test_pictures_come_from_the_runs_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that calls itself a picture, and a path that leads elsewhere, are told about and not sent."""
    monkeypatch.chdir(tmp_path)
    picture = next((Path(__file__).parents[2] / "data" / "shapes").glob("*.png")).read_bytes()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "good.png").write_bytes(picture)
    (tmp_path / "pictures" / "page.png").write_text("<html><script>alert(1)</script></html>")
    names = ["pictures/good.png", "pictures/page.png", "/etc/hostname"]
    lines = [json.dumps({"id": f"P{n}", "title": "a shape", "picture": name}) for n, name in enumerate(names)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    (tmp_path / "run.toml").write_text(CONFIG)
    (tmp_path / "shown.jsonl").write_text("")

    async def says(_request: Request) -> Response:
        return Response(Answer((ToolCall("c", "set_label", '{"topic": "other"}'),)), Usage(10, 5), "model")

    run("run.toml", RunOptions(provider=says, quiet=True))
    monkeypatch.chdir("/")  # paths are those of where the run was started
    with served(tmp_path / "run", where="title == 'a shape'") as page:
        places = {item["key"]: at for at, item in enumerate(page.ask("state")[1]["items"])}
        good, html, elsewhere = (page.record(places[f"P{n}"]) for n in range(3))
        assert [text["name"] for text in good["texts"]] == ["title"], "the path is no text to be read"
        assert [one["kind"] for one in good["media"]] == ["image"]
        assert page.ask(good["media"][0]["url"]) == (200, picture)
        for record in (html, elsewhere):
            [told] = record["media"]
            assert (told["kind"], told["told"].startswith("This cannot be shown")) == ("text", True)
            assert page.ask(told["url"])[0] == 404
        page.say(places["P0"], 1)
        assert str(tmp_path / "shown.jsonl") in page.ask("example", {"at": places["P0"]})[1]["told"]
    assert json.loads((tmp_path / "shown.jsonl").read_text())["label"] == {"topic": "login"}


def _opened(process: Process) -> Served:
    """The page that a command serves."""
    for line in process.popen.stdout or ():
        if found := re.search(r"http://\S+/", line):
            return Served(found[0])
    raise AssertionError(process.wait())


def test_a_killed_review_has_each_answer_that_was_saved(folder: Path) -> None:
    user = Project(folder)
    process = user.start("review", "run", "--sample", "3", "--by", "ann", "--no-browser")
    key = _opened(process).say(0, 1)["item"]["key"]
    process.kill()
    again_at_work = user.start("review", "run", "--sample", "3", "--by", "ann", "--no-browser")
    page = _opened(again_at_work)
    assert page.record(0)["answer"]["label"] == {"topic": TOPICS[1]}
    page.say(1, 2)
    again_at_work.signal(signal.SIGINT)
    done = again_at_work.wait().expect(0)
    assert "1 answer of ann to draw 1." in done.out
    assert "2 of 3 answered" in done.out
    topics = {row["id"]: row["topic"] for row in read(folder / "run" / "labels.csv")}
    assert topics[key] == TOPICS[1], "the second command has written what the first one took"
