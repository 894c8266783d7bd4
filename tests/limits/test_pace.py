"""What the server teaches: headers, refusals, noise, and growth."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.limits import Pace


def _run(pace: Pace, seconds: float, refused: float, *, per_s: float = 50.0, start: float = 0.0) -> float:
    """Calls at a steady rate of which a share is refused, at random. Gives the time at the end."""
    chance = random.Random(1)
    now = start
    while now < start + seconds:
        now += 1 / per_s
        pace.on_send(now - 0.05)
        if chance.random() < refused:
            pace.on_refusal(now, now - 0.05)
        else:
            pace.on_answer(1, now)
    return now


def test_a_header_is_believed_at_once_and_the_config_stays_a_cap() -> None:
    pace = Pace(6000)
    pace.on_headers(3000, 0.02)
    assert pace.per_minute == pace.learned == 3000
    pace.on_headers(9000, 0.02)
    assert pace.per_minute == 6000
    assert Pace(None).per_minute is None


def test_one_answer_that_says_far_less_is_a_slip() -> None:
    pace = Pace(None)
    for limit in (3000, 1, 1, 3000, 1, 3000):
        pace.on_headers(limit, 0.02)
        assert pace.per_minute == 3000
    for _ in range(3):
        pace.on_headers(1, 0.02)
    assert pace.per_minute == 1
    pace.on_headers(3000, 0.02)
    assert pace.per_minute == 3000


@pytest.mark.parametrize(("limit", "reset_s"), [(200, 86_400.0), (None, 1.0), (0, 1.0), (-1, None)])
def test_limits_a_day_and_nonsense_are_none_of_it(limit: int | None, reset_s: float | None) -> None:
    pace = Pace(500)
    pace.on_headers(limit, reset_s)
    assert pace.per_minute == 500
    assert pace.learned is None


@pytest.mark.parametrize("configured", [30_000, None])
def test_single_refusals_among_thousands_of_answers_cut_nothing(configured: float | None) -> None:
    pace = Pace(configured)
    _run(pace, 60, 0.005, per_s=400)
    assert pace.per_minute == configured


def test_many_refusals_cut_to_what_was_accepted() -> None:
    pace = Pace(6000)
    _run(pace, 2.5, 0.4, per_s=100)
    assert pace.per_minute is not None
    assert 0.8 * 3600 <= pace.per_minute < 1.1 * 3600


def test_without_a_limit_in_the_config_a_cut_finds_one() -> None:
    pace = Pace(None)
    _run(pace, 2.5, 0.4, per_s=100)
    assert pace.per_minute is not None
    assert 2000 < pace.per_minute < 4000


def test_a_guess_that_is_far_too_high_is_halved_until_more_is_answered() -> None:
    """A full bucket passed at a thousand a second; the server gives ten."""
    pace, now = Pace(None), 0.0
    for number in range(100):
        pace.on_answer(1, now + number / 1000, now + number / 1000 - 0.001)
    now = 0.1
    for _ in range(60):
        now += 60 / (pace.per_minute or 60_000)
        for answered in (False, False, False, True):
            now += 0.02
            pace.on_send(now - 0.001)
            if answered:
                pace.on_answer(1, now, now - 0.001)
            else:
                pace.on_refusal(now, now - 0.001, wait_s=10.0)
    assert pace.per_minute is not None
    assert pace.per_minute < 6000


def test_refusals_alone_lower_a_guess_once() -> None:
    """Probes that are refused for hours would make it nothing."""
    pace = Pace(None)
    now = _run(pace, 0.3, 0.5, per_s=100)
    guess = pace.per_minute
    assert guess is not None
    for _ in range(100):
        now += 900
        pace.on_refusal(now, now - 0.01, wait_s=900)
    assert pace.per_minute is not None
    assert pace.per_minute > 0.19 * guess


def test_refusals_of_calls_sent_before_a_cut_do_not_cut_again() -> None:
    """With a second of latency a hundred more come in for the same reason."""
    pace = Pace(6000)
    now = _run(pace, 2.5, 0.5, per_s=100)
    cut = pace.per_minute
    for late in range(100):
        pace.on_refusal(now + late / 100, sent_at=0.0)
    assert pace.per_minute == cut


def test_where_the_server_asks_for_a_moment_the_rate_is_known_within_one() -> None:
    """Of the calls that left since it refused, one in three was accepted; the bucket's content before is forgotten."""
    pace = Pace(6000)
    now = _run(pace, 1.0, 0.0, per_s=100)
    begin = now
    while pace.learned is None:
        now += 0.01
        pace.on_send(now)
        if round(now * 100) % 3:
            pace.on_refusal(now + 0.002, now, wait_s=0.02)
        else:
            pace.on_answer(1, now + 0.002, now)
    assert now - begin < 1.0
    assert 3000 * 0.97 <= pace.learned < 6000
    assert pace.is_estimate
    pace.on_headers(4000, 1.0)
    assert (pace.learned, pace.is_estimate) == (4000, False), "a header is no estimate"


