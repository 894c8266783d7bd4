"""What people said stays, whatever is asked again: retry, replay, --relabel, another prompt, a changed input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from review_runs import COUNT, TOPICS, again, answer, do, label_of, labelled_run, read, settings, write, write_input

from pipeline import Answer, Request, Response, RunOptions, ToolCall, Usage, replay, verify
from pipeline.errors import LabelpipeError
from pipeline.review import take_answers
from pipeline.store import open_reviews

PROMPT = {"prompt": "Another prompt: {{ text }}"}


def correct(folder: Path, **topics: str) -> None:
    rows = [{"id": key, "topic": topic, "urgency": "1", "confidence": "1"} for key, topic in topics.items()]
    do(take_answers(folder / "run", write(folder / "back.csv", rows), by="ann"))


def topics(folder: Path) -> dict[str, str]:
    return {row["id"]: row["topic"] for row in read(folder / "run" / "labels.csv")}


def asking(asked: list[str], topic: str = "other") -> Any:
    """A model that gives every record the same topic, and notes what it was asked."""

    async def say(request: Request) -> Response:
        asked.append(request.record.key)
        label = {"topic": topic, "urgency": 2, "confidence": 0.5}
        return Response(Answer((ToolCall("c", "set_label", json.dumps(label)),)), Usage(10, 5), "model")

    return say


def test_retry_asks_for_no_record_that_a_person_has_labelled(folder: Path) -> None:
    correct(folder, T007="login")
    asked: list[str] = []
    again(folder, RunOptions(provider=asking(asked), quiet=True, retry=True))
    assert sorted(asked) == [f"T{n:03}" for n in range(COUNT) if n % 10 == 7 and n != 7]
    assert (topics(folder)["T007"], topics(folder)["T017"]) == ("login", "other")
    assert verify(folder / "run").ok


def test_replay_keeps_a_correction(folder: Path) -> None:
    correct(folder, T000="login")
    replay(settings(folder))
    assert topics(folder)["T000"] == "login"
    report = verify(folder / "run")
    assert report.ok
    assert "1 correction, all in the rows." in str(report)


def test_relabel_asks_what_becomes_of_corrections(folder: Path) -> None:
    """Nothing is sent before that is said; kept, they win over the new labels, and dropped, they are still there."""
    correct(folder, T000="login", T007="other")
    asked: list[str] = []
    options: dict[str, Any] = {"provider": asking(asked), "quiet": True, "relabel": True}
    with pytest.raises(LabelpipeError, match=r"--relabel would ask again for 2 records that people have corrected"):
        again(folder, RunOptions(**options), task=PROMPT)
    assert asked == []
    again(folder, RunOptions(**options, corrections="keep"), task=PROMPT)
    assert len(asked) == COUNT
    assert (topics(folder)["T000"], topics(folder)["T001"], len(topics(folder))) == ("login", "other", COUNT)
    assert verify(folder / "run").ok
    again(folder, RunOptions(**options, corrections="drop"), task={"prompt": "A third one: {{ text }}"})
    assert topics(folder)["T000"] == "other"
    with open_reviews(folder / "run") as reviews:
        assert reviews.corrections() == {}
        assert [one.new["topic"] for one in reviews.answers() if one.new] == ["login", "other"]
    report = verify(folder / "run")
    assert report.ok
    assert "corrections" not in str(report)


def test_a_correction_follows_a_record_without_a_name_and_ends_with_its_text(tmp_path: Path) -> None:
    """Lines are added above: every record has another place. One of them has another text since."""
    labelled_run(tmp_path, input={"key": None})
    rows = read(tmp_path / "run" / "labels.csv")
    rows[3]["topic"] = mine = next(topic for topic in TOPICS if topic != rows[3]["topic"])
    rows[5]["topic"] = next(topic for topic in TOPICS if topic != rows[5]["topic"])
    do(take_answers(tmp_path / "run", write(tmp_path / "edited.csv", rows), by="ann"))
    lines = (tmp_path / "in.csv").read_text().splitlines(keepends=True)
    changed = lines[6].replace("text 5", "text 5 is another now")
    (tmp_path / "in.csv").write_text("".join([lines[0], "T900,900,new\n", *lines[1:6], changed, *lines[7:]]))
    asked: list[str] = []
    summary = again(tmp_path, RunOptions(provider=asking(asked), quiet=True, relabel=True), input={"key": None})
    assert len(asked) == 2
    assert "2 corrections, 1 in the rows; " in summary.notes[-1]
    assert (topics(tmp_path)["T003"], topics(tmp_path)["T005"], topics(tmp_path)["T900"]) == (mine, "other", "other")
    report = verify(tmp_path / "run")
    assert report.ok
    assert "2 corrections, 1 in the rows; " in str(report)


def test_a_reviewer_at_work_during_the_run_loses_nothing(tmp_path: Path) -> None:
    """Answers come while records are asked: those to written rows, and one to a record that is not answered yet."""
    write_input(tmp_path)
    came: list[dict[str, Any]] = []

    async def take(rows: list[dict[str, Any]]) -> None:
        came.append(await take_answers(tmp_path / "run", write(tmp_path / "back.csv", rows), by="ann"))

    async def say(request: Request) -> Response:
        if request.record.key == "T080" and not came:
            await take([{"id": "T001", "topic": "other"}, {"id": "T004", "topic": "other"}])
            # labels.csv does not have them yet: a copy of it takes nothing back.
            copy = read(tmp_path / "run" / "labels.csv")
            await take([{**row, "topic": "other" if row["id"] == "T010" else row["topic"]} for row in copy])
        return await answer(request)

    # One at a time: the records before are in the ledger by then.
    again(tmp_path, RunOptions(provider=say, quiet=True), limits={"concurrency": 1, "max_repairs": 0})
    assert [(facts["files"], facts["corrected"], facts["outdated"]) for facts in came] == [
        ("at_work", 2, 0),
        ("at_work", 1, 2),
    ]
    assert {topics(tmp_path)[key] for key in ("T001", "T004", "T010")} == {"other"}
    assert topics(tmp_path)["T013"] == label_of(13)["topic"]
    report = verify(tmp_path / "run")
    assert report.ok
    assert "3 corrections, all in the rows." in str(report)


def test_an_answer_in_the_last_moment_of_a_session_is_in_the_files(folder: Path) -> None:
    """The session has written its files, and still holds its lock: the review leaves them to it."""
    came: list[Any] = []

    async def after(_: Any) -> tuple[str, str]:
        rows = [{"id": "T000", "topic": "login"}]
        came.append(await take_answers(folder / "run", write(folder / "back.csv", rows), by="ann"))
        return "report", "report.html"

    again(folder, RunOptions(provider=answer, quiet=True, after=after))
    assert came[0]["files"] == "at_work"
    assert topics(folder)["T000"] == "login"
    assert "1 correction, all in the rows." in str(verify(folder / "run"))


def test_what_a_person_has_decided_needs_no_review(tmp_path: Path) -> None:
    """Each record gets two votes that differ, so that all of them need a review; and the summary counts with it."""
    asked: list[str] = []

    async def say(request: Request) -> Response:
        label = {"topic": TOPICS[asked.count(request.record.key)], "urgency": 1, "confidence": 1}
        asked.append(request.record.key)
        return Response(Answer((ToolCall("c", "set_label", json.dumps(label)),)), Usage(10, 5), "model")

    write_input(tmp_path, 3)
    again(tmp_path, RunOptions(provider=say, quiet=True), quality={"votes": 2})
    assert [row["needs_review"] for row in read(tmp_path / "run" / "labels.csv")] == ["true"] * 3
    correct(tmp_path, T001="login")
    assert [row["needs_review"] for row in read(tmp_path / "run" / "labels.csv")] == ["true", "false", "true"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["votes"]["needs_review"] == 2
    assert summary["labels"]["topic"]["login"] >= 1
    assert verify(tmp_path / "run").ok


def test_a_label_that_is_named_as_the_column_of_reviewers_is_refused(tmp_path: Path) -> None:
    write_input(tmp_path)
    task = {"function": None, "labels": {"reviewed": ["yes", "no"]}}
    with pytest.raises(LabelpipeError, match="rename the label"):
        again(tmp_path, output={"reviewed": True}, task=task)


def test_the_column_of_reviewers_is_written_where_it_is_asked_for(folder: Path) -> None:
    correct(folder, T000="login")
    again(folder, output={"reviewed": True})
    rows = read(folder / "run" / "labels.csv")
    assert [row["id"] for row in rows if row["reviewed"] == "ann"] == ["T000"]
    assert {row["reviewed"] for row in rows[1:]} == {""}
    assert verify(folder / "run").ok
