"""A day's limit over kills, restarts and count_midnights. The test moves the clock of the real processes."""

from __future__ import annotations

import json
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from clocks import start_moved
from end_to_end.stage import Endpoints, Process, project, rows, wait_until
from killing import Scene, prove
from moved import Clock

pytestmark = pytest.mark.chaos

DAY_S = 86_400


@dataclass
class Calendar:
    """A scene whose commands go by a clock that is moved from day to day."""

    scene: Scene
    clock: Clock
    limit: int
    dice: random.Random
    process: Process | None = None
    #: calls of each day, and kills in it
    calls: list[int] = field(default_factory=list)
    kills: list[int] = field(default_factory=list)

    def go_on(self, on_day_limit: str) -> Process:
        """The session at work; a new one where there is none."""
        if self.process is None:
            (self.scene.user.run_dir / "live.json").unlink(missing_ok=True)  # an earlier session's
            self.process = start_moved(
                self.scene.user, "run", "job.toml", "--json", "--set", f"limits.on_day_limit={on_day_limit}"
            )
        return self.process

    def kill_after(self, calls: int) -> None:
        """Let it go on until the endpoint has seen so many calls, or no more come."""
        process, endpoint = self.go_on("wait"), self.scene.endpoint
        wait_until(lambda: endpoint.calls() >= calls or self._is_waiting() or process.popen.poll() is not None)
        self.kill()

    def kill(self) -> None:
        """End the session as a machine does that loses power."""
        if self.process is not None:
            self.scene._end(self.process, signal.SIGKILL, f"SIGKILL on {self}")
            self.process = None
            self.kills[-1] += 1

    def until_used_up(self, on_day_limit: str) -> int | None:
        """Go on until the day is used up: the exit code, or None while the session waits for the next day."""
        process = self.go_on(on_day_limit)
        wait_until(lambda: process.popen.poll() is not None or self._is_waiting())
        if process.popen.poll() is None:
            return None
        self.process = None
        done = process.wait()
        assert done.code == 0 or "requests a day are used up" in done.json["reason"], f"{self}: {done}"
        return done.code

    def to_midnight_s(self) -> float:
        """Seconds left of the day (UTC) that the moved clock shows."""
        return DAY_S - (time.time() + self.clock.ahead_s) % DAY_S

    def to_tomorrow(self) -> None:
        """Some time after midnight; a session that waited for it goes on."""
        calls = self.scene.endpoint.calls()
        self.clock.move(self.to_midnight_s() + self.dice.uniform(1.0, 0.9 * DAY_S))
        if self.process is not None:
            wait_until(lambda: self.scene.endpoint.calls() > calls)
            (self.scene.user.run_dir / "live.json").unlink(missing_ok=True)  # it was of yesterday

    def _is_waiting(self) -> bool:
        try:
            live: dict[str, Any] = json.loads((self.scene.user.run_dir / "live.json").read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        return "requests a day are used up" in live["trouble"] and self.scene.endpoint.in_flight() == 0

    def __str__(self) -> str:
        return f"day {len(self.calls) + 1} of {self.limit} calls a day, seed {self.scene.seed}"


def test_a_days_limit_holds_over_kills_restarts_and_midnights(tmp_path: Path, endpoints: Endpoints, seed: int) -> None:
    dice = random.Random(seed)
    limit = dice.choice([80, 250])
    given = rows(int(2.2 * limit))
    endpoint = endpoints.open(latency_ms=10.0, faults={"503": 0.02, "bad_label": 0.02})
    limits = {"requests_per_day": limit}
    user = project(tmp_path / "days", endpoint.base_url, len(given), limits=limits)
    days = Calendar(Scene(user, endpoint, given, seed), Clock(user.folder / "clock"), limit, dice)
    days.clock.move(days.to_midnight_s() + dice.uniform(0.1, 0.8) * DAY_S)
    while not _pass_a_day(days):
        assert len(days.calls) < 6, f"it never ends: {days}, {days.calls}"
    assert len(days.calls) >= 2, f"{days}: {days.calls}"
    prove(days.scene)


def _pass_a_day(days: Calendar) -> bool:
    """Kills at random moments, the limit, a restart in vain, midnight. True: all is done."""
    endpoint, dice = days.scene.endpoint, days.dice
    begun = sum(days.calls)
    days.kills.append(0)
    for _ in range(dice.randint(0, 2)):
        # The last calls of a day are in reach too: then it is killed while it waits.
        days.kill_after(begun + dice.randint(1, days.limit))
    code = days.until_used_up(dice.choice(["stop", "wait"]))
    used = endpoint.calls() - begun
    assert used <= days.limit, f"{days}: {used} calls"
    if code == 0:
        days.calls.append(used)
        return True
    # What a killed session had leased stays counted: a hundredth of the limit.
    least = days.limit - days.kills[-1] * max(1, days.limit // 100)
    assert used >= least, f"{days}: only {used} calls after {days.kills[-1]} kills"
    days.kill()
    days.clock.move(days.to_midnight_s() * dice.uniform(0.1, 0.9))
    code = days.until_used_up(dice.choice(["stop", "wait"]))
    assert code in (3, None), f"{days}: exit code {code}"
    assert endpoint.calls() == begun + used, f"{days}: a restart counted anew"
    days.calls.append(used)
    days.to_tomorrow()
    return False
