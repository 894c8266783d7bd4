"""`labelpipe review` as a command; killed at any moment, it has taken all of a file or nothing."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

import pytest
from end_to_end.stage import Project
from review_runs import TOPICS, labelled_run, read, write

from pipeline import verify
from pipeline.store import open_reviews

SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
KILLS = 4 * int(os.environ.get("CHAOS_ROUNDS", "1"))


def test_a_draw_goes_out_and_comes_back(folder: Path) -> None:
    user = Project(folder)
    done = user.do("review", "run", "--sample", "4", "--blind", "--to", "draw.csv").expect(0)
    assert "Draw 1: 4 of 81 records, seed 0, blind" in done.out
    rows = read(folder / "draw.csv")
    rows[0]["topic"] = "login"
    write(folder / "draw.csv", rows)
    facts = user.do("review", "run", "--from", "draw.csv", "--by", "ann", "--json").expect(0).json
    assert (facts["answers"], facts["unanswered"], facts["by"]) == (1, 3, "ann")
    assert user.do("show", rows[0]["id"]).expect(0).out.startswith(rows[0]["id"])  # of the latest run here
    assert "run is a run: name a record of it too" in user.do("show", "run").expect(2).err
    assert "got 3 words" in user.do("show", "run", "T004", "T005").expect(2).err
    assert "taken before" in user.do("review", "run", "--from", "draw.csv", "--by", "ann").expect(0).out
    found = user.do("review", "run", "--per-class", "1", "--to", "two.jsonl", "--json").expect(0).json
    assert [json.loads(line)["id"] for line in (folder / "two.jsonl").read_text().splitlines()] == [
        item["key"] for item in found["items"]
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "choose records"),
        (["--draw", "3"], "this run has no draw yet"),
        (["--to", "draw.csv"], "choose records"),
        (["--from", "draw.csv"], "--by NAME"),
        (["--from", "no.csv", "--by", "ann"], "there is no such file"),
        (["--from", "no.csv", "--by", "ann", "--sample", "3"], "--from makes no new draw"),
        (["--draw", "3", "--sample", "3"], "--draw makes no new draw"),
        (["--sample", "3", "--to", "draw.xlsx"], "choose a name that ends in .csv"),
    ],
)
def test_what_is_missing_is_told(folder: Path, words: list[str], message: str) -> None:
    assert message in Project(folder).do("review", "run", *words).expect(2).err


@pytest.mark.chaos
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_kill_loses_no_answer_and_leaves_no_half_file(tmp_path: Path) -> None:
    """300 answers each time, killed at random moments: while they are taken, and while the files are written."""
    dice, again = random.Random(SEED), f"repeat with CHAOS_SEED={SEED}"
    labelled_run(tmp_path, count=300)
    user, before, took_s = Project(tmp_path), 0, 0.0
    rows = [{"id": f"T{n:03}", "urgency": "1", "confidence": "1"} for n in range(300)]
    for number in range(KILLS + 1):
        answered = [{**row, "topic": TOPICS[(n + number) % 3], "note": str(number)} for n, row in enumerate(rows)]
        write(tmp_path / "back.csv", answered)
        began = time.monotonic()
        process = user.start("review", "run", "--from", "back.csv", "--by", "ann")
        if number == 0:
            process.wait().expect(0)
            took_s = time.monotonic() - began
        else:
            time.sleep(dice.random() * took_s)  # the moment is the point here, so it is not the test's clock
            process.kill()
        with open_reviews(tmp_path / "run") as reviews:
            found = reviews.answers()
        assert len(found) in (before, before + 300), again
        assert len({answer.note for answer in found[-300:]}) == 1, again
        before = len(found)
        assert verify(tmp_path / "run", read_input=False).ok, again
        topics = {row["id"]: row["topic"] for row in read(tmp_path / "run" / "labels.csv")}
        assert len(topics) == 300, again
    user.do("review", "run", "--from", "back.csv", "--by", "ann").expect(0)
    report = verify(tmp_path / "run")
    assert report.ok, report
    assert "all in the rows" in str(report)
    assert {row["id"]: row["topic"] for row in read(tmp_path / "run" / "labels.csv")} == {
        row["id"]: row["topic"] for row in answered
    }
