"""Conversations that a kill, a refusal or a failure breaks off: what was paid for counts, and is gone on with."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Endpoints, Project, project, wait_until
from end_to_end.talks import Talker, noted, outcomes, talking

TOKENS = 13  # of each call of a Talker
PRICE_USD = 2.0 / 1e6  # a token, whichever


def look_up_then(*later: Any) -> Any:
    """A script: everybody looks up, then comes what `later` ends with (it may be changed meanwhile)."""
    said = list(later)

    def script(_key: str, turn: int, _messages: list[dict[str, Any]]) -> Any:
        return [("look_up", {"thing": "lamp"})] if turn == 0 else said[-1]

    script.said = said  # type: ignore[attr-defined]
    return script


def turns_asked(talker: Talker) -> Counter[tuple[str, int]]:
    """How often each turn of each record was asked for."""
    return Counter((asked.key, asked.turn) for asked in talker.asked)


def called_back(user: Project) -> Counter[tuple[str, int]]:
    """How often each turn of each record was called back."""
    return Counter((line["record"], line["turn"]) for line in noted(user))


def killed_in_its_callbacks(user: Project, count: int) -> None:
    """A run that is killed while every record waits for its callback."""
    process = user.start("run", "job.toml", "--json")
    wait_until(lambda: len(noted(user)) == count)
    assert process.kill() == -signal.SIGKILL
    assert outcomes(user) == {}


# -- money -----------------------------------------------------------------------------------------------------------


def test_what_conversations_under_way_have_cost_counts_after_a_kill(tmp_path: Path) -> None:
    """The run had no budget then, so that nothing but their turns says what they cost."""
    count = 6
    with Talker(look_up_then("Done.")) as talker:
        user = talking(
            tmp_path,
            talker.base_url,
            count=count,
            task={"callback": "talk:waits"},
            model={"parameters": {"max_completion_tokens": 30}, "price": {"input": 2.0, "output": 2.0}},
        )
        killed_in_its_callbacks(user, count)
        assert len(talker.asked) == count
        spent = count * TOKENS
        for cap, told in (
            ({"budget_tokens": 700}, f"limits.budget_tokens = 700: {spent} tokens are used, and one more call"),
            ({"budget_tokens": None, "budget_usd": 0.001}, "limits.budget_usd = 0.001: $0.000156 is spent"),
        ):
            user.configure(limits=cap)
            (user.folder / "go").write_text("1")
            summary = user.run(code=3)
            assert told in summary["reason"]
            assert summary["usage"]["prompt"] + summary["usage"]["completion"] == spent
            assert summary["cost_usd"] == pytest.approx(spent * PRICE_USD)
            assert len(talker.asked) == count, "not one more"
        replayed = user.do("replay", "job.toml", "--json").expect(0).json
        assert replayed["cost_usd"] == pytest.approx(spent * PRICE_USD), "in a replay's summary too"
        user.configure(limits={"budget_usd": 1.0})
        done = user.run()
    assert set(turns_asked(talker).values()) == {1}
    assert done["usage"]["prompt"] + done["usage"]["completion"] == TOKENS * len(talker.asked) == 2 * spent
    assert done["cost_usd"] == pytest.approx(2 * spent * PRICE_USD)
    user.verify()


def test_with_a_budget_that_is_used_up_no_word_is_sent_to_a_silent_server(tmp_path: Path, endpoints: Endpoints) -> None:
    """A look for life is paid for too. It used to leave all the same, or to end the run with a traceback."""
    endpoint = endpoints.open(poison={"HANG": "hang"})
    user = project(
        tmp_path / "project",
        endpoint.base_url,
        model={"timeout_s": 3, "parameters": {"max_completion_tokens": 30}},
        limits={"concurrency": 1, "budget_tokens": 1},
    )
    user.give([{"id": f"r{number}", "text": "HANG"} for number in range(3)])
    most = int(user.run(code=3)["reason"].rpartition("up to ")[2].replace(",", ""))
    # One call fits, and less than a ping beside it.
    user.configure(limits={"budget_tokens": most + 100})
    done = user.do("run", "job.toml", "--json").expect(3)
    assert f"limits.budget_tokens = {most + 100}: {most:,} tokens are used" in done.json["reason"]
    assert "Traceback" not in done.err
    assert endpoint.calls() == 1
    perhaps = f"{most:,} tokens are used, {most:,} of them perhaps only (no answer came)"
    assert perhaps in done.json["reason"]
    again = user.run(code=3)
    assert perhaps in again["reason"], "the next session tells it apart too"
    assert again["next_step"] == "raise limits.budget_tokens first, then: labelpipe run job.toml"
    user.configure(limits={"budget_tokens": 3 * most + 200})
    user.do("run", "job.toml", "--json").expect(3)
    assert endpoint.totals()["calls"] > len(endpoint.lines()), "where there is room it is sent"
    endpoints.close(endpoint)


# -- going on --------------------------------------------------------------------------------------------------------


def test_a_server_that_refuses_whatever_goes_on_stops_the_run_and_costs_no_record(tmp_path: Path) -> None:
    """Every second turn of every conversation was a 400: each record was given up for it, one by one."""
    count, script = 40, look_up_then(400)
    with Talker(script) as talker:
        user = talking(tmp_path, talker.base_url, count=count)
        stopped = user.do("run", "job.toml", "--json").expect(3)
        assert "400" in stopped.json["reason"]
        assert (stopped.json["labelled"], stopped.json["rejected"], stopped.json["failed"]) == (0, 0, 0)
        assert user.failed() == []
        refused = sum(asked.turn == 1 for asked in talker.asked)
        assert refused <= 3 + 8, "what it takes to know, and what was in flight"
        first, calls = turns_asked(talker), len(talker.asked)
        script.said.append("Done.")
        assert user.run()["labelled"] == count
        later = Counter((asked.key, asked.turn) for asked in talker.asked[calls:])
    assert not {one for one in later if one[1] == 0} & first.keys(), "what was answered is not asked for again"
    assert set(called_back(user).values()) == {1}
    user.verify()


def test_a_conversation_that_failed_in_the_middle_goes_on_when_it_is_asked_again(tmp_path: Path) -> None:
    """It began anew: its first answer was paid for twice, and what its callback did was done twice."""
    answers = [503]

    def script(key: str, turn: int, _messages: list[dict[str, Any]]) -> Any:
        if turn < 2:
            return [("look_up", {"thing": ["kettle", "lamp"][turn]})]
        return answers[-1] if key == "r0001" else f"{key} is done."

    with Talker(script) as talker:
        user = talking(tmp_path, talker.base_url, count=8, limits={"max_attempts": 1})
        summary = user.run(code=1)
        assert (summary["labelled"], summary["failed"]) == (7, 1)
        assert [(row["key"], row["code"]) for row in user.failed()] == [("r0001", "unavailable")]
        before, lines = len(talker.asked), noted(user)
        assert user.do("retry", "job.toml", "--json").expect(1).json["failed"] == 1, "once more in vain"
        answers.append("Done at last.")
        done = user.do("retry", "job.toml", "--json").expect(0).json
    again = talker.asked[before:]
    assert {(asked.key, asked.turn) for asked in again} == {("r0001", 2)}, "no kept answer is paid for again"
    assert noted(user) == lines, "no callback that gave something back is called again"
    assert again[-1].messages == next(
        asked.messages for asked in talker.asked if asked.turn == 2 and asked.key == "r0001"
    )
    row = next(row for row in user.labels() if row["id"] == "r0001")
    assert (row["look_up_thing"], row["words"]) == ("lamp", "Done at last.")
    assert done["usage"]["prompt"] == 10 * 3 * 8, "each answer is counted once, over all that was reserved"
    user.verify()


def test_a_replay_does_not_read_turns_of_another_prompt(tmp_path: Path) -> None:
    """They are left where a new conversation ended at once: the old one's calls came back as the record's columns."""

    def script(_key: str, turn: int, messages: list[dict[str, Any]]) -> Any:
        if "anew" in messages[0]["content"]:
            return "There is nothing to do."
        return 503 if turn else [("look_up", {"thing": "lamp"})]

    with Talker(script) as talker:
        user = talking(tmp_path, talker.base_url, count=3, task={"call": "any"})
        process = user.start("run", "job.toml", "--json")
        wait_until(lambda: len({asked.key for asked in talker.asked if asked.turn == 1}) == 3)
        assert process.kill() == -signal.SIGKILL
        assert outcomes(user) == {}
        calls = len(talker.asked)
        user.configure(task={"prompt": "{{ id }} anew {{ text }}"})
        assert user.run("--relabel")["labelled"] == 3
        assert len(talker.asked) == calls + 3, "nothing can be made of the old answers"
        before = user.labels()
        assert {(row["words"], row["tool"], row["look_up_thing"]) for row in before} == {
            ("There is nothing to do.", "", "")
        }
        assert [one.usage.total for one in outcomes(user).values()] == 3 * [2 * TOKENS], "they were paid for"
        user.do("replay", "job.toml", "--json").expect(0)
        assert user.labels() == before
        assert (len(talker.asked), len(noted(user))) == (calls + 3, 3)
        user.verify()
