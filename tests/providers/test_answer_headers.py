"""What headers say about limits and waiting, in every form that servers use."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.providers.headers import day_limit, duration_s, request_id_and_limits, retry_after_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12ms", 0.012), ("1.5s", 1.5), ("6m0s", 360), ("1h2m3s", 3723), ("1d", 86_400), ("20", 20), ("0.25", 0.25),
     (" 7 ", 7), ("-5", 0), ("1M", 60), ("", None), ("soon", None), ("5 s", None), ("5sx", None), ("inf", None),
     ("nan", None), ("1e999", None), ("-inf", None)],
)  # fmt: skip
def test_durations(text: str, seconds: float | None) -> None:
    found = duration_s(text)
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "120", "retry-after": "2"}, 0.12),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
        ({"retry-after": "2s"}, 2),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after": "Mon, 99 Foo 2026 10:00:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"}, 0.12),
        # All of the limit is back then, and the next call may go long before: nobody says when.
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "59s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7h12m"}, 25_920),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "1s"}, None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "10ms",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "180ms",
            },
            0.18,
        ),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "tomorrow"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds", "limit"),
    [
        ({"retry-after": "36000", "limit": "200", "reset": "10h0m0s"}, 36_000, "200 requests"),
        ({"limit": "10000", "reset": "10h0m0s"}, 36_000, "10,000 requests"),
        ({"remaining": "0", "limit": "x", "reset": "10h0m0s"}, 36_000, ""),
        ({"retry-after": "36000", "limit": "3000", "reset": "1s"}, 36_000, ""),
        # Half of a day's requests are left: it is the tokens that are refused, and the reset says nothing of them.
        ({"remaining": "5000", "limit": "10000", "reset": "12h0m0s"}, None, ""),
    ],
)
def test_a_refusal_names_the_limit_a_day_that_is_used_up(
    headers: dict[str, str], seconds: float | None, limit: str
) -> None:
    told = {name if "-" in name else f"x-ratelimit-{name}-requests": value for name, value in headers.items()}
    assert (retry_after_s(told), day_limit(told)) == (seconds, limit)


def _said(template: str) -> str:
    """The text with the moment that is so many seconds away: {s:90} in seconds, {ms:90} in milliseconds, {iso:90}."""
    found = re.fullmatch(r"\{(s|ms|iso):(-?\d+)\}(.*)", template)
    if found is None:
        return template
    moment = datetime.now(UTC) + timedelta(seconds=int(found[2]))
    forms = {"s": f"{moment.timestamp():.0f}", "ms": f"{moment.timestamp() * 1000:.0f}", "iso": moment.isoformat()}
    return forms[found[1]] + found[3]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "{s:90}"}, 90),
        ({"retry-after": "{ms:90}"}, 90),
        ({"retry-after": "{s:90}.5"}, 90),
        ({"retry-after": "{iso:90}"}, 90),
        ({"retry-after-ms": "{ms:90}"}, 90),
        ({"retry-after-ms": "{s:90}"}, 90),
        ({"retry-after": "{s:-900}"}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "{s:90}"}, 90),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "{ms:90}"}, 90),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "{ms:7200}"}, 7200),
        # A wait that cannot be true is left alone.
        ({"retry-after": "999999999"}, None),
        ({"retry-after": "99999999999999999999"}, None),
        ({"retry-after": "Fri, 31 Dec 2999 23:59:59 GMT"}, None),
        ({"retry-after": "-120"}, 0),
        ({"retry-after": "1m30s"}, 90),
    ],
)
def test_a_moment_is_no_duration(headers: dict[str, str], seconds: float | None) -> None:
    found = retry_after_s({name: _said(value) for name, value in headers.items()})
    assert found == (None if seconds is None else pytest.approx(seconds, abs=5))


def test_a_moment_in_the_limits_of_an_answer_is_none_either() -> None:
    limits = request_id_and_limits([(b"x-ratelimit-reset-requests", _said("{s:90}").encode())])[1]
    assert limits is not None
    assert limits.reset_requests_s == pytest.approx(90, abs=5)


@pytest.mark.parametrize("zone", ["GMT", ""])
def test_a_date_is_waited_for(zone: str) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True).replace("GMT", zone).strip()
    assert retry_after_s({"retry-after": date}) == pytest.approx(90, abs=5)


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=40)))
def test_no_header_breaks_anything(headers: dict[str, str]) -> None:
    found = retry_after_s(headers)
    assert found is None or 0 <= found < float("inf")


@given(st.lists(st.tuples(st.sampled_from([b"X-RateLimit-Limit-Requests", b"x-ratelimit-reset-tokens", b"date"]),
                          st.binary(max_size=12))))  # fmt: skip
def test_no_limit_header_breaks_anything(raw: list[tuple[bytes, bytes]]) -> None:
    request_id_and_limits(raw)


def test_names_may_be_written_in_any_case() -> None:
    limits = request_id_and_limits([(b"X-RateLimit-Limit-Requests", b"500"), (b"X-Ratelimit-Reset-Tokens", b"oops")])[1]
    assert limits is not None
    assert (limits.limit_requests, limits.reset_tokens_s) == (500, None)