def _above(pace: Pace, seconds: float, passes_per_s: float, *, start: float, units: float = 1) -> float:
    """Calls as the pace has them, on a server that lets so many pass and has nothing in store."""
    now, level = start, 0.0
    while now < start + seconds:
        passed_s = 60 * units / ((pace.per_minute or 6000 * units) * 0.99)
        now += passed_s
        level = min(10.0, level + passed_s * passes_per_s)
        pace.on_send(now)
        if level >= 1:
            level -= 1
            pace.on_answer(units, now + 0.002, now)
        else:
            pace.on_refusal(now + 0.002, now, wait_s=(1 - level) / passes_per_s)
    return now


def test_of_many_calls_a_second_not_all_are_remembered() -> None:
    """Those of the last two seconds were divided by all the time since the refusals began."""
    pace = Pace(60_000)
    now, lowest = _above(pace, 10, 500, start=0.0), float("inf")
    for _ in range(60):
        now = _above(pace, 1, 500, start=now)
        lowest = min(lowest, pace.per_minute or lowest)
    assert 0.95 * 30_000 < lowest < 30_000


@pytest.mark.parametrize("units", [1, 250])
def test_a_rate_is_met_again_by_a_few_refusals_in_tokens_too(units: float) -> None:
    pace = Pace(6000 * units)
    now, refused, refuse = _above(pace, 10, 50, start=0.0, units=units), 0, pace.on_refusal

    def counted(now: float, sent_at: float, wait_s: float = 0.0) -> None:
        nonlocal refused
        refused += 1
        refuse(now, sent_at, wait_s)

    pace.on_refusal = counted  # type: ignore[method-assign]
    _above(pace, 120, 50, start=now, units=units)
    assert 0 < refused < 100
    assert pace.per_minute is not None
    assert 0.95 * 3000 < pace.per_minute / units < 1.1 * 3000


def test_the_measured_rate_is_not_lowered_by_noise_above_it() -> None:
    """One call in a hundred is refused for no reason; each time the pace has grown a little beyond what was found."""
    pace = Pace(6000)
    _above(pace, 5, 50, start=0.0)
    chance, now = random.Random(1), 5.0
    lowest = float("inf")
    for _ in range(20_000):
        now += 60 / ((pace.per_minute or 6000) * 0.99)
        pace.on_send(now)
        if chance.random() < 0.01:
            pace.on_refusal(now + 0.002, now, wait_s=0.02)
        else:
            pace.on_answer(1, now + 0.002, now)
        lowest = min(lowest, pace.per_minute or lowest)
    assert lowest > 0.8 * 3000
    assert pace.per_minute == 6000, "the server gives more now, and noise does not hide that"


def test_a_wait_of_seconds_is_no_moment() -> None:
    """In a second of waiting a bucket fills again: a measurement between two such waits says nothing."""
    pace, now = Pace(6000), 0.0
    for _ in range(2):
        now += 1.0
        for number in range(20):
            pace.on_answer(1, now + number / 1000)
        now += 0.1
        for number in range(5):
            pace.on_refusal(now + number / 1000, now - 0.01, wait_s=1.0)
    assert pace.learned is None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_cut_follows_while_it_is_open_what_the_last_one_has_shown(seed: int) -> None:
    """One call in twenty is refused whatever the rate. A second cut in the middle of a test told nothing more."""
    pace, chance, now, lowest = Pace(600), random.Random(seed), 0.0, 600.0
    while now < 300:
        now += 60 / (pace.per_minute or 600)
        pace.on_send(now)
        if chance.random() < 0.05:
            pace.on_refusal(now + 0.05, now, wait_s=1.0)
        else:
            pace.on_answer(1, now + 0.05, now)
        lowest = min(lowest, pace.per_minute or 600)
    assert lowest > 420


def test_a_stretch_of_refusals_alone_measures_nothing() -> None:
    pace = Pace(6000)
    for number in range(200):
        pace.on_refusal(number / 10, number / 10 - 0.01)
    assert pace.per_minute == 6000


def test_growth_comes_with_answers_until_the_config_is_reached() -> None:
    pace = Pace(6000)
    now = _run(pace, 2.5, 0.5, per_s=100)
    cut = pace.per_minute
    assert cut is not None
    now = _run(pace, 10, 0.0, start=now)
    soon = pace.per_minute
    assert soon is not None
    assert cut < soon < 1.05 * cut
    pace.on_answer(1, now + 3600)  # an hour of silence is no reason to grow by an hour
    assert (pace.per_minute or 0) < 1.02 * soon
    _run(pace, 120, 0.0, start=now + 3600)
    assert pace.per_minute == 6000
    assert pace.learned is None


def test_a_limit_that_nobody_meets_for_days_is_forgotten() -> None:
    """Growth without an end would end in a number that is none."""
    pace = Pace(6000)
    now = _run(pace, 2.5, 0.5, per_s=100)
    pace.configured = None
    assert pace.learned is not None
    for _ in range(50_000):
        now += 10.0
        pace.on_answer(1, now)
    assert pace.per_minute is None


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.01, 1.0, 5.0])), max_size=300), st.integers(1, 100_000)
)
def test_never_above_the_config_and_never_nothing(steps: list[tuple[bool, float]], configured: int) -> None:
    pace, now = Pace(configured), 0.0
    for refused, passed_s in steps:
        now += passed_s
        if refused:
            pace.on_refusal(now, now - 0.01)
        else:
            pace.on_answer(1, now)
        assert pace.per_minute is not None
        assert 1.0 <= pace.per_minute <= configured
