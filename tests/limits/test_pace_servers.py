"""The config promises twice what the server gives: the rate is found, used and kept, without headers too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from limit_servers import Bucket, Log, Seen, Server, run_against

from pipeline.limits import Admission, Gate, LocalResource, meters

RunOn = Callable[[Any], Any]
SERVERS: dict[str, Callable[[float], Server]] = {
    "a bucket of a minute": lambda rate: Bucket(rate, 60),
    "a bucket of a second": lambda rate: Bucket(rate, 1),
    "a log of a minute": lambda rate: Log(rate, 60),
}


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer looks: the rates here are low enough, and minutes of them are many. `slow` ones need fewer still."""
    monkeypatch.setattr(meters, "POLL_S", 0.01)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, _coarse: None) -> None:
    monkeypatch.setattr(meters, "POLL_S", 0.025)


def door_of(per_minute: float | None, concurrency: int = 32) -> Admission:
    return Admission(gate=Gate(concurrency), resource=LocalResource(per_minute))


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    ("kind", "tells"),
    [
        ("a bucket of a minute", True),
        ("a bucket of a second", True),
        ("a bucket of a second", False),
        ("a log of a minute", False),
    ],
)
def test_minutes_at_twice_what_the_server_gives(moved_clock: RunOn, kind: str, tells: bool) -> None:
    async def main() -> Seen:
        return await run_against(SERVERS[kind](600), door_of(1200), 360, tells=tells)

    seen = moved_clock(main())
    assert len(seen.accepted) >= 0.90 * 3600
    assert seen.refused_share < 0.05


@pytest.mark.usefixtures("slow")
def test_a_low_rate_is_found_too(moved_clock: RunOn) -> None:
    """Of one call a second every refusal is many per cent, and ten answers take ten seconds."""

    async def main() -> Seen:
        return await run_against(Bucket(60, 1), door_of(120), 600, tells=True)

    seen = moved_clock(main())
    assert len(seen.accepted) >= 0.85 * 600
    assert seen.refused_share < 0.05


def test_with_no_limit_in_the_config_the_servers_is_found(moved_clock: RunOn) -> None:
    """All that wait leave at once after each hold: the window has to shrink as well."""

    async def main() -> Seen:
        return await run_against(Bucket(3000, 1), door_of(None, 64), 180, tells=True)

    seen = moved_clock(main())
    assert len(seen.accepted) >= 0.90 * 9000
    assert seen.refused_share < 0.10


def test_what_a_big_bucket_had_in_store_is_not_taken_for_its_rate(moved_clock: RunOn) -> None:
    """Its content passed at six times the rate. The rate was then felt for downwards, in steps of 15 % of that, each
    paid for with a dozen refusals.
    """

    async def main() -> Seen:
        return await run_against(Bucket(3000, 60), door_of(None, 64), 240, tells=True, latency_s=0.2, refusal_s=0.004)

    seen = moved_clock(main())
    assert len(seen.accepted) >= 0.97 * 3000 * 5
    assert seen.refused_share < 0.03


@pytest.mark.parametrize("latency_s", [0.2, 4.0])
def test_a_rate_that_was_found_is_met_again_by_a_few_refusals(moved_clock: RunOn, latency_s: float) -> None:
    """The third and fourth minute, in which the pace grows beyond it several times. Some twenty told it from noise."""

    async def main() -> tuple[Seen, float]:
        seen = await run_against(Bucket(3000, 60, 0.1), door_of(None, 256), 240, tells=True, workers=256,
                                 latency_s=latency_s, refusal_s=0.004)  # fmt: skip
        return seen, asyncio.get_running_loop().time() - 120

    seen, since = moved_clock(main())
    refused = [stamp for stamp in seen.refused if stamp >= since]
    assert 0 < len(refused) < 0.015 * 6000
    assert sum(stamp >= since for stamp in seen.accepted) > 0.97 * 6000


def test_a_window_that_was_used_up_in_a_burst_is_found_too(moved_clock: RunOn) -> None:
    """Held until its first call is forgotten, and then refused again at once: of late next to nothing had passed."""

    async def main() -> Seen:
        return await run_against(Log(3000, 10), door_of(None, 64), 180, tells=True, latency_s=0.2)

    seen = moved_clock(main())
    assert len(seen.accepted) >= 0.90 * 9000
    assert seen.refused_share < 0.10


def test_long_calls_do_not_make_the_rate_look_low(moved_clock: RunOn) -> None:
    """What was sent since the refusals began is answered much later."""

    async def main() -> Seen:
        return await run_against(Bucket(3000, 1), door_of(6000, 200), 180, tells=True, workers=200, latency_s=2.0)

    seen = moved_clock(main())
    assert len(seen.accepted) >= 0.95 * 9000
    assert seen.refused_share < 0.06  # one cut more: late refusals may look as if a cut had not helped


@pytest.mark.usefixtures("slow")
def test_it_grows_back_when_the_server_allows_more_again(moved_clock: RunOn) -> None:
    async def main() -> tuple[Seen, float | None]:
        server, door = Bucket(600, 1), door_of(1800)
        await run_against(server, door_of(1800), 1, tells=True)
        asyncio.get_running_loop().call_later(120, setattr, server, "per_minute", 1500.0)
        seen = await run_against(server, door, 360, tells=True)
        return seen, door.state().requests_per_minute

    seen, pace = moved_clock(main())
    end = seen.accepted[-1]
    assert sum(stamp > end - 60 for stamp in seen.accepted) > 0.90 * 1500
    assert pace is not None
    assert pace > 1400


@pytest.mark.usefixtures("slow")
def test_the_config_is_never_passed_and_is_used_where_the_server_gives_it(moved_clock: RunOn) -> None:
    async def main() -> Seen:
        return await run_against(Bucket(60_000, 60), door_of(1200), 180, tells=True)

    seen = moved_clock(main())
    assert not seen.refused
    stamps = seen.accepted
    # 1200 leave in a minute; answers come in a little nearer to each other than calls went out.
    assert max(sum(start <= stamp < start + 60 for stamp in stamps) for start in stamps[::100]) <= 1203
    assert len(stamps) > 0.97 * 3600
