"""Gold in a run: it measures the run, never is in its rows, and stops it in time."""

from __future__ import annotations

import csv
import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Process, Project, wait_until
from end_to_end.talks import Talker, noted, outcomes, talking

from pipeline.parts import is_of_shard
from pipeline.readers import placeholder_key

LABELS = ["c01", "c02"]


@pytest.fixture
def wrong() -> set[str]:
    """The keys whose label is wrong."""
    return set()


@pytest.fixture
def talker(wrong: set[str]) -> Iterator[Talker]:
    def script(key: str, _turn: int, _messages: list[dict[str, Any]]) -> Any:
        return [("set_label", {"label": "c02" if key in wrong else "c01"})]

    with Talker(script, latency_s=0.005) as talker:
        yield talker


def measured(folder: Path, talker: Talker, count: int, **quality: Any) -> Project:
    task = {"tools": None, "labels": {"label": LABELS}, "max_turns": 1, "reply": None, "callback": "talk:slowly"}
    return talking(folder, talker.base_url, count=count, task=task, quality={"gold": "gold.csv", **quality})


def give_gold(user: Project, rows: list[dict[str, str]]) -> None:
    with (user.folder / "gold.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def gold(count: int, **more: str) -> list[dict[str, str]]:
    return [{"id": f"g{number:03}", "text": "known", "label": "c01", **more} for number in range(count)]


def test_gold_is_asked_among_the_records_and_is_in_no_row(tmp_path: Path, talker: Talker, wrong: set[str]) -> None:
    user = measured(tmp_path, talker, 50, every=5)
    give_gold(user, gold(8))
    wrong |= {"g003"}
    plan = user.do("plan", "job.toml", "--pilot", "10", "--json").expect(0).json
    asked = len(talker.asked)
    assert (plan["left"], plan["gold"], asked) == (40, 6, 12)
    summary = user.run()
    used = sum(summary["usage"][name] for name in ("prompt", "completion")) / 58
    assert plan["tokens"]["low"] == plan["tokens"]["high"] == (len(talker.asked) - asked) * used, "as it was planned"
    assert summary["gold"]["n"] == 8
    assert (summary["gold"]["right"], summary["gold"]["confusions"]) == (7, [["c01", "c02", 1]])
    assert (summary["labelled"], len(user.labels())) == (50, 50)
    assert not any(row["id"].startswith("g") for row in user.labels())
    assert len(talker.asked) == 58
    assert sorted({call["record"] for call in noted(user)}) == sorted(outcomes(user)), "no callback is told of gold"
    assert summary["usage"]["prompt"] == 58 * 10, "what it cost counts"
    shown = [one.messages[-1]["content"] for one in talker.asked if one.key.startswith("g")]
    assert not any("c01" in text for text in shown)
    user.verify()
    assert "gold      label 87.5% of 8 right" in user.do("status", "run").expect(0).out
    again = user.run()
    assert (again["calls"], again["gold"]["n"]) == (0, 8)
    give_gold(user, [*gold(1, id="above"), *gold(8)])
    user.run()
    assert {one.key for one in talker.asked[58:]} <= {"above"}, "a row above moves the others, and they stay the same"


@pytest.mark.chaos
def test_a_killed_run_asks_no_gold_twice_beyond_what_was_in_flight(tmp_path: Path, talker: Talker) -> None:
    user = measured(tmp_path, talker, 120, every=2)
    give_gold(user, gold(50))
    for _ in range(2):
        process = user.start("run", "job.toml", "--json")
        goal = len(talker.asked) + 45
        wait_until(lambda: len(talker.asked) >= goal)  # noqa: B023
        assert process.kill() == -signal.SIGKILL
    summary = user.run()
    asked = Counter(one.key for one in talker.asked)
    assert summary["gold"]["n"] == sum(key.startswith("g") for key in asked) == 50
    assert len(talker.asked) - 170 <= 2 * 8
    assert len(user.labels()) == 120
    user.verify()


def test_a_bad_prompt_stops_the_run_before_the_money_is_gone(tmp_path: Path, talker: Talker, wrong: set[str]) -> None:
    user = measured(tmp_path, talker, 400, every=5, stop_below=0.85)
    give_gold(user, gold(60))
    wrong |= {f"g{number:03}" for number in range(60)}
    done = user.do("run", "job.toml", "--json").expect(3)
    assert "clearly below 0.85" in done.json["reason"]
    assert "most often c01 as c02" in done.json["reason"]
    assert 0 < done.json["labelled"] < 200
    asked = len(talker.asked)
    again = user.do("run", "job.toml", "--json").expect(3).json
    assert (again["calls"], len(talker.asked)) == (0, asked), "nothing is sent only to find out the same"
    assert "--relabel" in again["next_step"]
    whole = user.run("--set", "quality.stop_below=0")
    assert (whole["labelled"], whole["gold"]["right"]) == (400, 0)


def test_another_prompt_begins_the_measuring_again(tmp_path: Path, talker: Talker, wrong: set[str]) -> None:
    user = measured(tmp_path, talker, 60, every=2, stop_below=0.85)
    give_gold(user, gold(30))
    wrong |= {f"g{number:03}" for number in range(30)}
    user.run(code=3)
    wrong.clear()
    user.configure(task={"prompt": "{{ id }} better {{ text }}"})
    summary = user.run("--relabel")
    assert (summary["gold"]["n"], summary["gold"]["accuracy"]) == (30, 1.0)


def test_other_votes_begin_the_measuring_again(tmp_path: Path, talker: Talker, wrong: set[str]) -> None:
    """The request is the same then, and the label another one."""
    user = measured(tmp_path, talker, 30, every=1, stop_below=0.85)
    give_gold(user, gold(20))
    wrong |= {f"g{number:03}" for number in range(20)}
    user.run(code=3)
    wrong.clear()
    user.configure(quality={"votes": 2})
    summary = user.run("--relabel")
    assert (summary["gold"]["n"], summary["gold"]["accuracy"]) == (20, 1.0)


def test_a_rehearsal_is_not_stopped_by_labels_that_are_right_by_chance(tmp_path: Path, talker: Talker) -> None:
    user = measured(tmp_path, talker, 60, every=1, stop_below=0.85)
    user.configure(model={"base_url": "rehearsal"})
    give_gold(user, gold(40))
    summary = user.run()
    assert (summary["ended"], summary["gold"]["n"]) == ("complete", 40)
    assert summary["gold"]["accuracy"] < 0.85


def test_gold_keeps_its_votes(tmp_path: Path) -> None:
    """A session is killed when the second vote on gold is asked for."""
    at_work: list[Process] = []

    def script(key: str, _turn: int, _messages: list[dict[str, Any]]) -> Any:
        if key == "g000" and len(talker.turns_of(key)) == 2:
            wait_until(lambda: at_work)
            at_work[0].popen.kill()
        return [("set_label", {"label": "c01"})]

    with Talker(script) as talker:
        user = measured(tmp_path, talker, 3, every=1, votes=2)
        user.configure(limits={"concurrency": 1})
        give_gold(user, gold(1))
        at_work.append(user.start("run", "job.toml", "--json"))
        at_work[0].wait()
        assert user.run()["gold"]["n"] == 1
        assert len(talker.turns_of("g000")) == 3, "the first vote once, the second one again"


def test_gold_that_cannot_be_used_sets_no_label_aside(tmp_path: Path, talker: Talker) -> None:
    user = measured(tmp_path, talker, 3)
    give_gold(user, gold(1))
    user.run()
    give_gold(user, [*gold(2), *gold(1, id="x", label="c1")])
    user.configure(task={"prompt": "{{ id }} better {{ text }}"})
    assert user.do("run", "job.toml", "--relabel").expect(2)
    assert user.do("status", "run", "--json").json["labelled"] == 3


def test_gold_without_texts_compares_the_runs_own_records(tmp_path: Path, talker: Talker, wrong: set[str]) -> None:
    user = measured(tmp_path, talker, 20, gold_column="gold_label")
    give_gold(user, [{"id": f"r{number:04}", "gold_label": "c01"} for number in range(1, 11)])
    wrong |= {"r0002"}
    summary = user.run()
    assert (summary["gold"]["n"], summary["gold"]["right"]) == (10, 9)
    assert len(talker.asked) == 20


def test_examples_are_no_gold(tmp_path: Path, talker: Talker) -> None:
    user = measured(tmp_path, talker, 20, every=2)
    user.configure(task={"examples": [{"id": "g001", "text": "known", "label": {"label": "c01"}}]})
    give_gold(user, [*gold(5), *gold(1)])
    assert user.run()["gold"]["n"] == 4, "of a key that comes twice the first row counts"


@pytest.mark.parametrize(
    ("rows", "quality", "told"),
    [
        (None, {}, "gold.csv is not there"),
        (gold(2, label=""), {}, "no value in the column 'label'"),
        ([{"id": "1", "text": "a", "right": "c01"}], {}, "no column of labels"),
        (gold(2), {"gold_column": "lable"}, "did you mean 'label'"),
        ([{"text": "a", "label": "c01"}], {}, "lacks id"),
        (
            [*gold(1), *gold(1, id="x", label="c1")],
            {},
            "gold.csv:3: 'c1' in 'label' is not a value of label (did you mean",
        ),
    ],
)
def test_gold_that_cannot_be_used_is_refused_before_a_call(
    tmp_path: Path, talker: Talker, rows: list[dict[str, str]] | None, quality: dict[str, Any], told: str
) -> None:
    user = measured(tmp_path, talker, 3, **quality)
    if rows is not None:
        give_gold(user, rows)
    user.configure(input={"key": None} if told == "lacks id" else {})
    assert told in user.do("run", "job.toml").expect(2).err
    assert told in user.do("check", "job.toml", "--offline").out
    assert not talker.asked


def test_labels_that_shift_are_told_of_once(tmp_path: Path, talker: Talker, wrong: set[str]) -> None:
    user = measured(tmp_path, talker, 2500)
    user.configure(quality={"gold": None}, task={"callback": None}, limits={"concurrency": 64})
    wrong |= {f"r{number:04}" for number in range(1200, 2501)}
    summary = user.run()
    assert len(summary["notes"]) == 1
    assert "label is c0" in summary["notes"][0]
    events = [json.loads(line) for line in (user.run_dir / "run.log").read_text().splitlines()]
    assert sum(event["event"] == "labels shift" for event in events) == 1


def test_gold_is_dealt_out_to_shards_and_judged_over_all_of_them(tmp_path: Path, wrong: set[str]) -> None:
    """Neither of two shards has enough gold to be stopped by it alone."""
    named = [(name, placeholder_key(f"gold {name}")) for name in map("g{:03}".format, range(99))]
    names = {number: [name for name, key in named if is_of_shard(key, (number, 2))][:8] for number in (1, 2)}
    keys = [*names[1], *names[2]]

    def script(key: str, _turn: int, _messages: list[dict[str, Any]]) -> Any:
        return [("set_label", {"label": "c02" if key in wrong else "c01"})]

    with Talker(script, latency_s=0.05) as talker:
        user = measured(tmp_path, talker, 150, every=1, stop_below=0.5)
        user.configure(limits={"concurrency": 4})
        give_gold(user, [{"id": key, "text": "known", "label": "c01"} for key in keys])
        wrong |= set(keys)
        stopped = user.run("--shards", "2", code=3)
        assert "clearly below 0.5: 0 of " in stopped["reason"]
        assert stopped["labelled"] < 150
        wrong -= set(keys)
        user.configure(quality={"stop_below": 0})
        done = user.run("--shards", "2")
        assert (done["labelled"], done["gold"]["n"], done["gold"]["right"]) == (150, 16, 16 - stopped["gold"]["n"])
        asked = Counter(one.key for one in talker.asked)
        assert [asked[key] for key in keys] == [1] * 16, "what was asked before there were shards is known"
        assert len(user.labels()) == 150
        user.verify()
