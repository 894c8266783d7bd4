"""Several votes on each label, by real processes over real sockets: one record, one row, whatever happens."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Process, Project, wait_until
from end_to_end.talks import Talker, noted, outcomes, talking

#: What a record's votes say in turn, by the last digit of its key.
SAID = {
    "1": "aa",
    "2": "aba",
    "3": "abb",
    "4": "abc",
    "5": "!!!aa",
    "6": "aa",
    "7": "bcb",
    "8": "bb",
    "9": "cc",
    "0": "a",
}
LABELS = {"a": "c01", "b": "c02", "c": "c03"}


@pytest.fixture
def talker() -> Iterator[Talker]:
    asked: Counter[str] = Counter()

    def script(key: str, _turn: int, _messages: list[dict[str, Any]]) -> Any:
        said = SAID[key[-1]]
        letter = said[asked[key] % len(said)]
        asked[key] += 1
        return [("set_label", {"label": LABELS.get(letter, "no such label")})]

    with Talker(script, latency_s=0.01) as talker:
        yield talker


def voting(folder: Path, talker: Talker, count: int = 9, **tables: Any) -> Project:
    task = {"tools": None, "labels": {"label": list(LABELS.values())}, "max_turns": 1, "reply": None}
    task |= {"callback": None, **tables.pop("task", {})}
    return talking(
        folder,
        talker.base_url,
        count=count,
        task=task,
        **{"quality": {"votes": 3}, "limits": {"concurrency": 8, "max_repairs": 2}, **tables},
    )


def test_a_third_vote_is_asked_for_where_the_first_two_differ(tmp_path: Path, talker: Talker) -> None:
    user = voting(tmp_path, talker, model={"price": {"input": 2.0, "output": 2.0}})
    summary = user.run()
    calls = {"r0001": 2, "r0002": 3, "r0003": 3, "r0004": 3, "r0005": 5, "r0006": 2, "r0007": 3, "r0008": 2, "r0009": 2}
    assert Counter(one.key for one in talker.asked) == calls
    rows = {row["id"]: row for row in user.labels()}
    said = {key: (row["label"], json.loads(row["votes"]), row["agreement"], row["needs_review"])
            for key, row in rows.items()}  # fmt: skip
    assert said["r0001"] == ("c01", ["c01", "c01"], "1.0", "false")
    assert said["r0003"] == ("c02", ["c01", "c02", "c02"], "0.6667", "false")
    assert said["r0004"] == ("c01", ["c01", "c02", "c03"], "0.3333", "true")
    assert said["r0005"] == ("c01", [None, "c01", "c01"], "0.6667", "false"), "what cannot be repaired abstains"
    for key, outcome in outcomes(user).items():
        assert outcome.attempts == calls[key]
        assert (outcome.usage.total, outcome.cost_usd) == (13 * calls[key], pytest.approx(26e-6 * calls[key]))
    assert summary["votes"] == {"records": 9, "votes": 23, "needs_review": 1, "alpha": pytest.approx(0.2, abs=0.2)}
    user.verify()
    before = user.labels()
    assert user.do("replay", "job.toml", "--json").expect(0).json["session_records"] == 9
    assert len(talker.asked) == 25, "a replay makes no call"
    assert user.labels() == before
    user.verify()


@pytest.mark.chaos
def test_a_killed_record_keeps_the_votes_it_has(tmp_path: Path, talker: Talker) -> None:
    user = voting(tmp_path, talker, count=60, task={"callback": "talk:slowly"})
    kills = 3
    for number in range(kills):
        process = user.start("run", "job.toml", "--json")
        goal = len(talker.asked) + 30 + number
        wait_until(lambda: len(talker.asked) >= goal)  # noqa: B023
        assert process.kill() == -signal.SIGKILL
    user.run()
    done = outcomes(user)
    assert len(done) == len(user.labels()) == 60
    lost = len(talker.asked) - sum(outcome.attempts for outcome in done.values())
    assert 0 <= lost <= kills * 8, "the ledger tells of all others"
    user.verify()
    # The callback comes once a label, after the votes; a kill may cut off its result, then it has the same key.
    keys = {(call["record"], call["key"]) for call in noted(user)}
    assert len(keys) == 60
    assert all(row["seen"] == row["id"] for row in user.labels())


def test_other_voters_have_their_own_model_prompt_and_price(tmp_path: Path) -> None:
    models: list[tuple[str, str]] = []

    def script(key: str, _turn: int, _messages: list[dict[str, Any]]) -> Any:
        body = talker.asked[-1].body
        models.append((key, body["model"]))
        return [("set_label", {"label": "c02" if body["model"] == "other" else "c01"})]

    with Talker(script) as talker:
        user = voting(
            tmp_path,
            talker,
            count=1,
            quality={
                "votes": None,
                "voters": [
                    {"model": "other", "price": {"input": 4.0, "output": 4.0}},
                    {"prompt": "{{ id }} again", "parameters": {"temperature": 0.5}},
                ],
            },
            model={"price": {"input": 2.0, "output": 2.0}, "parameters": {"max_completion_tokens": 64}},
            limits={"concurrency": 1, "budget_usd": 1},
        )
        user.run()
        assert models == [("r0001", "gpt-6-luna"), ("r0001", "other"), ("r0001", "gpt-6-luna")]
        last = talker.asked[-1].body
        assert (last["messages"][-1]["content"], last["temperature"]) == ("r0001 again", 0.5)
        assert outcomes(user)["r0001"].cost_usd == pytest.approx(13 * (2 + 4 + 2) / 1e6)
        assert json.loads(user.labels()[0]["votes"]) == ["c01", "c02", "c01"]
        user.configure(quality={"voters": [{"model": "other"}]})
        assert "nobody knows what other costs, which votes too" in user.do("run", "job.toml").expect(2).err
        user.configure(quality={"voters": [{"model": "other", "price": {"input": 4.0, "output": 4.0}}]})
        refused = user.do("run", "job.toml").expect(2)
        assert "votes" in refused.err
        assert "--relabel" in refused.err


def test_a_vote_of_one_voter_is_not_taken_for_that_of_another(tmp_path: Path) -> None:
    """A session is killed when the third vote is asked for, and then the second voter is another one."""
    models: list[str] = []
    at_work: list[Process] = []

    def script(_key: str, _turn: int, _messages: list[dict[str, Any]]) -> Any:
        models.append(model := talker.asked[-1].body["model"])
        if model == "third":
            wait_until(lambda: at_work)
            at_work[0].popen.kill()
        return [("set_label", {"label": "c02" if model == "other" else "c01"})]

    with Talker(script) as talker:
        user = voting(
            tmp_path, talker, count=1, quality={"votes": None, "voters": [{"model": "other"}, {"model": "third"}]}
        )
        at_work.append(user.start("run", "job.toml", "--json"))
        at_work[0].wait()
        user.configure(quality={"voters": [{"model": "another"}, {"model": "third"}]})
        user.run()
    assert models == ["gpt-6-luna", "other", "third", "gpt-6-luna", "another"]
    outcome = outcomes(user)["r0001"]
    assert outcome.usage.total == 4 * 13, "what was paid for in vain counts"
    assert json.loads(user.labels()[0]["votes"]) == ["c01", "c01"]


def test_an_identical_record_takes_the_votes_of_the_one_that_was_asked(tmp_path: Path, talker: Talker) -> None:
    user = voting(tmp_path, talker, count=2, task={"prompt": "r0002 {{ text }}", "callback": "talk:slowly"})
    user.give([{"id": "r0002", "text": "same"}, {"id": "copy", "text": "same"}])
    user.run()
    first, copy = sorted(user.labels(), key=lambda row: row["id"], reverse=True)
    assert first["votes"] == copy["votes"] == '["c01","c02","c01"]'
    assert (first["seen"], copy["seen"]) == ("r0002", "copy")
    assert len(talker.asked) == 3
    assert user.do("replay", "job.toml", "--json").expect(0).json["labelled"] == 2
    assert {row["votes"] for row in user.labels()} == {'["c01","c02","c01"]'}


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"task": {"max_turns": 3}}, "task.max_turns"),
        ({"quality": {"votes": 3, "vote_on": ["topic"]}}, "'topic'; there are label"),
        ({"quality": {"votes": 3, "voters": [{"model": "x"}]}}, "there are 2 voters"),
        ({"quality": {"voters": [{}]}}, "quality.votes for several answers"),
        ({"task": {"labels": {"votes": ["c01"]}}}, "'votes', which the votes need"),
    ],
)
def test_what_cannot_be_voted_on_is_refused(tmp_path: Path, tables: dict[str, Any], told: str, talker: Talker) -> None:
    user = voting(tmp_path, talker, **tables)
    assert told in user.do("run", "job.toml").expect(2).err
    assert not talker.asked
