"""What others see of a run, and may not do to it, while it is at work."""

from __future__ import annotations

from collections.abc import Callable

from end_to_end.stage import Endpoint, Project, wait_until


def test_status_and_a_second_process(make: Callable[..., Project], endpoint: Endpoint) -> None:
    user = make(count=3_000, limits={"requests_per_minute": 600})
    process = user.start("run", "job.toml", "--json")
    endpoint.wait_for_calls(15)
    wait_until((user.run_dir / "live.json").exists)
    looks = [
        user.start("status", "run", "--json"),
        user.start("run", "job.toml", "--json"),
        user.start("run", "job.toml", "--fresh", "--yes"),
    ]
    status, second, fresh = (look.wait() for look in looks)
    seen = status.expect(0).json
    assert seen["running"] is True
    assert 0 < seen["labelled"] < 3_000
    assert seen["live"]["limit_per_minute"] == 600
    assert seen["live"]["total"] == 3_000
    assert f"process {process.popen.pid}" in second.expect(2).err, "refused by name"
    assert second.out == ""
    assert "at work in this run folder" in fresh.expect(2).err
    assert user.run_dir.exists(), "a run at work is not moved aside"
    process.kill()
