"""What is seen of a run: the time it will take, the texts of the line, and the line itself in a real terminal."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import re
import struct
import termios
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.progress import LOG_EVERY_S, Progress, Snapshot, count, eta_s, fit_line, show_count, tail

RunOn = Callable[[Any], Any]
SEEN = Snapshot(
    done=1200, total=50_000, total_known=True, rate_per_minute=480.0, limit_per_minute=500.0, calls_per_record=1.0,
    cost_usd=1.25, in_flight=12, retries=0, unlabelled=0,
)  # fmt: skip


# -- the time it will take -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        pytest.param({}, 48_800 / 480 * 60, id="by the late rate"),
        pytest.param({"rate_per_minute": 9000.0}, 48_800 / 500 * 60, id="no faster than the limit"),
        pytest.param({"rate_per_minute": 9000.0, "calls_per_record": 2.0}, 48_800 / 250 * 60, id="calls count"),
        pytest.param({"limit_per_minute": None}, 48_800 / 480 * 60, id="without a limit"),
        pytest.param({"rate_per_minute": 0.0}, 48_800 / 500 * 60, id="at the start, by the limit"),
        pytest.param({"rate_per_minute": 0.0, "limit_per_minute": None}, None, id="nothing is known"),
        pytest.param({"total": None}, None, id="the total is unknown"),
        pytest.param({"trouble": "OUTAGE"}, None, id="in an outage nobody knows"),
        pytest.param({"total": 1200}, 0.0, id="at the end"),
        pytest.param({"total": 1000}, 0.0, id="past an estimate"),
    ],
)
def test_the_time_that_is_left(changes: dict[str, Any], seconds: float | None) -> None:
    assert eta_s(replace(SEEN, **changes)) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("left_today", "per_day", "nights"),
    [(48_800, 10_000, 0), (48_799, 10_000, 1), (8_800, 10_000, 4), (8_799, 10_000, 5), (0, None, 1), (None, None, 0)],
)
def test_a_limit_a_day_costs_whole_nights(left_today: int | None, per_day: int | None, nights: int) -> None:
    """Five hundred a minute and ten thousand a day: 50,000 records take five days, not one and two hours."""
    plain = eta_s(SEEN)
    slowed = eta_s(replace(SEEN, requests_left_today=left_today, requests_per_day=per_day))
    assert plain is not None
    assert slowed == pytest.approx(plain + nights * 86_400)


# -- the texts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [({}, "1,200/50,000"), ({"total_known": False}, "1,200/~50,000"), ({"total": None}, "1,200")],
)
def test_how_many_of_how_many(changes: dict[str, Any], text: str) -> None:
    assert count(replace(SEEN, **changes)) == text


def test_the_tail_says_rate_limit_time_cost_and_what_is_in_flight() -> None:
    assert tail(SEEN) == "480/min of 500 · ETA 102 min · $1.25 · 12 in flight"


def test_the_tail_says_what_went_wrong_only_when_something_did() -> None:
    text = tail(replace(SEEN, retries=1234, unlabelled=5, simulated=True, total_known=False, limit_per_minute=None))
    assert text == ("480/min · ETA about 102 min · $1.25 simulated · 12 in flight · 1,234 retries · 5 without label")


def test_one_retry_is_no_plural() -> None:
    assert tail(replace(SEEN, retries=1)).endswith(" · 1 retry")
    assert tail(replace(SEEN, retries=2)).endswith(" · 2 retries")


def test_trouble_takes_the_rates_place() -> None:
    text = tail(replace(SEEN, trouble="OUTAGE since 02:14:00 (503), probe 7", cost_usd=None))
    assert text == "OUTAGE since 02:14:00 (503), probe 7 · price unknown (set model.price) · 12 in flight"


def test_a_cost_that_nobody_knows_is_never_0() -> None:
    unknown = replace(SEEN, cost_usd=None, simulated=True)
    assert " · price unknown (set model.price) · " in tail(unknown)
    assert " · cost unknown (answers without usage) · " in tail(replace(unknown, usage_unknown=True))


# -- without a terminal ----------------------------------------------------------------------------------------------


def test_without_a_terminal_a_line_every_half_minute(moved_clock: RunOn) -> None:
    stream = io.StringIO()

    async def main() -> None:
        progress = Progress(lambda: SEEN, stream=stream)
        task = asyncio.ensure_future(progress.run())
        await asyncio.sleep(3.5 * LOG_EVERY_S)
        task.cancel()
        progress.echo("the outage is over")
        progress.close()
        progress.close()

    moved_clock(main())
    *lines, said = stream.getvalue().splitlines()
    assert lines == [f"labelpipe: 1,200/50,000 · {tail(SEEN)}"] * 3
    assert said == "the outage is over"


def test_quiet_is_quiet(moved_clock: RunOn) -> None:
    stream = io.StringIO()
    progress = Progress(lambda: SEEN, stream=stream, quiet=True)
    progress.show()
    progress.echo("anything")
    progress.close()
    assert stream.getvalue() == ""


COLOR = re.compile("\x1b\\[[0-9;]*m")

# -- in a terminal ---------------------------------------------------------------------------------------------------


class Screen:
    """A real terminal: what was written to it, and what its last line shows."""

    def __init__(self, columns: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
        os.set_blocking(self._ours, False)
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")
        self._text = ""

    def text(self) -> str:
        try:
            while got := os.read(self._ours, 65_536):
                self._text += got.decode()
        except BlockingIOError:
            pass
        return self._text

    def lines(self) -> list[str]:
        """What a person sees: after a carriage return a line is written over."""
        return [_written_over(line) for line in COLOR.sub("", self.text()).replace("\r\n", "\n").split("\n")]

    def close(self) -> None:
        self.stream.close()
        os.close(self._ours)


def _written_over(line: str) -> str:
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown.rstrip()


@pytest.fixture(params=[140], ids=["140 columns"])
def screen(request: pytest.FixtureRequest) -> Iterator[Screen]:
    screen = Screen(request.param)
    yield screen
    screen.close()


def test_in_a_terminal_one_line_that_is_written_over(screen: Screen) -> None:
    seen = SEEN
    progress = Progress(lambda: seen, stream=screen.stream)
    for done in (1200, 25_000, 50_000):
        seen = replace(SEEN, done=done)
        progress.show()
    progress.close()
    progress.close()
    shown = [line for line in screen.lines() if line]
    assert len(shown) == 1
    assert shown[0].startswith("50,000/50,000 ")
    assert "100%" in shown[0]
    assert shown[0].endswith(tail(seen))
    assert "25,000/50,000" in screen.text()
    assert " 50% " in screen.text()


def test_what_is_said_stands_above_the_line(screen: Screen) -> None:
    progress = Progress(lambda: SEEN, stream=screen.stream)
    progress.show()
    progress.echo("calls fail for everyone")
    progress.close()
    first, second = [line for line in screen.lines() if line]
    assert first == "calls fail for everyone"
    assert second.startswith("1,200/50,000 ")


def test_a_title_stands_before_the_counts(screen: Screen) -> None:
    progress = Progress(lambda: SEEN, stream=screen.stream, title="pilot")
    progress.close()
    assert next(line for line in screen.lines() if line).startswith("pilot 1,200/50,000 ")


@pytest.mark.parametrize("screen", [0, 80], indirect=True)
def test_a_count_that_takes_long_is_seen_and_leaves_nothing(screen: Screen) -> None:
    with show_count("counting records", stream=screen.stream, every_s=0) as add:
        add(1_000)
        add(500)
    assert "counting records: 1,500" in screen.text()
    assert [line for line in screen.lines() if line] == []


def test_a_short_count_or_one_without_a_terminal_is_not_seen(screen: Screen) -> None:
    with show_count("counting records", stream=screen.stream) as add:
        add(1_000)
    assert "counting" not in screen.text()
    stream = io.StringIO()
    with show_count("counting records", stream=stream, every_s=0) as add:
        add(1_000)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("screen", [0, 40, 80], indirect=True)
def test_a_narrow_or_blind_terminal_gets_one_line_too(screen: Screen) -> None:
    """One that does not say its width said 0, and was taken at its word."""
    progress = Progress(lambda: SEEN, stream=screen.stream)
    for _ in range(3):
        progress.show()
    progress.close()
    shown = [line for line in screen.lines() if line]
    assert len(shown) == 1
    assert shown[0].startswith("1,200/50,000")


BUSY = replace(SEEN, retries=64, unlabelled=5)
OUTAGE = replace(BUSY, trouble="OUTAGE since 02:14:00 (503: The server is overloaded), probe 7")


@pytest.mark.parametrize(
    ("screen", "seen", "shown"),
    [
        (60, SEEN, "1,200/50,000   2% 480/min of 500 · ETA 102 min · $1.25"),
        (60, BUSY, "1,200/50,000   2% 480/min of 500 · ETA 102 min"),
        (60, OUTAGE, "1,200/50,000 OUTAGE since 02:14:00 (503: The server is…"),
        (80, SEEN, "1,200/50,000 ▏          2% 480/min of 500 · ETA 102 min · $1.25 · 12 in flight"),
        (80, BUSY, "1,200/50,000   2% 480/min of 500 · ETA 102 min · $1.25 · 5 without label"),
        (80, OUTAGE, "1,200/50,000 OUTAGE since 02:14:00 (503: The server is overloaded), probe 7"),
        (108, OUTAGE, f"1,200/50,000   2% {OUTAGE.trouble} · $1.25 · 5 without label"),
    ],
    indirect=["screen"],
)
def test_a_narrow_line_says_less_and_cuts_nothing(screen: Screen, seen: Snapshot, shown: str) -> None:
    """The bar took 28 columns of 60: of an outage its reason was never seen, and numbers were cut in the middle."""
    progress = Progress(lambda: seen, stream=screen.stream)
    progress.show()
    progress.close()
    assert [line for line in screen.lines() if line] == [shown]


@given(st.integers(20, 200), st.sampled_from([SEEN, BUSY, OUTAGE]))
def test_the_line_fits_and_has_whole_parts(columns: int, seen: Snapshot) -> None:
    told, bar, percentage = fit_line(seen, columns)
    used = len(count(seen)) + (1 + bar if bar else 0) + (5 if percentage else 0) + 1 + len(told)
    assert used <= columns
    if percentage:
        assert set(told.split(" · ")) <= set(tail(seen).split(" · "))
    assert told == tail(seen) or not bar, "the bar goes first"


def test_the_line_follows_the_run(screen: Screen, moved_clock: RunOn) -> None:
    steps = iter(range(100))

    async def main() -> None:
        progress = Progress(lambda: replace(SEEN, done=next(steps), total=10), stream=screen.stream)
        task = asyncio.ensure_future(progress.run())
        await asyncio.sleep(2.2)
        task.cancel()
        progress.close()

    moved_clock(main())
    assert [f"{done}/10" in screen.text() for done in range(6)] == [True] * 5 + [False]


@given(st.builds(
    Snapshot, st.integers(0, 10**9), st.none() | st.integers(0, 10**9), st.booleans(), st.floats(0, 1e9),
    st.none() | st.floats(1e-3, 1e9), st.floats(1, 100), st.none() | st.floats(0, 1e9), st.integers(0, 10**4),
    st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from(["", "OUTAGE {x} %s"]),
    st.none() | st.integers(0, 10**6), st.none() | st.integers(1, 10**6), st.booleans(),
))  # fmt: skip
def test_whatever_the_numbers_are_there_is_a_line(seen: Snapshot) -> None:
    stream = io.StringIO()
    progress = Progress(lambda: seen, stream=stream)
    progress.show()
    progress.close()
    assert stream.getvalue().count("\n") == 1
    left = eta_s(seen)
    assert left is None or left >= 0


def test_a_notebook_has_a_line_that_redraws() -> None:
    """A notebook's stream is no terminal, but goes back to the line's beginning as one does."""

    class OutStream(io.StringIO):
        """Stands for ipykernel's, which needs a kernel."""

    OutStream.__module__ = "ipykernel.iostream"
    for stream, redraws in ((OutStream(), True), (io.StringIO(), False)):
        progress = Progress(lambda: SEEN, stream=stream)
        progress.show()
        progress.close()
        assert ("\r" in stream.getvalue()) is redraws
