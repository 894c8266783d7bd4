"""Servers that refuse some calls whatever the rate: the rate must not be bent for it, and a true limit still found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from limit_servers import Moody, Seen, Server, run_against

from pipeline.limits import Admission, Gate, LocalResource, meters

RunOn = Callable[[Any], Any]
PLACES = 32


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer looks: the rates here are low enough."""
    monkeypatch.setattr(meters, "POLL_S", 0.01)


def against(run_on: RunOn, server: Server, seconds: float, **options: Any) -> tuple[Seen, Admission]:
    async def main() -> tuple[Seen, Admission]:
        limit = options.pop("per_minute", None)
        door = Admission(gate=Gate(PLACES), resource=LocalResource(limit))
        # More workers than places, as in a run: who waits alone keeps no place.
        facts: dict[str, Any] = {"workers": 5 * PLACES, "tells": True, "latency_s": 0.2, "refusal_s": 0.01, **options}
        return await run_against(server, door, seconds, **facts), door

    found: tuple[Seen, Admission] = run_on(main())
    return found


@pytest.mark.parametrize(
    ("share", "tells", "limit"),
    [
        (0.02, True, None),
        (0.05, True, None),
        (0.05, False, 6_000),
        (0.10, False, None),
        (0.20, True, 6_000),
        (0.20, False, None),
    ],
)
def test_what_is_refused_whatever_the_rate_bends_no_rate(
    moved_clock: RunOn, share: float, tells: bool, limit: int | None
) -> None:
    """The rate was cut at each turn, since it never helped, down to a call a minute: 5 % of refusals cost 95 %."""
    seconds = 60 if limit else 30  # under a limit of the config it takes longer to see that no other one is there
    seen, _ = against(moved_clock, Moody(share, 1.0), seconds, tells=tells, per_minute=limit)
    # Answers come in 0.125 s on average; or what the limit allows.
    whole = seconds * min(PLACES / 0.125, (limit or 1e9) / 60)
    # Of a fifth it cannot be told for some time whether it is a limit.
    assert len(seen.accepted) > (0.75 if share < 0.2 else 0.5) * whole, f"{len(seen.accepted) / whole:.3f}"
    assert seen.refused_share == pytest.approx(share, rel=0.3)
