"""What a person sees while a run goes on, and what `verify` sees afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import sqlite3
import struct
import subprocess
import termios
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from end_to_end.stage import LABELPIPE, Endpoints, Project, environment, project

SIZE = (24, 150)


def test_in_a_terminal_one_line_is_redrawn(tmp_path: Path, endpoints: Endpoints) -> None:
    """In one with a size, and in one that does not know its own."""
    endpoint = endpoints.open(latency_ms=100)
    started = [
        in_terminal(project(tmp_path / str(size), endpoint.base_url, count=120), size) for size in (SIZE, (0, 0))
    ]
    for process, terminal in started:
        screen = read_all(terminal).replace("\r\n", "\n")
        assert process.wait() == 0, screen
        drawn = [part for part in screen.split("\r") if "in flight" in part]
        assert len(drawn) >= 3, f"redrawn twice a second: {screen!r}"
        assert any(0 < int(part.split("/")[0]) < 120 for part in drawn), "it moves"
        assert "120/120" in drawn[-1]
        assert len([line for line in screen.split("\n") if "in flight" in line]) == 1, "on one line of the terminal"
        assert "120 labelled · 0 rejected · 0 failed" in screen
    endpoints.close(endpoint)


def in_terminal(user: Project, size: tuple[int, int]) -> tuple[subprocess.Popen[bytes], int]:
    """A run with a terminal of these rows and columns; and the terminal's other side."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    command, env = [*LABELPIPE, "run", "job.toml"], environment({"TERM": "xterm"})
    process = subprocess.Popen(command, cwd=user.folder, env=env, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    return process, outer


def read_all(terminal: int) -> str:
    """What the terminal shows until its program has ended."""
    with open(terminal, "rb", buffering=0) as file:
        parts = []
        try:
            while part := file.read(65536):
                parts.append(part)
        except OSError:  # Linux says so when the last one at the other side is gone
            pass
    return b"".join(parts).decode("utf-8", "replace")


def test_verify_notices_what_was_tampered_with(make: Callable[..., Project]) -> None:
    user = make(count=15)
    user.run()
    spoilers: dict[str, tuple[Callable[[Path], None], str]] = {
        "label": (lambda run: other_label(run / "labels.csv"), "labels.csv"),
        "row-gone": (lambda run: without_last_line(run / "labels.csv"), "labels.csv"),
        "row-more": (lambda run: again_last_line(run / "labels.csv"), "labels.csv"),
        "file-gone": (lambda run: (run / "labels.csv").unlink(), "labels.csv"),
        "ledger-row": (lambda run: without_outcome(run / "ledger.db"), "labels.csv"),
        "ledger-bytes": (lambda run: other_bytes(run / "ledger.db"), "ledger.db"),
    }
    started = {}
    for name, (spoil, _) in spoilers.items():
        shutil.copytree(user.run_dir, user.folder / name)
        spoil(user.folder / name)
        started[name] = user.start("verify", name, "--json")
    for name, process in started.items():
        report = process.wait().expect(1).json
        assert report["ok"] is False
        bad = {check["name"] for check in report["checks"] if not check["ok"]}
        assert spoilers[name][1] in bad, f"{name}: {report}"
    assert user.verify()["labelled"] == 15


def other_label(path: Path) -> None:
    rows = path.read_bytes()
    at = rows.rindex(b",c") + 2
    path.write_bytes(rows[:at] + (b"9" if rows[at : at + 1] != b"9" else b"8") + rows[at + 1 :])


def without_last_line(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))


def again_last_line(path: Path) -> None:
    rows = path.read_bytes()
    path.write_bytes(rows + rows.splitlines(keepends=True)[-1])


def without_outcome(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM outcomes WHERE key = 'r0004'")
        connection.commit()


def other_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : 4096 + 64] = bytes(64)
    path.write_bytes(data)
