"""Stops and kills while records are asked again: what was paid for counts, and nothing is asked for twice."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Project, wait_until
from end_to_end.talks import Talker, outcomes, talking

COUNT, CONCURRENCY = 40, 8
PRICE_USD = 2.0 / 1e6  # a token, whichever


def twice_bad(_key: str, _turn: int, messages: list[dict[str, Any]]) -> Any:
    """Two answers that do not fit, then one that does; which one comes next shows in the last that is shown."""
    shown = [call["function"]["arguments"] for one in messages for call in one.get("tool_calls") or ()]
    last = json.loads(shown[-1])["thing"] if shown else "bad 0"
    return [("look_up", {"thing": {"bad 0": "bad 1", "bad 1": "bad 2", "bad 2": "lamp"}[last]})]


@pytest.fixture
def user(tmp_path: Path, talker: Talker) -> Project:
    return talking(
        tmp_path,
        talker.base_url,
        count=COUNT,
        task={"callback": None, "max_turns": 1, "reply": None, "call": "any"},
        model={"price": {"input": 2.0, "output": 2.0}},
        limits={"concurrency": CONCURRENCY},
    )


@pytest.fixture
def talker() -> Any:
    with Talker(twice_bad, latency_s=0.02) as talker:
        yield talker


def test_a_stop_in_mid_repair_loses_no_paid_answer(user: Project, talker: Talker) -> None:
    process = user.start("run", "job.toml", "--json")
    wait_until(lambda: len(talker.asked) >= COUNT + CONCURRENCY)
    process.signal(signal.SIGINT)
    process.wait()
    assert 0 < len(talker.asked) < 3 * COUNT
    user.run()

    assert Counter(asked.key for asked in talker.asked) == dict.fromkeys(outcomes(user), 3), "nothing is asked twice"
    for outcome in outcomes(user).values():
        assert "lamp" in outcome.label.values()
        assert (outcome.attempts, outcome.repairs) == (3, 2)
        assert (outcome.usage.total, outcome.cost_usd) == (39, pytest.approx(39 * PRICE_USD))


@pytest.mark.chaos
def test_kills_in_mid_repair_cost_what_was_in_flight(user: Project, talker: Talker) -> None:
    kills = 3
    for number in range(kills):
        process = user.start("run", "job.toml", "--json")
        goal = len(talker.asked) + 25 + number
        wait_until(lambda: len(talker.asked) >= goal)  # noqa: B023
        assert process.kill() == -signal.SIGKILL
    user.run()

    done = outcomes(user)
    assert len(done) == COUNT
    assert all(outcome.repairs == 2 for outcome in done.values())
    lost = len(talker.asked) - sum(outcome.attempts for outcome in done.values())
    assert 0 <= lost <= kills * CONCURRENCY, "the ledger tells of all others"
    assert len(talker.asked) - 3 * COUNT <= kills * CONCURRENCY
