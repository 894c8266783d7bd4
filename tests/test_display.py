"""A terminal that holds up, breaks, or is not there: nobody waits for it, and nothing fails over it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.progress import Progress, Snapshot
from pipeline.terminal import WAITING_MOST, put

SEEN = Snapshot(
    done=1200, total=50_000, total_known=True, rate_per_minute=480.0, limit_per_minute=500.0, calls_per_record=1.0,
    cost_usd=1.25, in_flight=12, retries=0, unlabelled=0,
)  # fmt: skip


def test_a_terminal_that_is_stopped_holds_nobody_up() -> None:
    """Ctrl-S, or a pipe that nobody reads: the first write that finds no room waits for ever."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while True:
            os.write(theirs, bytes(4096))
    os.set_blocking(theirs, True)
    stream = os.fdopen(theirs, "w", encoding="utf-8")
    progress = Progress(lambda: SEEN, stream=stream)
    for number in range(10 * WAITING_MOST):
        progress.say(f"line {number}")
        progress.show()
    progress.close()
    os.read(ours, 65_536)  # and with it the thread that waits ends
    os.close(ours)
    stream.close()


@pytest.mark.parametrize("gone", ["closed", "full", "not there"])
def test_what_cannot_be_shown_is_not_missed(gone: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream = Path("/dev/full" if gone == "full" else tmp_path / "out").open("w", encoding="utf-8")  # noqa: SIM115
    if gone != "full":
        stream.close()
    monkeypatch.setattr(sys, "stderr", None if gone == "not there" else stream)
    progress = Progress(lambda: SEEN)
    progress.say("a line")
    progress.show()
    progress.close()
    error = put(sys.stderr, "a line")
    assert (error is not None) == (gone == "full")
    assert put(sys.stderr, "again") is None, "after an error it goes nowhere"
    stream.close()


def test_a_stream_that_lacks_a_character_gets_a_question_mark() -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    assert put(stream, "a · b\n") is None
    assert written.getvalue() == b"a ? b\n"


def test_a_process_without_streams_gets_empty_ones() -> None:
    """The first file that it opened got the number of stderr: an error's text went into the ledger."""
    program = "from pipeline.terminal import open_missing_streams as go; go(); import os, sys; "
    program += "sys.exit([os.fstat(number).st_rdev for number in range(3)].count(os.stat('/dev/null').st_rdev))"
    words = f'exec {sys.executable} -c "{program}" <&- >&- 2>&-'
    assert subprocess.run(["bash", "-c", words], check=False).returncode == 3
