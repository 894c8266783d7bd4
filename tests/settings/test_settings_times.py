"""The times of day that a config takes are those that hours can be made of: two rooms that do not know each other."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.limits import Hours
from pipeline.settings import Settings

TIMES = st.from_regex(r"[0-2]?[0-9]:[0-9]{2}", fullmatch=True) | st.sampled_from(["24:00", "00:00", "0:00"]) | st.text()


def takes(**limits: object) -> bool:
    try:
        Settings(
            input={"path": "a"}, task={"prompt": "{{ a }}", "labels": {"x": ["a"]}}, model={"name": "m"}, limits=limits
        )
    except ConfigError:
        return False
    return True


def can_be(between: tuple[str, str] | None, stop_at: str | None) -> bool:
    try:
        Hours(between, stop_at)
    except ConfigError:
        return False
    return True


@given(TIMES)
def test_stop_at_is_taken_if_it_is_a_time(text: str) -> None:
    assert takes(stop_at=text) == can_be(None, text)


@given(TIMES, TIMES)
@example("22:00", "22:00")
@example("0:00", "24:00")
@example("24:00", "00:00")
@example("7:00", "07:00")
def test_hours_are_taken_if_they_are_some(begin: str, end: str) -> None:
    assert takes(run_between=[begin, end]) == can_be((begin, end), None)


def test_a_pair_may_be_a_tuple_in_python() -> None:
    assert takes(run_between=("22:00", "07:00"))
