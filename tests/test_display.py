"""A terminal that holds up, breaks, or is not there: nobody waits for it, and nothing fails over it."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.progress import Progress, Snapshot
from pipeline.runlog import log_event, run_log
from pipeline.terminal import WAITING_MOST, colorize, cut, format_for_stream, put, width, wrap_line

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
        progress.echo(f"line {number}")
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
    progress.echo("a line")
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


def test_a_log_that_cannot_be_written_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """logging's own way is a traceback a line, and an error where the file is closed."""
    with run_log(Path("/dev/full")):
        for number in range(3):
            log_event("an event", number=number)
    (line,) = capsys.readouterr().err.splitlines()
    assert "/dev/full cannot be written" in line
    assert "No space left" in line


# -- how it looks ------------------------------------------------------------------------------------------------------


LINES = [
    "  300 records in 7 s (2,534 a minute) · 315 calls, p50 0.12 s, p95 0.16 s · 3 refused by the rate limit",
    "FAIL  output folder  runs/x holds the run of another task: choose another folder with --output, or give --fresh",
    "  labels    /a/path/that/is/longer/than/any/terminal/and/which/somebody/will/want/to/copy/whole/labels.csv",
    "labelpipe: calls fail for everyone (503: The server is overloaded). Probing until it is over, once a second.",
    "  label     " + "ほんとうに良い " * 12,
]


@pytest.mark.parametrize("columns", [60, 99, 200])
@pytest.mark.parametrize("line", LINES)
def test_no_word_is_broken(line: str, columns: int) -> None:
    lines = wrap_line(line, columns).split("\n")
    assert [word for one in lines for word in one.split()] == line.split()
    for one in lines:
        assert width(one) <= columns or len(one.split()) <= 2, "only a word of its own is longer"
        assert not one.rstrip().endswith("·"), "what parts two words stands before the second"
    indents = {len(one) - len(one.lstrip()) for one in lines[1:]}
    assert len(indents) <= 1, "and they stand below each other"


def test_what_is_cut_is_cut_between_words() -> None:
    assert cut("one two three", 13) == "one two three"
    assert cut("one two three", 12) == "one two…"
    assert cut("unbreakable", 6) == "unbre…"


def test_colors_are_for_terminals_and_for_who_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    lines = ["FAIL  key  is wrong", "BAD  file  is wrong", "ok    key  is right", "Done", "SIMULATED: worth nothing"]
    text = "\n".join([*lines, "1/2 OUTAGE since 02:14:00 (503)"])
    shown = colorize(text)
    for word in ("FAIL", "BAD", "ok", "Done", "SIMULATED", "OUTAGE since 02:14:00"):
        assert f"m{word}\x1b[0m" in shown
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream, os.fdopen(ours, "rb"):
        assert format_for_stream(text, stream) == shown
        monkeypatch.setenv("NO_COLOR", "1")
        assert format_for_stream(text, stream) == text
    monkeypatch.delenv("NO_COLOR")
    assert format_for_stream(text, io.StringIO()) == text, "no terminal"
