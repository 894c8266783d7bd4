"""Runs that mostly wait, for a limit, an outage, a Retry-After, a silent server; so they go on side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from end_to_end.stage import Endpoint, Endpoints, Process, Project, project, rows

#: Requests a second that the run "paced" may make.
PER_S = 10
#: Its records.
PACED = 100
#: When the endpoint of the run "outage" is out, in seconds from its first call.
OUTAGE_S = (1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Race:
    """A run at work and the endpoint that it alone calls."""

    user: Project
    endpoint: Endpoint
    process: Process


def begin(folder: Path, endpoints: Endpoints) -> dict[str, Race]:
    """Start them all."""
    hanging = [{**row, "text": "HANG"} if at in (7, 21) else row for at, row in enumerate(rows(40))]
    per_minute = PER_S * 60
    # The server counts over each second, so that a burst would be refused.
    paced = endpoints.open(requests_per_minute=per_minute, burst_s=1.0)
    # Ten calls at once, then one every five seconds; it says so in Retry-After only.
    refused = endpoints.open(requests_per_minute=12, burst_s=50.0, headers=False, latency_ms=50)
    out = endpoints.open(latency_ms=50, outages=[OUTAGE_S])
    hangs = endpoints.open(poison={"HANG": "hang"})
    down = endpoints.open()
    endpoints.close(down)
    return {
        "paced": _race(folder / "paced", paced, rows(PACED), limits={"requests_per_minute": per_minute}),
        "refused": _race(folder / "refused", refused, rows(12), limits={"concurrency": 2}),
        "hangs": _race(folder / "hangs", hangs, hanging, limits={"max_attempts": 2}, model={"timeout_s": 5}),
        "down": _race(folder / "down", down, rows(20), limits={"outage_limit_s": 1}),
        "outage": _race(folder / "outage", out, rows(250), limits={"concurrency": 4}),
    }


def _race(folder: Path, endpoint: Endpoint, given: list[dict[str, Any]], **tables: Any) -> Race:
    user = project(folder, endpoint.base_url, **tables)
    user.give(given)
    return Race(user, endpoint, user.start("run", "job.toml", "--json"))
