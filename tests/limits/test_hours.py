"""The hours of a run by the clock on the wall, where clocks are put forward and back too."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.limits.hours import Hours
from pipeline.units import DAY_S

BERLIN, SEOUL = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Seoul")
#: clocks that change at midnight, and by half an hour
HAVANA, LORD_HOWE = ZoneInfo("America/Havana"), ZoneInfo("Australia/Lord_Howe")
NIGHT = ("22:00", "07:00")


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


def later(moment: datetime, seconds: float) -> datetime:
    return moment.astimezone(UTC) + timedelta(seconds=seconds)


zones = st.sampled_from([BERLIN, SEOUL, HAVANA, LORD_HOWE, UTC])
#: any moment, and as often one within 30 hours of a change of one of these clocks
changes = [
    datetime.fromisoformat(text)
    for text in (
        "2025-03-30T01:00Z",
        "2025-10-26T01:00Z",
        "2025-03-09T05:00Z",
        "2025-11-02T05:00Z",
        "2025-04-05T15:00Z",
    )
]
moments = st.one_of(
    st.datetimes(datetime(2023, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.builds(later, st.sampled_from(changes), st.integers(-108_000, 108_000)),
)
times = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))


@pytest.mark.parametrize(
    ("between", "now", "wait_s", "closes_in_s"),
    [
        (NIGHT, "2025-06-01 18:50", 3 * 3600 + 600, 0),
        (NIGHT, "2025-06-01 22:00", 0, 9 * 3600),
        (NIGHT, "2025-06-01 06:59:59", 0, 1),
        (NIGHT, "2025-06-01 07:00", 15 * 3600, 0),
        (("9:00", "17:30"), "2025-06-01 17:29", 0, 60),
        (("9:00", "17:30"), "2025-06-01 17:30", 15.5 * 3600, 0),
        (("22:00", "24:00"), "2025-06-01 23:59", 0, 60),
        (("22:00", "0:00"), "2025-06-01 00:00", 22 * 3600, 0),
        (("00:00", "24:00"), "2025-06-01 12:00", 0, math.inf),
        (None, "2025-06-01 12:00", 0, math.inf),
    ],
)
def test_waits_and_closes(between: tuple[str, str] | None, now: str, wait_s: float, closes_in_s: float) -> None:
    hours = Hours(between, None, zone=BERLIN)

    assert hours.wait_s(berlin(now)) == wait_s
    assert hours.closes_in_s(berlin(now)) == closes_in_s


@pytest.mark.parametrize(
    ("between", "now", "fold", "wait_s", "closes_in_s"),
    [
        # 2025-03-30, 02:00 -> 03:00: the night has 8 real hours
        (NIGHT, "2025-03-29 22:00", 0, 0, 8 * 3600),
        (NIGHT, "2025-03-29 07:30", 0, 14.5 * 3600, 0),
        # the hours begin in the hour that is skipped: they begin where the clock goes on
        (("02:30", "05:00"), "2025-03-30 01:00", 0, 3600, 0),
        # they lie in it as a whole: not on that day
        (("02:10", "02:50"), "2025-03-30 01:00", 0, 24 * 3600 + 600, 0),
        # only the time outside of them is skipped: they do not end
        (("03:00", "02:00"), "2025-03-30 01:59", 0, 0, 23 * 3600 + 60),
        # 2025-10-26, 03:00 -> 02:00: the night has 10 real hours
        (NIGHT, "2025-10-25 22:00", 0, 0, 10 * 3600),
        # the clock goes back into the hours after they have ended
        (("01:00", "02:30"), "2025-10-26 02:45", 0, 900, 0),
        (("01:00", "02:30"), "2025-10-26 02:00", 1, 0, 1800),
        # and out of them
        (("02:30", "04:00"), "2025-10-26 02:45", 0, 0, 900),
        (("02:30", "04:00"), "2025-10-26 02:00", 1, 1800, 0),
    ],
)
def test_clocks_that_are_put_forward_and_back(
    between: tuple[str, str], now: str, fold: int, wait_s: float, closes_in_s: float
) -> None:
    hours = Hours(between, None, zone=BERLIN)

    assert hours.wait_s(berlin(now, fold)) == wait_s
    assert hours.closes_in_s(berlin(now, fold)) == closes_in_s


@pytest.mark.parametrize(
    ("stop_at", "started", "ends_at"),
    [
        ("07:00", "2025-06-01 22:00", "2025-06-02T07:00:00+02:00"),
        ("7:00", "2025-06-01 06:59", "2025-06-01T07:00:00+02:00"),
        ("07:00", "2025-06-01 07:00", "2025-06-02T07:00:00+02:00"),
        ("24:00", "2025-06-01 22:00", "2025-06-02T00:00:00+02:00"),
        ("07:00", "2025-03-29 22:00", "2025-03-30T07:00:00+02:00"),
        ("02:30", "2025-03-29 22:00", "2025-03-30T03:00:00+02:00"),
        ("02:00", "2025-03-29 22:00", "2025-03-30T03:00:00+02:00"),
        ("02:30", "2025-10-25 22:00", "2025-10-26T02:30:00+02:00"),
        ("02:30", "2025-10-26 02:40", "2025-10-26T02:30:00+01:00"),
        ("02:00", "2025-10-26 02:40", "2025-10-26T02:00:00+01:00"),
        ("03:00", "2025-10-26 02:40", "2025-10-26T03:00:00+01:00"),
    ],
)
def test_stop_at_is_the_next_time_the_clock_gets_there(stop_at: str, started: str, ends_at: str) -> None:
    found = Hours(None, stop_at, zone=BERLIN).ends_at(berlin(started))

    assert found is not None
    assert found.isoformat() == ends_at


def test_a_clock_put_back_at_midnight_does_not_end_the_run() -> None:
    """2025-11-02, 01:00 -> 00:00 in Havana: 00:30 comes twice, and 12:00 is not passed by going back."""
    hours = Hours(None, "12:00", zone=HAVANA)

    found = hours.ends_at(datetime(2025, 11, 2, 0, 10, tzinfo=HAVANA))
    assert found == datetime(2025, 11, 2, 12, 0, tzinfo=HAVANA)


def test_a_skipped_midnight_ends_the_run_where_the_clock_goes_on() -> None:
    """2025-03-09, 00:00 -> 01:00 in Havana."""
    found = Hours(None, "00:30", zone=HAVANA).ends_at(datetime(2025, 3, 8, 20, 0, tzinfo=HAVANA))

    assert found == datetime(2025, 3, 9, 1, 0, tzinfo=HAVANA)


@given(zone=zones, now=moments, begin=times, end=times)
def test_calls_leave_where_the_wait_ends_and_not_a_moment_before(
    zone: ZoneInfo, now: datetime, begin: str, end: str
) -> None:
    assume(begin != end)
    hours = Hours((begin, end), None, zone=zone)
    wait_s, closes_in_s = hours.wait_s(now), hours.closes_in_s(now)

    assert hours.is_open(later(now, wait_s))
    assert (wait_s == 0) != (closes_in_s == 0)
    assert not hours.is_open(later(now, closes_in_s))
    # Nothing changes on the way: looked at every ten minutes, and just before the end.
    way_s = wait_s or closes_in_s
    for seconds in [*range(0, int(way_s), 600), way_s - 1e-6]:
        assert hours.is_open(later(now, seconds)) == (wait_s == 0)


@given(zone=zones, now=moments, begin=times, end=times)
def test_open_is_what_the_clock_shows(zone: ZoneInfo, now: datetime, begin: str, end: str) -> None:
    assume(begin != end)
    shown = f"{now.astimezone(zone):%H:%M}"

    within = begin <= shown < end if begin < end else shown >= begin or shown < end
    assert Hours((begin, end), None, zone=zone).is_open(now) == within


@given(zone=zones, started=moments, stop_at=times)
def test_stop_at_is_passed_once_on_the_way(zone: ZoneInfo, started: datetime, stop_at: str) -> None:
    ends_at = Hours(None, stop_at, zone=zone).ends_at(started)

    assert ends_at is not None
    assert timedelta() < ends_at - started <= timedelta(hours=25)
    shown = f"{ends_at.astimezone(zone):%H:%M}"
    skipped = ends_at.astimezone(zone).utcoffset() > later(ends_at, -1).astimezone(zone).utcoffset()  # type: ignore[operator]
    assert shown == stop_at or skipped


@given(now=moments, until_s=st.floats(60, 3 * DAY_S))
def test_spans_are_when_it_is_open(now: datetime, until_s: float) -> None:
    hours = Hours(NIGHT, None, zone=BERLIN)
    spans = hours.spans(now, until_s)
    for begin, end in spans:
        assert 0 <= begin <= end <= until_s
        middle = now + timedelta(seconds=(begin + end) / 2)
        assert hours.is_open(middle)
    for at_s in (until_s * share / 20 for share in range(20)):
        inside = any(begin - 1 <= at_s <= end + 1 for begin, end in spans)
        assert inside or not hours.is_open(now + timedelta(seconds=at_s))


def test_no_stop_at() -> None:
    assert Hours(NIGHT, None).ends_at(datetime.now(UTC)) is None


@given(now=moments)
def test_without_a_zone_it_is_this_machines_clock(now: datetime) -> None:
    shown = f"{now.astimezone():%H:%M}"

    assert Hours(("08:00", "20:00"), None).is_open(now) == ("08:00" <= shown < "20:00")


@pytest.mark.parametrize("text", ["25:00", "24:01", "7", "07:60", "7 am", "", "-1:00", "07:00:00", "٠٧:٠٠"])
def test_what_is_no_time_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(ConfigError, match=r"limits\.stop_at") as caught:
        Hours(None, text)
    assert f'"{text}"' in str(caught.value)
    with pytest.raises(ConfigError, match=r"limits\.run_between"):
        Hours(("22:00", text), None)


@pytest.mark.parametrize("between", [("22:00", "22:00"), ("00:00", "00:00"), ("7:00", "07:00"), ("24:00", "24:00")])
def test_hours_that_end_where_they_begin_are_refused(between: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="begins and ends at the same time"):
        Hours(between, None)


def test_what_a_person_reads() -> None:
    hours = Hours(("22:00", "7:00"), "06:30", zone=BERLIN)
    evening = berlin("2025-06-01 18:50")
    ends_at = hours.ends_at(evening)

    assert ends_at is not None
    assert hours.waiting(evening) == "outside the hours 22:00-07:00, until 22:00"
    assert hours.waiting(berlin("2025-06-01 23:00")) == ""
    assert hours.ending(evening, ends_at) == "stops at 06:30 (in 11 h 40 min)"
    assert hours.ending(ends_at, ends_at) == "stop_at 06:30 is reached"
