"""Conversations, several tools and several rows, from the command to the files, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Endpoint, Project, project, rows, wait_until
from end_to_end.talks import Talker, noted, outcomes, talking
from task.task_conversation import is_conversation

from pipeline.store import Ledger

SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))

# -- over a socket ---------------------------------------------------------------------------------------------------


def by_script(key: str, turn: int, messages: list[dict[str, Any]]) -> Any:
    """r0001 looks up and speaks, r0002 looks up what is not there, r0003 talks for ever, r0004 errs in its 2nd turn."""
    repaired = "not one of" in str(messages[-1]["content"])
    match key, turn:
        case "r0001", 0:
            return [("look_up", {"thing": "lamp"})]
        case "r0002", 0:
            return [("look_up", {"thing": "none"})]
        case "r0003", _:
            return [("look_up", {"thing": "lamp"})]
        case "r0004", 0:
            return [("look_up", {"thing": "lamp"})]
        case "r0004", _ if not repaired and turn == 1:
            return [("close", {"why": "zork"})]
        case "r0004", _ if repaired:
            return [("close", {"why": "done"})]
        case "r0005", 0:
            return "I would rather not."
        case "r0006", 0:
            return [("close", {"why": "spam"}), ("zork", "{")]
    return f"All is done in {turn} turns."


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Talker, dict[str, Any]]:
    """A run of six conversations, each of its own kind."""
    with Talker(by_script) as talker:
        user = talking(tmp_path_factory.mktemp("told"), talker.base_url, limits={"max_repairs": 1})
        summary = user.do("run", "job.toml", "--json").expect(1).json
    return user, talker, summary


Told = tuple[Project, Talker, dict[str, Any]]


def test_every_request_is_a_conversation_that_the_api_takes(told: Told) -> None:
    _, talker, _ = told
    for asked in talker.asked:
        assert is_conversation(asked.messages)
        assert asked.body["tool_choice"] == ("required" if asked.turn == 0 else "auto")
        assert asked.body["parallel_tool_calls"] is False
        assert [tool["function"]["name"] for tool in asked.body["tools"]] == ["look_up", "close"]


def test_the_result_goes_back_and_the_last_words_are_a_column(told: Told) -> None:
    user, talker, _ = told
    first, second = talker.turns_of("r0001")
    assert [json.loads(text) for text in second.told] == [{"stock": 3, "thing_known": True}]
    assert second.messages[: len(first.messages)] == first.messages, "a prefix that a cache knows"
    row = next(row for row in user.labels() if row["id"] == "r0001")
    assert (row["tool"], row["look_up_thing"], row["look_up_stock"]) == ("look_up", "lamp", "3")
    assert (row["close_why"], row["words"]) == ("", "All is done in 1 turns.")
    assert "thing_known" not in row, "what is not declared is for the model alone"


def test_an_exception_goes_back_too_and_the_record_is_labelled(told: Told) -> None:
    user, talker, _ = told
    assert [json.loads(text) for text in talker.turns_of("r0002")[1].told] == [
        {"error": "LookupError: there is no such thing"}
    ]
    row = next(row for row in user.labels() if row["id"] == "r0002")
    assert (row["look_up_thing"], row["look_up_stock"]) == ("none", "")


def test_a_conversation_without_an_end_is_cut_off_and_says_so(told: Told) -> None:
    user, talker, _ = told
    assert len(talker.turns_of("r0003")) == 3
    assert {row["key"]: row["code"] for row in user.failed()} == {"r0003": "unfinished", "r0005": "no_tool_call"}
    assert len([line for line in noted(user) if line["record"] == "r0003"]) == 3


def test_a_fault_in_a_later_turn_is_asked_again_there(told: Told) -> None:
    user, talker, _ = told
    asked = talker.turns_of("r0004")
    assert [one.turn for one in asked][:2] == [0, 1]
    assert "'zork' is not one of ['spam', 'done']" in asked[2].messages[-1]["content"]
    row = next(row for row in user.labels() if row["id"] == "r0004")
    assert (row["tool"], row["look_up_thing"], row["close_why"]) == ("close", "lamp", "done"), "the last call names it"


def test_a_function_that_there_is_not_is_told_so_beside_a_good_one(told: Told) -> None:
    _, talker, _ = told
    assert talker.turns_of("r0006")[1].told[-1] == "there is no such function"


def test_tokens_and_attempts_are_those_of_all_turns(told: Told) -> None:
    user, talker, summary = told
    for key, outcome in outcomes(user).items():
        calls = len(talker.turns_of(key))
        assert (outcome.attempts, outcome.usage.prompt, outcome.usage.completion) == (calls, 10 * calls, 3 * calls)
    assert summary["calls"] == len(talker.asked)
    assert (summary["labelled"], summary["rejected"]) == (4, 2)
    user.verify()


def test_a_replay_keeps_what_the_model_was_told_and_calls_nobody(told: Told) -> None:
    user, talker, _ = told
    calls, before, lines = len(talker.asked), user.labels(), noted(user)
    user.do("replay", "job.toml", "--json").expect(1)
    assert user.labels() == before
    assert {row["key"]: row["code"] for row in user.failed()} == {"r0003": "unfinished", "r0005": "no_tool_call"}
    assert (len(talker.asked), noted(user)) == (calls, lines)
    user.verify()


def test_a_retry_begins_anew(tmp_path: Path) -> None:
    mended: list[bool] = []

    def script(key: str, turn: int, messages: list[dict[str, Any]]) -> Any:
        if turn == 0:
            return [("look_up", {"thing": "lamp"})]
        return "Done." if mended else [("look_up", {"thing": "zork"})]

    with Talker(script) as talker:
        user = talking(tmp_path, talker.base_url, count=2, limits={"max_repairs": 0})
        assert user.run(code=1)["rejected"] == 2
        first = noted(user)
        mended.append(True)
        done = user.do("retry", "job.toml", "--json").expect(0).json
        assert done["labelled"] == 2
        assert [one.turn for one in talker.turns_of("r0001")] == [0, 1, 0, 1]
        assert not {line["key"] for line in first} & {line["key"] for line in noted(user)[len(first) :]}
        user.verify()


def test_a_broken_off_conversation_stays_broken_off_in_a_replay(tmp_path: Path) -> None:
    """Its last answer has calls that were never answered, or the next answer never came."""

    def script(key: str, turn: int, messages: list[dict[str, Any]]) -> Any:
        if turn == 0:
            return [("look_up", {"thing": "lamp"})]
        return 400 if key == "r0001" else "Done."

    with Talker(script) as talker:
        user = talking(tmp_path, talker.base_url, count=2, task={"reply": None})
        user.run(code=1)
        failed = user.failed()
        assert [row["code"] for row in failed] == ["bad_request"]
        user.do("replay", "job.toml", "--json").expect(1)
        assert user.failed() == failed
        assert [row["id"] for row in user.labels()] == ["r0002"]


# -- against the endpoint that is built in ---------------------------------------------------------------------------


def test_several_tools_and_rows_against_the_built_in_endpoint(tmp_path: Path, endpoint: Endpoint) -> None:
    user = talking(tmp_path, endpoint.base_url, count=40, task={"callback": "talk:slowly"})
    user.run()
    labels = user.labels()
    assert len(labels) == 40
    assert all(row["words"] for row in labels)
    assert {row["tool"] for row in labels} == {"look_up", "close"}
    rows_user = talking(
        tmp_path / "rows",
        endpoint.base_url,
        count=30,
        task={"callback": "talk:slowly", "rows": "calls", "call": "any", "max_turns": 1},
        output={"dir": "run", "formats": ["csv", "jsonl", "parquet"]},
    )
    assert rows_user.run()["labelled"] == 30
    counts = Counter(row["id"] for row in rows_user.labels())
    assert max(counts.values()) > 1
    for row in rows_user.labels():
        name = row["tool"]
        assert row[f"{name}_seen"] == row["id"]
        assert row["row_key"].startswith(f"{row['id']}#")
    assert len({row["row_key"] for row in rows_user.labels()}) == len(rows_user.labels())
    rows_user.verify()
    before = (rows_user.run_dir / "labels.csv").read_bytes()
    calls = endpoint.calls()
    rows_user.do("replay", "job.toml", "--json").expect(0)
    assert sorted(before.splitlines()) == sorted((rows_user.run_dir / "labels.csv").read_bytes().splitlines())
    assert endpoint.calls() == calls
    keys = [line["key"] for line in noted(rows_user)]
    assert Counter(Counter(keys).values()).keys() == {2}, "each call again, with the key that it had"
    rows_user.verify()


def test_rows_through_relabel_retry_and_an_empty_list(tmp_path: Path) -> None:
    item = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "sure": {"type": "boolean"}},
        "required": ["name", "sure"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"lang": {"type": "string"}, "found": {"type": "array", "items": item}},
        "required": ["lang", "found"],
    }
    refuse = [True]

    def script(key: str, _turn: int, _messages: list[dict[str, Any]]) -> Any:
        if key == "r0004" and refuse[0]:
            return [("find", {"lang": "en"})]
        names = [{"name": f"{key} {place}", "sure": True} for place in range(int(key[1:]) - 1)]
        return [("find", {"lang": "en", "found": names})]

    with Talker(script) as talker:
        user = project(
            tmp_path,
            talker.base_url,
            count=4,
            task={"labels": None, "function": {"name": "find", "parameters": schema}, "rows": "found"},
            limits={"max_repairs": 0},
        )
        summary = user.run(code=1)
        assert (summary["labelled"], summary["rejected"]) == (3, 1), "an empty list is a label"
        assert (summary["rows"], summary["without_row"]) == (3, 1)
        told = "3 labelled (3 rows, 1 without a row) · 1 rejected"
        assert told in user.do("status", "run").expect(0).out
        wanted = ["r0002#0", "r0003#0", "r0003#1"]
        assert sorted(row["row_key"] for row in user.labels()) == wanted
        counts = user.verify()
        assert (counts["labelled"], counts["rows_in"], counts["pending"]) == (3, 4, 0)
        refuse[0] = False
        user.do("retry", "job.toml", "--json").expect(0)
        wanted += ["r0004#0", "r0004#1", "r0004#2"]
        assert sorted(row["row_key"] for row in user.labels()) == wanted
        assert all(row["name"].startswith(row["id"]) and row["lang"] == "en" for row in user.labels())
        user.verify()
        user.configure(task={"prompt": "{{ id }} again {{ text }}"})
        user.do("run", "job.toml", "--json", "--relabel").expect(0)
        assert sorted(row["row_key"] for row in user.labels()) == wanted
        assert len(talker.asked) == 4 + 1 + 4
        user.verify()


def test_a_validator_is_asked_again_with_its_reason_and_then_given_up(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"quote": {"type": "string"}}, "required": ["quote"]}

    def script(key: str, _turn: int, messages: list[dict[str, Any]]) -> Any:
        if key == "r0002" or (key == "r0001" and messages[-1]["role"] != "tool"):
            return [("cite", {"quote": "words of its own"})]
        return [("cite", {"quote": key})]

    with Talker(script) as talker:
        user = project(
            tmp_path,
            talker.base_url,
            count=3,
            task={
                "labels": None,
                "function": {"name": "cite", "parameters": schema},
                "validators": [
                    {"expression": "len(quote) > 0 and quote in id ~ ' ' ~ text", "message": "quote the text itself"}
                ],
            },
            limits={"max_repairs": 1},
        )
        user.run(code=1)
        assert {row["id"]: row["quote"] for row in user.labels()} == {"r0001": "r0001", "r0003": "r0003"}
        assert [(row["key"], row["code"]) for row in user.failed()] == [("r0002", "invalid_label")]
        assert "quote the text itself" in talker.turns_of("r0001")[1].messages[-1]["content"]
        assert len(talker.asked) == 2 + 2 + 1
        user.configure(task={"validators": [{"expression": "quot in text"}]})
        checked = user.do("check", "job.toml", "--offline")
        assert "names 'quot'; the label has quote" in checked.out + checked.err
        user.configure(output={"dir": "other"})
        calls = len(talker.asked)
        user.do("run", "job.toml", "--json").expect(2)
        assert len(talker.asked) == calls, "what cannot work is found before a call is paid for"


# -- callbacks that hang, break, and are killed ----------------------------------------------------------------------


def test_a_callback_that_hangs_is_given_up_and_the_process_ends(tmp_path: Path, endpoint: Endpoint) -> None:
    for max_turns in (1, 3):
        user = talking(
            tmp_path / str(max_turns),
            endpoint.base_url,
            count=3,
            task={
                "callback": "talk:hangs",
                "callback_timeout_s": 1,
                "max_turns": max_turns,
                "reply": None,
            },
        )
        user.run(code=max_turns == 1)
        if max_turns == 1:
            assert {row["code"] for row in user.failed()} == {"callback_error"}
            assert len(noted(user)) == 3
        else:
            assert len(user.labels()) == 3, "the model is told, and goes on"


def test_an_answer_is_not_paid_for_again_when_its_callback_was_killed(tmp_path: Path, endpoint: Endpoint) -> None:
    user = talking(
        tmp_path,
        endpoint.base_url,
        count=5,
        task={"callback": "talk:waits", "max_turns": 1, "reply": None},
    )
    process = user.start("run", "job.toml", "--json")
    wait_until(lambda: len(noted(user)) == 5)
    assert process.kill() == -signal.SIGKILL
    assert endpoint.calls() == 5
    assert outcomes(user) == {}
    (user.folder / "go").write_text("1")
    summary = user.run()
    assert summary["labelled"] == 5
    assert summary["simulated"], "though no answer of this session said so"
    assert [row["simulated"] for row in user.labels()] == ["true"] * 5
    assert endpoint.calls() == 5, "the ledger had the answers before the callbacks were called"
    keys = Counter(line["key"] for line in noted(user))
    assert set(keys.values()) == {2}, "called again, with the same keys"
    assert len(keys) == 5
    (user.folder / "go").write_text("2")
    user.do("replay", "job.toml", "--json").expect(0)
    assert {row["version"] for row in by_version(user)} == {"2"}, "a fixed callback's columns"
    assert set(Counter(line["key"] for line in noted(user)).values()) == {3}
    user.verify()


def by_version(user: Project) -> list[dict[str, str]]:
    """The label rows with the one version that each has."""
    return [{"version": row["look_up_version"] + row["close_version"]} for row in user.labels()]


def test_a_ledger_that_breaks_in_mid_run_stops_it_and_it_can_be_resumed(tmp_path: Path, endpoint: Endpoint) -> None:
    user = talking(
        tmp_path, endpoint.base_url, count=24, task={"callback": "talk:waits", "max_turns": 1, "reply": None}
    )
    user.configure(limits={"grace_s": 1})
    (user.folder / "go").write_text("1")
    assert user.do("run", "job.toml", "--json", "--set", "input.limit=4").expect(0).json["labelled"] == 4
    with closing(sqlite3.connect(user.run_dir / "ledger.db")) as ledger:
        ledger.execute("CREATE TRIGGER full BEFORE INSERT ON turns BEGIN SELECT RAISE(ABORT, 'no room'); END")
        ledger.commit()
    lines = len(noted(user))
    stopped = user.do("run", "job.toml", "--json").expect(3)
    assert "no room" in stopped.json["reason"] + stopped.err
    assert len(noted(user)) == lines, "no callback without a safe answer"
    with closing(sqlite3.connect(user.run_dir / "ledger.db")) as ledger:
        ledger.execute("DROP TRIGGER full")
    assert user.run()["labelled"] == 24
    user.verify()


@dataclass(frozen=True, slots=True)
class Held:
    """What the ledger had right after a kill, and how far the books had come."""

    answers: frozenset[tuple[str, int]]
    results: frozenset[tuple[str, int]]
    finished: frozenset[str]
    calls: int
    lines: int


def held(user: Project, talker: Talker) -> Held:
    async def read() -> Held:
        path = user.run_dir / "ledger.db"
        if not path.exists():
            return Held(frozenset(), frozenset(), frozenset(), len(talker.asked), len(noted(user)))
        async with await Ledger.open(path, read_only=True) as ledger:
            every = frozenset(outcome.record.key for _, outcome in await ledger.rows_after(0, 10_000))
            keys = {asked.key for asked in talker.asked} - every
            turns = [turn for found in (await ledger.answers_of(sorted(keys))).values() for turn in found]
        return Held(
            frozenset((turn.key, turn.number) for turn in turns),
            frozenset((turn.key, turn.number) for turn in turns if turn.results),
            every,
            len(talker.asked),
            len(noted(user)),
        )

    return asyncio.run(read())


@pytest.mark.chaos
def test_kills_in_mid_conversation_pay_for_nothing_twice_and_call_nobody_twice(tmp_path: Path) -> None:
    dice, concurrency, count = random.Random(SEED), 6, 60

    def script(key: str, turn: int, _messages: list[dict[str, Any]]) -> Any:
        if turn <= int(key[1:]) % 2:
            return [("look_up", {"thing": ["kettle", "lamp"][turn]})]
        return f"{key} is done."

    kills: list[Held] = []
    with Talker(script, latency_s=0.02) as talker:
        user = talking(
            tmp_path,
            talker.base_url,
            count=count,
            task={"callback": "talk:slowly"},
            limits={"concurrency": concurrency},
        )
        for _ in range(3):
            process = user.start("run", "job.toml", "--json")
            goal = len(talker.asked) + dice.randint(5, 35)
            wait_until(lambda: len(talker.asked) >= goal or process.popen.poll() is not None)  # noqa: B023
            time.sleep(dice.uniform(0, 0.1))  # the moment is the point here
            assert process.kill() == -signal.SIGKILL, f"seed {SEED}: it was done before"
            time.sleep(0.1)  # what was on the wire is written into the books
            kills.append(held(user, talker))
        user.run()
        lines = noted(user)

    labels = user.labels()
    assert sorted(row["id"] for row in labels) == [row["id"] for row in rows(count)], "each record once"
    assert all(row["words"] == f"{row['id']} is done." for row in labels)
    assert all(row["look_up_seen"] == row["id"] for row in labels)
    for kill in kills:
        later = {(asked.key, asked.turn) for asked in talker.asked[kill.calls :]}
        assert not later & kill.answers, f"seed {SEED}: asked for again although the ledger had the answer"
        assert not {key for key, _ in later} & kill.finished
        again = {(line["record"], line["turn"]) for line in lines[kill.lines :]}
        assert not again & kill.results, f"seed {SEED}: called again although the ledger had the result"
        assert not {key for key, _ in again} & kill.finished
    paid = Counter((asked.key, asked.turn) for asked in talker.asked)
    # A record whose callback is at work has left its place: the workers bound what a kill can cost.
    assert sum(paid.values()) - len(paid) <= len(kills) * concurrency, f"seed {SEED}"
    keys = Counter(line["key"] for line in lines)
    in_work = 2 * concurrency + 2
    assert sum(keys.values()) - len(keys) <= len(kills) * in_work, f"seed {SEED}"
    named: dict[tuple[str, int], set[str]] = {}
    for line in lines:
        named.setdefault((line["record"], line["turn"]), set()).add(line["key"])
    assert len(set().union(*named.values())) == sum(map(len, named.values())), "no key stands for two calls"
    # Another key for the same turn means another answer: one that the ledger had not when it was killed.
    assert sum(len(found) - 1 for found in named.values()) <= sum(paid.values()) - len(paid)
    assert user.verify()["labelled"] == count
