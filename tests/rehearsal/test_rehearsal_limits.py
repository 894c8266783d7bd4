"""The server's accounting, with a clock that the tests move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rehearsal_client import Clock

from pipeline.rehearsal import RehearsalOptions
from pipeline.rehearsal.rate_limits import RateLimiter, TokenBucket, duration_text
from pipeline.rehearsal.replies import retry_headers


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (0.9994, "1s"),
        (1.2, "1.2s"),
        (59.8831, "59.884s"),
        (60.0, "1m0s"),
        (360.0, "6m0s"),
        (62.5, "1m2.5s"),
        (3600.0, "1h0m0s"),
        (86399.5, "23h59m59.5s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_retry_headers_tell_whole_seconds_and_exact_milliseconds() -> None:
    assert retry_headers(0.12) == {"Retry-After": "1", "retry-after-ms": "120"}
    assert retry_headers(2.0001) == {"Retry-After": "3", "retry-after-ms": "2001"}
    assert retry_headers(7.0) == {"Retry-After": "7", "retry-after-ms": "7000"}


def test_a_bucket_starts_full_and_refills_continuously() -> None:
    bucket = TokenBucket(per_s=10.0, capacity=5.0, now=0.0)
    for _ in range(5):
        assert bucket.wait_s(1, 0.0) == 0.0
        bucket.take(1, 0.0)
    assert bucket.wait_s(1, 0.0) == pytest.approx(0.1)
    assert bucket.wait_s(1, 0.05) == pytest.approx(0.05)
    assert bucket.wait_s(1, 0.1) == 0.0
    assert bucket.full_in_s(0.1) == pytest.approx(0.4)
    assert bucket.level(100.0) == 5.0


def test_more_than_a_bucket_holds_goes_out_when_it_is_full_and_leaves_a_debt() -> None:
    bucket = TokenBucket(per_s=10.0, capacity=5.0, now=0.0)
    assert bucket.wait_s(20, 0.0) == 0.0
    bucket.take(20, 0.0)
    assert bucket.level(0.0) == -15.0
    assert bucket.wait_s(1, 0.0) == pytest.approx(1.6)


def test_an_idle_minute_may_go_out_at_once_by_default() -> None:
    clock = Clock()
    limits = RateLimiter(RehearsalOptions(requests_per_minute=60), clock)
    assert [limits.admit(1) for _ in range(60)] == [None] * 60
    short = limits.admit(1)
    assert short is not None
    assert (short.limit, short.used, short.requested, short.type) == (60, 60, 1, "requests")
    assert short.wait_s == pytest.approx(1.0)
    clock.now += 1.0
    assert limits.admit(1) is None
    assert limits.admit(1) is not None


def test_a_short_burst_enforces_the_same_limit_over_a_second() -> None:
    clock = Clock()
    limits = RateLimiter(RehearsalOptions(requests_per_minute=600, burst_s=1.0), clock)
    let_in = 0
    for _ in range(60 * 100):
        let_in += limits.admit(1) is None
        clock.now += 0.01
    assert 600 <= let_in <= 610
    limits = RateLimiter(RehearsalOptions(requests_per_minute=6, burst_s=1.0), clock)
    assert limits.admit(1) is None  # even where a second's share is less than one call
    assert limits.admit(1) is not None


def test_a_refused_call_takes_nothing_from_any_limit() -> None:
    clock = Clock()
    limits = RateLimiter(RehearsalOptions(requests_per_minute=60, tokens_per_minute=600), clock)
    assert limits.admit(590) is None
    before = limits.headers()
    short = limits.admit(100)
    assert short is not None
    assert short.type == "tokens"
    assert short.wait_s == pytest.approx(9.0)
    assert short.message("m").endswith("Limit 600, Used 590, Requested 100. Please try again in 9s.")
    assert limits.headers() == before
    assert before["x-ratelimit-remaining-requests"] == "59"
    assert before["x-ratelimit-remaining-tokens"] == "10"


def test_a_call_larger_than_a_minute_is_hopeless() -> None:
    limits = RateLimiter(RehearsalOptions(tokens_per_minute=600, burst_s=1.0), Clock())
    short = limits.admit(601)
    assert short is not None
    assert short.wait_s is None
    assert short.message("m").startswith("Request too large for m")
    assert limits.admit(600) is None


def test_the_day_has_a_bucket_of_its_own() -> None:
    clock = Clock()
    limits = RateLimiter(RehearsalOptions(requests_per_day=8640, requests_per_minute=100_000), clock)
    assert all(limits.admit(1) is None for _ in range(8640))
    short = limits.admit(1)
    assert short is not None
    assert short.meter == "requests per day (RPD)"
    assert short.wait_s == pytest.approx(10.0)
    clock.now += 10.0
    assert limits.admit(1) is None


def test_the_longest_wait_of_all_short_limits_is_told() -> None:
    limits = RateLimiter(RehearsalOptions(requests_per_minute=1, tokens_per_minute=60), Clock())
    assert limits.admit(60) is None
    short = limits.admit(1)
    assert short is not None
    assert (short.type, short.wait_s) == ("requests", pytest.approx(60.0))


def test_headers_show_limit_rest_and_reset() -> None:
    clock = Clock()
    limits = RateLimiter(RehearsalOptions(requests_per_minute=6000, tokens_per_minute=60_000), clock)
    assert limits.admit(2000) is None
    assert limits.headers() == {
        "x-ratelimit-limit-requests": "6000",
        "x-ratelimit-remaining-requests": "5999",
        "x-ratelimit-reset-requests": "10ms",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "58000",
        "x-ratelimit-reset-tokens": "2s",
    }
    assert RateLimiter(RehearsalOptions(), clock).headers() == {}
    assert (
        RateLimiter(RehearsalOptions(requests_per_day=10_000), clock).headers()["x-ratelimit-limit-requests"] == "10000"
    )


@given(
    per_minute=st.integers(1, 100_000),
    burst_s=st.floats(0.1, 60.0),
    steps=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60),
)
def test_waiting_as_told_is_always_enough_and_the_rate_is_never_passed(
    per_minute: int, burst_s: float, steps: list[float]
) -> None:
    clock = Clock()
    limits = RateLimiter(RehearsalOptions(requests_per_minute=per_minute, burst_s=burst_s), clock)
    let_in = 0
    for step in steps:
        short = limits.admit(1)
        if short is not None:
            assert short.wait_s is not None
            clock.now += short.wait_s
            assert limits.admit(1) is None
        let_in += 1
        clock.now += step / per_minute
    most = max(1.0, per_minute / 60 * burst_s) + (clock.now - 1000.0) * per_minute / 60
    assert let_in <= most + 1e-3
