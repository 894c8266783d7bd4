"""Servers that lie about their limits: too high, too low, negative, nonsense, none left for ever, hours of waiting."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from clocks import start_moved
from end_to_end.stage import project, rows, wait_until
from killing import CONCURRENCY, Scene, prove
from moved import Clock
from rounds import side_by_side
from sky import Skies

pytestmark = pytest.mark.chaos

#: How long a server's word is heard at a time, in seconds.
HEARD_S = 900.0
HUGE = "9" * 40
NONSENSE = ("", "-1", "-999999", "many", "NaN", "inf", "1e999", "0x10", "3.7", "1,000", "\u0663", "null", HUGE)
#: What is told too low is believed, and costs time: these are still a few calls a second.
LIMITS = {"requests": (*NONSENSE, "0", "1000000", "6000", "3000"), "tokens": (*NONSENSE, "0", "1000000", "400000")}
REMAINING = (*NONSENSE, "0", "0", "1000000", "1")
#: A reset of hours with nothing left is a limit a day, and waited for: `test_hours_of_waiting`.
RESETS = ("", "-3s", "soon", "0", "0s", "1ms", "250ms", "1s", "59s", "1m0s", "inf", "1e999", "-5h", "s", "12parsecs")
WAITS = ("", "0", "-1", "-3600", "soon", "nan", "inf", "0.05", "Thu, 01 Jan 1970 00:00:00 GMT", "Feb 31", "1e999")


def lies(dice: random.Random) -> Mapping[str, str]:
    """Some of the headers, each with a value of its own."""
    told: dict[str, str] = {}
    for what, limits in LIMITS.items():
        for kind, values in (("limit", limits), ("remaining", REMAINING), ("reset", RESETS)):
            if dice.random() < 0.8:
                told[f"x-ratelimit-{kind}-{what}"] = dice.choice(values)
    for name in ("retry-after", "retry-after-ms"):
        if dice.random() < 0.3:
            told[name] = dice.choice(WAITS)
    return told


def test_random_lies_in_every_answer_and_kills(tmp_path: Path, skies: Skies, seed: int) -> None:
    dice, liar = random.Random(seed), random.Random(seed + 1)
    sky = skies.open(requests_per_minute=6000, burst_s=0.5, retry_after=False, headers=False, faults={"429": 0.03})
    sky.lie = lambda: lies(liar)
    given = rows(300)
    scene = Scene(project(tmp_path / "lies", sky.base_url, len(given)), sky.endpoint, given, seed)
    for _ in range(dice.randint(1, 3)):
        scene.strike("run", "job.toml", most_calls=60)
    scene.user.run()
    prove(scene)
    calls = sky.endpoint.calls()
    assert calls < 1.3 * len(given) + CONCURRENCY * len(scene.kills), f"{scene}: {calls} calls"


AT_ONCE: Sequence[Mapping[str, str]] = ({"retry-after": "0"}, {"retry-after-ms": "0"}, {"retry-after": "-5"}, {})


def test_refusals_without_end_that_say_come_at_once(tmp_path: Path, skies: Skies, seed: int) -> None:
    """All are refused for seconds, and told to come again at once: whoever believed that would storm the server."""
    cases = random.Random(seed).sample(AT_ONCE, 2)
    side_by_side(lambda headers: _refused_at_once(headers, tmp_path / str(AT_ONCE.index(headers)), skies, seed), cases)


def _refused_at_once(headers: Mapping[str, str], folder: Path, skies: Skies, seed: int) -> None:
    dice = random.Random(f"{seed} {headers}")
    sky = skies.open()
    sky.turn_at(dice.randint(1, 100), "429", refusal=lambda: headers)
    user = project(folder, sky.base_url, 150)
    process = user.start("run", "job.toml", "--json")
    wait_until(lambda: sky.met["429"] > 0)
    time.sleep(dice.uniform(0.7, 1.5))
    told = f"seed {seed}, {headers}"
    assert sky.met["429"] <= 4 * CONCURRENCY, f"{told}: a storm of {sky.met['429']} calls"
    skies.do(sky.change("fair"))
    summary = process.wait().expect(0).json
    assert (summary["labelled"], summary["failed"]) == (150, 0), told
    assert {len(answers) for answers in sky.endpoint.given().values()} == {1}, told


def test_none_left_for_ever(tmp_path: Path, skies: Skies, seed: int) -> None:
    dice = random.Random(seed)
    reset = dice.choice(["1s", "59s", "20ms", "0s", "1m5s"])
    sky = skies.open()
    words = dice.choice([["requests"], ["tokens"], ["requests", "tokens"]])
    sky.lie = lambda: {name: told for word in words for name, told in _none_left(word, reset).items()}
    given = rows(100)
    scene = Scene(project(tmp_path / "none", sky.base_url, len(given)), sky.endpoint, given, seed)
    scene.strike("run", "job.toml", most_calls=40)
    scene.user.run()
    prove(scene)


#: How a server asks for hours: three ways of a 429, and a good answer.
HOURS: Mapping[str, Callable[[int], Mapping[str, str]]] = {
    "retry-after": lambda hours: {"retry-after": str(hours * 3600)},
    "retry-after-ms": lambda hours: {"retry-after-ms": str(hours * 3_600_000)},
    "reset of a refusal": lambda hours: _none_left("requests", f"{hours}h"),
    "reset of an answer": lambda hours: _none_left("tokens", f"{hours}h0m0s"),
}


def _none_left(what: str, reset: str) -> Mapping[str, str]:
    return {f"x-ratelimit-remaining-{what}": "0", f"x-ratelimit-reset-{what}": reset}


def test_hours_of_waiting(tmp_path: Path, skies: Skies, seed: int) -> None:
    """They are waited for; one call asks again each quarter of an hour, and so does a restart."""
    side_by_side(lambda way: _hours(way, tmp_path / way, skies, seed), random.Random(seed).sample(list(HOURS), 2))


def _hours(way: str, folder: Path, skies: Skies, seed: int) -> None:
    dice = random.Random(f"{seed} {way}")
    hours, told = dice.randint(1, 30), f"seed {seed}, {way}"
    sky = skies.open()
    given = rows(120)
    user = project(folder, sky.base_url, len(given))
    clock = Clock(user.folder / "clock")
    scene = Scene(user, sky.endpoint, given, seed)
    asked, turn = HOURS[way](hours), dice.randint(1, 60)
    if way == "reset of an answer":
        sky.turn_at(turn, lie=lambda: asked)
    else:
        sky.turn_at(turn, "429", refusal=lambda: asked)
    process = start_moved(user, "run", "job.toml", "--json")
    wait_until(lambda: _waits(user.run_dir) and sky.endpoint.in_flight() == 0)
    calls = sky.endpoint.calls()
    if dice.random() < 0.5:
        scene._end(process, signal.SIGKILL, "SIGKILL while it waits")
        (user.run_dir / "live.json").unlink()
        process = start_moved(user, "run", "job.toml", "--json")
        wait_until(lambda: _waits(user.run_dir) and sky.endpoint.in_flight() == 0)
        assert sky.endpoint.calls() <= calls + 1, f"{told}: a restart storms"
        calls = sky.endpoint.calls()
    for _ in range(2):
        clock.move(HEARD_S - 60)
        _looked_twice(user.run_dir, clock)
        assert sky.endpoint.calls() == calls, f"{told}: it did not wait"
        clock.move(61)
        wait_until(lambda calls=calls: sky.endpoint.calls() > calls and _waits(user.run_dir))
        time.sleep(0.2)
        calls += 1
        assert sky.endpoint.calls() == calls, f"{told}: more than one call asked again"
    sky.lie = dict
    skies.do(sky.change("fair"))
    clock.move(HEARD_S + 1)
    summary = process.wait().expect(0).json
    assert (summary["labelled"], summary["failed"]) == (len(given), 0), told
    prove(scene)


def test_refusals_for_hours_end_the_run_like_an_outage(tmp_path: Path, skies: Skies, seed: int) -> None:
    """Counted from the first refusal; an hour in which calls are answered, or none leaves by order, is none of it."""
    dice = random.Random(seed)
    # Hours would be a day's limit, and excused; these are none.
    asked = dice.choice([{"retry-after": "3500"}, {"retry-after-ms": "3500000"}, _none_left("requests", "58m"), {}])
    sky = skies.open()
    sky.turn_at(dice.randint(20, 60), "429", refusal=lambda: asked)
    user = project(tmp_path / "refused", sky.base_url, 120, limits={"outage_limit_s": 5000})
    clock = Clock(user.folder / "clock")
    process = start_moved(user, "run", "job.toml", "--json")
    wait_until(lambda: sky.met["429"] > 0 and bool(_live(user.run_dir)))
    user.do("pause", "run").expect(0)
    wait_until(lambda: str(_live(user.run_dir).get("trouble", "")).startswith("PAUSED"))
    _looked_twice(user.run_dir, clock)
    clock.move(20_000)
    _looked_twice(user.run_dir, clock)
    user.do("resume", "run").expect(0)
    for passed_s in range(0, 5000, 500):
        assert process.popen.poll() is None, f"seed {seed}, {asked}: over after {passed_s} s"
        clock.move(498)
        if passed_s < 4500:
            _looked_twice(user.run_dir, clock)
    done = process.wait().expect(3).json
    assert "refused" in done["reason"], f"seed {seed}, {asked}: {done}"
    assert sky.met["429"] <= CONCURRENCY + 60, f"seed {seed}, {asked}: {sky.met['429']} calls were refused"
    skies.do(sky.change("fair"))
    assert user.run()["labelled"] == 120, f"seed {seed}, {asked}"
    assert {len(answers) for answers in sky.endpoint.given().values()} == {1}, f"seed {seed}, {asked}"


def test_the_servers_own_day_is_waited_out_and_is_no_outage(tmp_path: Path, skies: Skies, seed: int) -> None:
    """429 with a Retry-After of ten hours: told with its moment, waited for beyond outage_limit_s."""
    dice = random.Random(seed)
    sky = skies.open()
    user = project(tmp_path / "day", sky.base_url, 120, limits={"outage_limit_s": 6 * 3600, "max_attempts": 2})
    clock = Clock(user.folder / "clock")
    hours = 10 * 3600.0

    def asked() -> Mapping[str, str]:
        left_s = max(1, round(hours - clock.ahead_s))
        told = {"x-ratelimit-limit-requests": "200", "x-ratelimit-reset-requests": f"{left_s}s"}
        return told if dice.random() < 0.5 else {**told, "retry-after": str(left_s)}

    sky.turn_at(dice.randint(20, 60), "429", refusal=asked)
    process = start_moved(user, "run", "job.toml", "--json")
    for passed_s in (0.0, 900.0, 6.5 * 3600.0, 2.0 * 3600.0):
        clock.move(passed_s)
        _looked_twice(user.run_dir, clock)
        wait_until(
            lambda: "the server's day limit of 200 requests; waits until" in _live(user.run_dir).get("trouble", "")
        )
        assert process.popen.poll() is None, f"seed {seed}: over at {clock.ahead_s / 3600:.1f} h"
    stopped = user.do("run", "job.toml", "--output", "other", "--set", "limits.on_day_limit=stop").expect(3)
    assert "the server's day limit of 200 requests is used up until" in stopped.err
    skies.do(sky.change("fair"))
    clock.move(hours - clock.ahead_s + 1)
    assert process.wait().expect(0).json["labelled"] == 120, f"seed {seed}"


def _live(run_dir: Path) -> dict[str, Any]:
    """What the session shows of itself; {} while it does not."""
    try:
        found: dict[str, Any] = json.loads((run_dir / "live.json").read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def _looked_twice(run_dir: Path, clock: Clock) -> None:
    """Return once the session has looked at its clock twice more, within three seconds of it.

    It writes what it shows each time.
    """
    live = run_dir / "live.json"
    wait_until(live.exists)
    for _ in range(2):
        before = live.stat().st_mtime_ns
        clock.move(1.1)
        wait_until(lambda before=before: live.stat().st_mtime_ns != before)


def _waits(run_dir: Path) -> bool:
    """Whether the session shows that it waits, and why."""
    return str(_live(run_dir).get("trouble", "")).startswith("waiting")


FOR_EVER = ("99999999999", HUGE, "1e300", "Fri, 31 Dec 9999 23:59:59 GMT")


def test_a_wait_without_end_is_shown_and_can_be_left(tmp_path: Path, skies: Skies, seed: int) -> None:
    cases = random.Random(seed).sample(FOR_EVER, 2)
    side_by_side(lambda wait: _for_ever(wait, tmp_path / str(FOR_EVER.index(wait)), skies, seed), cases)


def _for_ever(wait: str, folder: Path, skies: Skies, seed: int) -> None:
    dice = random.Random(f"{seed} {wait}")
    sky = skies.open()
    sky.turn_at(dice.randint(1, 30), "429", refusal=lambda: {"retry-after": wait})
    user = project(folder, sky.base_url, 60)
    process = user.start("run", "job.toml", "--json")
    wait_until(lambda: _waits(user.run_dir))
    # A wait that cannot be true is not heard: it waits as it does where none is named, and asks again in between.
    wait_until(lambda: "waiting" in user.do("status", "run").expect(0).out)
    if dice.random() < 0.5:
        process.signal(signal.SIGINT)
        process.wait().expect(130)
    else:
        user.do("drain", "run").expect(0)
        process.wait().expect(3)
    skies.do(sky.change("fair"))
    assert user.run()["labelled"] == 60, f"seed {seed}"
    assert {len(answers) for answers in sky.endpoint.given().values()} == {1}, f"seed {seed}"
