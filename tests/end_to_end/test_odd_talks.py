"""Conversations with a model that answers oddly: ids that repeat, and answers without anything in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import wait_until
from end_to_end.talks import Talker, noted, talking

LAMP = {"thing": "lamp"}


@pytest.mark.parametrize("name", ["x", "", "i" * 64])
def test_ids_that_repeat_are_sent_back_as_others_also_after_a_kill(tmp_path: Path, name: str) -> None:
    """The endpoint refuses an id that is there twice, or is long. A conversation that is taken up goes on alike."""

    def script(key: str, turn: int, messages: list[dict[str, Any]]) -> Any:
        if turn < 2:
            return [("look_up", LAMP, name), ("close", {"why": "done"}, name)]
        return "All done."

    task = {"call": "some", "max_turns": 4}
    with Talker(script) as talker:
        whole = talking(tmp_path / "whole", talker.base_url, count=1, task=task)
        whole.run()
        user = talking(tmp_path / "killed", talker.base_url, count=1, task={**task, "callback": "talk:waits"})
        process = user.start("run", "job.toml", "--json")
        wait_until(lambda: len(noted(user)) == 1)
        process.kill()
        (user.folder / "go").write_text("1")
        before = len(talker.asked)
        user.run()
    user.verify()
    assert [row["words"] for row in whole.labels() + user.labels()] == ["All done."] * 2
    last, resumed = talker.asked[before - 2], talker.asked[-1]
    assert len(talker.asked) == before + 2, "the answer that was kept was not asked for again"

    def ids(messages: list[dict[str, Any]]) -> list[str]:
        return [call["id"] for one in messages for call in one.get("tool_calls", ())]

    assert ids(resumed.messages) == ids(last.messages)
    keys = [line["key"] for line in noted(user)]
    assert keys[0] == keys[1], "the call that was cut off is made again with its key"
    assert len(set(keys)) == 4


@pytest.mark.parametrize("silence", [None, "", "  "])
def test_an_empty_answer_is_asked_again_for_words(tmp_path: Path, silence: str | None) -> None:
    """r0001 speaks when asked again, r0002 never does."""

    def script(key: str, turn: int, messages: list[dict[str, Any]]) -> Any:
        if turn == 0:
            return [("look_up", LAMP)]
        asked_again = "Answer in words" in str(messages[-1]["content"])
        return "Three are left." if asked_again and key == "r0001" else silence

    with Talker(script) as talker:
        user = talking(tmp_path, talker.base_url, count=2, limits={"max_repairs": 2})
        user.run(code=1)
        assert user.do("replay", "job.toml", "--json").expect(1).json["labelled"] == 1
    user.verify()
    assert [(row["id"], row["words"]) for row in user.labels()] == [("r0001", "Three are left.")]
    assert [(row["key"], row["code"]) for row in user.failed()] == [("r0002", "unfinished")]
    assert (len(talker.turns_of("r0001")), len(talker.turns_of("r0002"))) == (3, 4)
    assert len(noted(user)) == 2, "the callbacks were called once"


def test_with_any_call_an_empty_first_answer_is_no_decision(tmp_path: Path) -> None:
    def script(key: str, turn: int, messages: list[dict[str, Any]]) -> Any:
        return "" if key == "r0001" or len(messages) == 1 else "Nothing to do."

    with Talker(script) as talker:
        task = {"call": "any", "max_turns": None, "reply": None, "callback": None}
        user = talking(tmp_path, talker.base_url, count=2, task=task, limits={"max_repairs": 1})
        user.run(code=1)
    assert [row["id"] for row in user.labels()] == ["r0002"]
    assert [(row["key"], row["code"]) for row in user.failed()] == [("r0001", "no_tool_call")]
