"""Reads limits and waits from answer headers, in the forms that OpenAI documents: `12ms`, `1.5s`, `6m0s`."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pipeline.records import ServerLimits, format_limit
from pipeline.units import DAY_S, HOUR_S, MINUTE_RESET_S

#: Above the first number, a number is a Unix time in seconds; above the second, in milliseconds. Servers send the wrong
#: one of the two, and a wait of 50 years is not a wait.
MOMENT, MOMENT_MS = 1e9, 1e12
#: A longer wait cannot be right, and is ignored.
LONGEST_S = 366 * DAY_S
#: A reset within this time is worth waiting for.
SOON_S = 0.2
#: of the name of a call
MOST_ID_CHARS = 200
#: of a limit; some servers send 10**18 for none
MOST_DIGITS = 30
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": HOUR_S, "d": DAY_S}
_LIMIT_FIELDS = {
    b"x-ratelimit-limit-requests": "limit_requests",
    b"x-ratelimit-remaining-requests": "remaining_requests",
    b"x-ratelimit-reset-requests": "reset_requests_s",
    b"x-ratelimit-limit-tokens": "limit_tokens",
    b"x-ratelimit-remaining-tokens": "remaining_tokens",
    b"x-ratelimit-reset-tokens": "reset_tokens_s",
}


def duration_s(text: str) -> float | None:
    """Return the seconds of `6m0s`, `120ms`, a bare number, or until a Unix time; None for anything else."""
    text = text.strip().lower()
    if (number := _number(text)) is not None:
        return _waited(number)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return _believed(sum(float(number) * _UNIT_S[unit] for number, unit in parts))


def _waited(number: float) -> float | None:
    """Return the seconds that a bare number means."""
    if number > MOMENT:
        return _believed(max(0.0, (number / 1000 if number > MOMENT_MS else number) - datetime.now(UTC).timestamp()))
    return _believed(number)


def _believed(seconds: float) -> float | None:
    return seconds if seconds <= LONGEST_S else None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the wait that the server asks for: `retry-after-ms`, `retry-after`, or the resets of what is used up.

    At a reset, all of the limit is back, but one call may pass long before that. So a reset counts only if it is very
    soon, or that of a day limit; None otherwise. These are the headers of a refusal, so a limit that resets in hours
    and does not report what is left is used up.
    """
    if (message := _milliseconds(headers.get("retry-after-ms"))) is not None:
        return message
    if (message := _seconds_or_date(headers.get("retry-after"))) is not None:
        return message
    return _reset_of_spent(headers)


def _milliseconds(value: str | None) -> float | None:
    milliseconds = None if value is None else _number(value)
    if milliseconds is None or milliseconds > MOMENT:
        return None if milliseconds is None else _waited(milliseconds)
    return milliseconds / 1000


def _number(text: str) -> float | None:
    """Return a number of at least 0; None for anything else, including `inf` and `nan`: no wait is endless."""
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _seconds_or_date(value: str | None) -> float | None:
    if value is None:
        return None
    if (seconds := duration_s(value)) is not None:
        return seconds
    when = _date(value)
    return None if when is None else _believed(max(0.0, when.timestamp() - datetime.now(UTC).timestamp()))


def _date(value: str) -> datetime | None:
    """Return a date in the form of HTTP or ISO 8601, by default in UTC; None for anything else."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError, OverflowError):
            when = read(value.strip())
            when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
            when.timestamp()  # raises for the first and the last day in some time zones
            return when
    return None


def day_limit(headers: Mapping[str, str]) -> str:
    """Return the day limit that caused a refusal, like 200 requests; empty if the headers do not show it."""
    for what, seconds in _resets_of_spent(headers):
        if seconds >= HOUR_S:
            limit = _whole(headers.get(f"x-ratelimit-limit-{what}".rstrip("-"), ""))
            return format_limit(limit, what or "requests")
    return ""


def _reset_of_spent(headers: Mapping[str, str]) -> float | None:
    message = max((seconds for _, seconds in _resets_of_spent(headers)), default=0.0)
    return message if message > MINUTE_RESET_S or 0 < message <= SOON_S else None


def _resets_of_spent(headers: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """Yield each used-up limit and the seconds to its reset."""
    for what in ("requests", "tokens", ""):
        left = headers.get(f"x-ratelimit-remaining-{what}".rstrip("-"))
        seconds = _seconds_or_date(headers.get(f"x-ratelimit-reset-{what}".rstrip("-")))
        if seconds is not None and (left == "0" or (left is None and seconds >= HOUR_S)):
            yield what, seconds


def request_id_and_limits(raw: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, ServerLimits | None]:
    """Return the server's name for the call, and the `x-ratelimit-*` headers of its answer; None for absent ones."""
    request_id = None
    limits: dict[str, float | int | None] = {}
    for raw_name, value in raw:
        name = raw_name.lower()
        if name[:2] != b"x-":
            continue
        if name == b"x-request-id":
            request_id = request_id or value.decode("latin-1")[:MOST_ID_CHARS]
        elif (field := _LIMIT_FIELDS.get(name)) is not None:
            text = value.decode("ascii", "replace")
            limits[field] = _seconds_or_date(text) if field.endswith("_s") else _whole(text)
    return request_id, ServerLimits(**limits) if limits else None  # type: ignore[arg-type]


def named(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by their names in lowercase."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def says_simulated(raw: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the answer comes from a rehearsal endpoint, ours or another process's."""
    return any(name.lower() == b"x-labelpipe-rehearsal" for name, _ in raw)


def _whole(text: str) -> int | None:
    """Return a plausible count; None for a longer number, which is an error and fits no float."""
    try:
        return int(text) if len(text) <= MOST_DIGITS else None
    except ValueError:
        return None
