"""What others see of a run, and may not do to it, while it is at work."""

from __future__ import annotations

from end_to_end.races import PACED, PER_S, Race
from end_to_end.stage import wait_until


def test_status_and_a_second_process(races: dict[str, Race]) -> None:
    race = races["paced"]
    race.endpoint.wait_for_calls(15)
    wait_until((race.user.run_dir / "live.json").exists)
    looks = [
        race.user.start("status", "run", "--json"),
        race.user.start("run", "job.toml", "--json"),
        race.user.start("run", "job.toml", "--fresh", "--yes"),
    ]
    status, second, fresh = (process.wait() for process in looks)
    seen = status.expect(0).json
    assert seen["running"] is True
    assert 0 < seen["labelled"] < PACED
    assert seen["live"]["limit_per_minute"] == 60 * PER_S
    assert seen["live"]["total"] == PACED
    assert f"process {race.process.popen.pid}" in second.expect(2).err, "refused by name"
    assert second.out == ""
    assert "at work in this run folder" in fresh.expect(2).err
    assert race.user.run_dir.exists(), "a run at work is not moved aside"
