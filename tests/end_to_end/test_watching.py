"""What a person sees while a run goes on, and what `verify` sees afterwards."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import sqlite3
import struct
import termios
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from end_to_end.forked import Fork
from end_to_end.stage import Endpoints, Process, Project, environment, project, wait_until

Make = Callable[..., Project]
PRICED = {"price": {"input": 2.0, "output": 8.0}}
SIZE = (24, 150)


def test_in_a_terminal_one_line_is_redrawn(tmp_path: Path, endpoints: Endpoints) -> None:
    """In one with a size, and in one that does not know its own."""
    endpoint = endpoints.open(latency_ms=100)
    started = [
        in_terminal(project(tmp_path / str(size), endpoint.base_url, count=120), size) for size in (SIZE, (0, 0))
    ]
    for process, terminal in started:
        screen = read_all(terminal).replace("\r\n", "\n")
        assert process.wait().code == 0, screen
        drawn = [part for part in screen.split("\r") if " in flight" in part and "/120" in part]
        assert len(drawn) >= 3, f"redrawn twice a second: {screen!r}"
        assert any(0 < int(part.split("/")[0]) < 120 for part in drawn), "it moves"
        assert "120/120" in drawn[-1]
        assert len([line for line in screen.split("\n") if "0 in flight" in line]) == 1, "on one line of the terminal"
        assert "120 labelled · 0 rejected · 0 failed" in screen
    endpoints.close(endpoint)


def in_terminal(user: Project, size: tuple[int, int], command: str = "run") -> tuple[Process, int]:
    """A run, or another command, with a terminal of these rows and columns; and the terminal's other side."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    words, env = [command, "job.toml"], environment({"TERM": "xterm"})
    fork = Fork(words, user.folder, env, inner, out=inner, err=inner)
    os.close(inner)
    return Process(words, fork), outer


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


def test_a_plan_shows_its_pilot_and_an_outage(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(outages=[(0.0, 6.0)])
    user = project(tmp_path / "outage", endpoint.base_url, 30)
    process, terminal = in_terminal(user, (24, 100), "plan")
    shown = read_all(terminal)
    process.wait().expect(0)
    assert "pilot 0/20" in shown
    assert "OUTAGE since " in shown
    assert "calls fail for everyone" in shown
    assert "pilot 20/20" in shown
    assert shown.index("pilot 20/20") < shown.index("10 of 30 records are left")
    assert user.do("plan", "job.toml", "--json", "--pilot", "25").expect(0).err == ""
    endpoints.close(endpoint)


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


def test_a_status_after_a_kill_says_so_and_how_to_go_on(make: Make) -> None:
    """It said "not running" and the counts: nobody learned from it that the machine had gone down."""
    user = make(count=400, limits={"concurrency": 2, "requests_per_minute": 600}, model=PRICED)
    # A child of this process.
    run = user.start("run", "job.toml", "--set", "model.headers.X-Key=very-hush", as_a_user=True)
    wait_until(lambda: _counted(user) > 2)
    began = time.time()
    run.popen.kill()
    os.waitid(os.P_PID, run.popen.pid, os.WEXITED | os.WNOWAIT)  # dead, and its exit code not fetched
    facts = user.do("status", "run", "--json").expect(0).json
    assert (facts["running"], facts["ended"], facts["summary"]) == (False, "killed", None)
    assert began - 5 < facts["last_alive_at"] < began + 5
    done = facts["labelled"]
    assert 0 < done < 400
    left, total = facts["left"], facts["live"]["total"]
    assert left["records"] == round(total) - done
    assert left["usd"] == pytest.approx(facts["cost_usd"] * left["records"] / done)
    go_on = "labelpipe run job.toml --set 'model.headers.X-Key=***'"
    assert facts["next_step"].startswith(f"to continue: {go_on}")
    shown = user.do("status", "run").expect(0).out
    assert "(not running)" in shown
    assert "last session: killed, or the machine went down; last alive 20" in shown
    assert f"{left['records']} records are left; at what {done} cost so far they need about $" in shown
    assert f"next: to continue: {go_on}" in shown
    user.configure(limits={"requests_per_minute": None})
    user.run("--limit", "400")
    whole = user.do("status", "run", "--json").expect(0).json
    assert (whole["ended"], whole["last_alive_at"], whole["live"]) == ("complete", None, None)
    assert "last session: complete" in user.do("status", "run").out


def test_a_status_after_a_kill_before_the_first_word_goes_by_the_lock(make: Make) -> None:
    user = make(count=3)
    user.run()
    (user.run_dir / "summary.json").unlink()
    owner = {"pid": 2**22 + 1, "started_at": datetime.now(UTC).isoformat(timespec="seconds")}
    old = json.loads((user.run_dir / "live.json").read_bytes())
    (user.run_dir / "live.json").write_text(json.dumps({**old, "written_at": time.time() - 3600}), encoding="utf-8")
    (user.run_dir / "lock.owner").write_text(json.dumps(owner), encoding="utf-8")
    facts = user.do("status", "run", "--json").expect(0).json
    assert (facts["ended"], facts["live"], facts["left"]) == ("killed", None, None)
    assert facts["last_alive_at"] == pytest.approx(time.time(), abs=60)
    (user.run_dir / "lock.owner").unlink()
    assert "last session: stopped by an error; last alive" in user.do("status", "run").expect(0).out


def _counted(user: Project) -> int:
    """Outcomes that a session shows of itself."""
    try:
        live = json.loads((user.run_dir / "live.json").read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return 0
    return int(live["done"]) if live["total"] else 0
