"""Outages at random moments, of every kind, and kills in the middle of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from end_to_end.stage import project, rows, wait_until
from killing import CONCURRENCY, Scene, prove
from rounds import side_by_side
from sky import FOUL, Skies

pytestmark = pytest.mark.chaos


def test_outages_and_kills_cost_time_and_no_row(tmp_path: Path, skies: Skies, seed: int) -> None:
    dice = random.Random(seed)
    sky = skies.open(faults={"bad_label": 0.02, "cut": 0.01})
    given = rows(300)
    # The weather goes by the clock: on a busy machine a record meets more outages than it has attempts by default.
    limits = {"probe_max_s": 0.4, "max_attempts": 25}
    user = project(tmp_path / "outages", sky.base_url, len(given), model={"timeout_s": 3}, limits=limits)
    scene = Scene(user, sky.endpoint, given, seed)
    with skies.weather(sky, dice) as seen:
        for _ in range(3):
            scene.strike("run", "job.toml", most_calls=80)
        summary = user.run()
    prove(scene)
    assert (summary["failed"], summary["rejected"]) == (0, 0), f"{scene}: given up because the provider was down"
    foul = sum(count for mood, count in sky.met.items() if mood != "fair")
    # What was on its way when it began, what proved that it is one, the probes; and once more for each new process.
    most = len(seen) * (3 * CONCURRENCY + 6) + 5 * CONCURRENCY
    assert foul <= most, f"{scene}: {foul} calls into {len(seen)} outages: {sky.met}"


def test_an_outage_from_the_first_call_on_gives_nothing_up(tmp_path: Path, skies: Skies, seed: int) -> None:
    dice = random.Random(seed + 1)
    kinds = dice.sample(FOUL, 2)
    side_by_side(lambda kind: _never_up(kind, tmp_path / kind, skies, seed), kinds)


def _never_up(kind: str, folder: Path, skies: Skies, seed: int) -> None:
    """Killed once in the outage, ended by its limit once; then the weather is fair, and all is done."""
    told = f"{kind}, seed {seed}"
    sky = skies.open(latency_ms=5.0)
    limits = {"outage_limit_s": 0.6, "probe_max_s": 0.3}
    user = project(folder, sky.base_url, 60, model={"timeout_s": 1.5}, limits=limits)
    skies.do(sky.change(kind))
    process = user.start("run", "job.toml", "--set", "limits.outage_limit_s=1000")
    calls = random.Random(told).randint(1, 15)
    live = user.run_dir / "live.json"  # where nobody listens no call is seen
    wait_until(lambda: live.exists() if kind == "refused" else sum(sky.met.values()) >= calls)
    process.kill()
    assert user.run(code=3)["reason"].startswith("no answer for"), told
    assert user.failed() == [], f"{told}: given up"
    assert sum(sky.met.values()) < 80, f"{told}: a storm: {sky.met}"
    skies.do(sky.change("fair"))
    user.configure(model={"timeout_s": 20})
    assert user.run()["labelled"] == 60, told
    assert {len(answers) for answers in sky.endpoint.given().values()} == {1}, f"{told}: paid twice"
    assert user.verify()["labelled"] == 60
