"""Servers that refuse some calls whatever the rate: the rate must not be bent for it, and a true limit still found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from limit_servers import Moody, Seen, Server, run_against

from pipeline.limits import Admission, Gate, LocalResource, meters
from pipeline.limits.baseline import Baseline

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


def _found(share: float) -> Baseline:
    """That so many are refused at half of the rate too."""
    known = Baseline()
    known.test(1000.0, round(100 * share), 100, 0.0)
    assert _after_a_cut(known, share) == (1000.0,)
    return known


def _after_a_cut(known: Baseline, share: float) -> tuple[float | None] | None:
    """What 200 calls say, of which so many are refused, evenly."""
    for number in range(1, 201):
        known.on_send()
        before = known.on_return(1.0, 2.0, refused=int(number * share) > int((number - 1) * share))
        if before is not None or not known.is_testing:
            return before
    return None


def test_what_was_found_is_half_forgotten_in_five_minutes() -> None:
    known = _found(0.2)
    assert known.share(2.0) == pytest.approx(0.2, rel=0.3)
    assert known.share(302.0) == pytest.approx(known.share(2.0) / 2)
    assert known.share(3602.0) == 0.0


def test_where_far_more_is_refused_than_was_found_it_is_a_limit_and_cuts_stay() -> None:
    known = _found(0.1)
    known.test(1000.0, 40, 100, 10.0)
    known.test(500.0, 10, 100, 20.0)
    assert (known.share(20.0), known.is_testing) == (0.0, False)
    known.test(500.0, 10, 100, 400.0)
    assert known.is_testing


def test_a_cut_after_which_more_is_refused_is_not_taken_back() -> None:
    known = Baseline()
    known.test(1000.0, 10, 100, 0.0)
    assert _after_a_cut(known, 0.8) is None
    assert (known.share(2.0), known.is_testing) == (0.0, False)
