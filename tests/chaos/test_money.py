"""A budget that ends in mid-flight, over kills and resumes, by the endpoint's own books: usage times price."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from end_to_end.stage import Endpoint, Endpoints, project, rows
from killing import Scene, prove

pytestmark = pytest.mark.chaos

#: US dollars for a million tokens, prompt and answer alike: so the books' tokens are money.
PRICE = 2.0
ROOM = 30
#: Billed twice over, billed and never delivered, and unknown whether billed.
FAULTS = {"bad_label": 0.03, "bad_json": 0.01, "cut": 0.01, "reset": 0.005, "503": 0.01}


def billed(endpoint: Endpoint) -> int:
    """Tokens, over all servers that wrote these books."""
    with endpoint.books_path.open("rb") as lines:
        return sum(json.loads(line)["tokens"] for line in lines)


def test_a_budget_is_never_passed_over_kills_resumes_and_raises(
    tmp_path: Path, endpoints: Endpoints, seed: int
) -> None:
    dice = random.Random(seed)
    endpoint = endpoints.open(latency_ms=20.0, latency_jitter=0.9, faults=FAULTS)
    given = rows(900)
    key = dice.choice(["budget_usd", "budget_tokens"])
    user = project(
        tmp_path / "money",
        endpoint.base_url,
        len(given),
        model={"parameters": {"max_completion_tokens": ROOM}, "price": {"input": PRICE, "output": PRICE}},
        limits={"max_repairs": 5},
    )
    scene = Scene(user, endpoint, given, seed)
    cap = 0
    for _ in range(3):
        # A kill costs what it had in flight, at its worst: so each cap leaves room for some.
        cap += dice.randint(25_000, 45_000)
        user.configure(limits={key: cap if key == "budget_tokens" else cap * PRICE / 1e6})
        for _ in range(dice.randint(0, 2)):
            scene.strike("run", "job.toml", most_calls=100)
            assert billed(endpoint) <= cap, f"{scene}: {key} was passed in a killed session"
        summary = user.run(code=3)
        assert f"limits.{key}" in summary["reason"], f"{scene}: {summary['reason']}"
        assert 0 < billed(endpoint) <= cap, f"{scene}: {billed(endpoint)} of {cap} tokens by {key}"
        calls = endpoint.calls()
        user.run(code=3)
        # It was reached by a repair, which is longer: a few records that are short may still fit.
        assert endpoint.calls() <= calls + 30, f"{scene}: it was reached, and {endpoint.calls() - calls} calls left"
        assert billed(endpoint) <= cap, f"{scene}: {key} was passed after it had been reached"
    user.configure(limits={key: 10_000_000 if key == "budget_tokens" else 20.0})
    user.run()
    prove(scene)
