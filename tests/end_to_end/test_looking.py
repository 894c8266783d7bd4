"""Looking at a run: again and again while it is at work, by scripts, before it begins, and after a replay."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from end_to_end.forked import Fork
from end_to_end.stage import Endpoint, Endpoints, Process, Project, environment, project, wait_until

from pipeline.settings import Settings

Make = Callable[..., Project]
#: Long enough that a server keeps it: 1,024 tokens and more.
SYSTEM = "You help to make training data. " * 200


def at_work(tmp_path: Path, endpoints: Endpoints, count: int = 600, **tables: Any) -> tuple[Project, Endpoint]:
    """A run that takes a while, two at a time and 50 ms each."""
    endpoint = endpoints.open(latency_ms=50.0)
    limits = {"concurrency": 2, **tables.pop("limits", {})}
    return project(tmp_path / "project", endpoint.base_url, count, limits=limits, **tables), endpoint


class Watched:
    """`labelpipe status run --watch` in a terminal of its own."""

    def __init__(self, user: Project, *args: str) -> None:
        self._ours, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
        words, env = ["status", "run", "--watch", "--every", "0.2", *args], environment({"TERM": "xterm"})
        self.process = Process(words, Fork(words, user.folder, env, inner, out=inner, err=inner))
        os.close(inner)
        os.set_blocking(self._ours, False)
        self._bytes = b""
        self.text = ""

    def read(self) -> str:
        try:
            while part := os.read(self._ours, 65_536):
                self._bytes += part  # a letter may come in two parts
        except OSError:  # nothing there now, or never again
            pass
        self.text = self._bytes.decode(errors="ignore")
        return self.text

    def end(self) -> int:
        code = self.process.wait().code
        self.read()
        os.close(self._ours)
        return code


def test_a_watched_run_is_redrawn_in_place_until_it_ends(tmp_path: Path, endpoints: Endpoints) -> None:
    user, endpoint = at_work(tmp_path, endpoints, 80)
    run = user.start("run", "job.toml")
    wait_until(lambda: (user.run_dir / "live.json").exists() and endpoint.calls() > 5)
    user.do("pause", "run").expect(0)  # so that it is at work however late the watcher comes
    watched = Watched(user)
    wait_until(lambda: watched.read().count("\x1b[J") >= 2)
    user.do("resume", "run").expect(0)
    wait_until(lambda: watched.read().count("\x1b[J") >= 3)
    run.wait().expect(0)
    assert watched.end() == 0, "it ends with the run"
    first, *others = re.split(r"\x1b\[(\d+)F\x1b\[J", watched.text)
    blocks = [first, *others[1::2]]
    for before, up, block in zip(blocks, others[::2], blocks[1:], strict=False):
        assert int(up) == before.count("\n"), "over the last block, no more and no less"
        plain = re.sub(r"\x1b\[[0-9;]*m", "", block)
        assert [line for line in plain.splitlines() if len(line) >= 70] == [], "no line is broken in two"
    assert "(running)" in first
    assert "80 labelled" in blocks[-1]
    assert "(not running)" in blocks[-1]
    endpoints.close(endpoint)


def test_ctrl_c_ends_the_watching_and_not_the_run(tmp_path: Path, endpoints: Endpoints) -> None:
    user, endpoint = at_work(tmp_path, endpoints)
    run = user.start("run", "job.toml")
    wait_until(lambda: (user.run_dir / "live.json").exists() and endpoint.calls() > 5)
    watched = Watched(user)
    wait_until(lambda: "labelled" in watched.read())
    watched.process.signal(signal.SIGINT)
    assert watched.end() == 0
    assert "Traceback" not in watched.text
    calls = endpoint.calls()
    wait_until(lambda: endpoint.calls() > calls)
    user.do("drain", "run").expect(0)
    run.wait().expect(3)
    endpoints.close(endpoint)


def test_without_a_terminal_blocks_or_lines_of_json(tmp_path: Path, endpoints: Endpoints) -> None:
    user, endpoint = at_work(tmp_path, endpoints, 150)
    run = user.start("run", "job.toml")
    wait_until((user.run_dir / "live.json").exists)
    blocks = user.start("status", "run", "--watch", "--every", "0.3")
    lines = user.start("status", "run", "--watch", "--every", "0.3", "--json")
    run.wait().expect(0)
    shown, told = blocks.wait().expect(0).out, lines.wait().expect(0).out
    assert "\x1b" not in shown
    assert len(re.findall(r"^\d\d:\d\d:\d\d$", shown, re.MULTILINE)) >= 2
    found = [json.loads(line) for line in told.splitlines()]
    assert found[0]["running"] is True
    assert (found[-1]["running"], found[-1]["labelled"]) == (False, 150)
    endpoints.close(endpoint)


def test_the_status_for_scripts_has_all_of_it(tmp_path: Path, endpoints: Endpoints) -> None:
    user, endpoint = at_work(
        tmp_path,
        endpoints,
        limits={"requests_per_day": 9_000, "budget_tokens": 50_000_000, "budget_usd": 50.0, "stop_at": "03:33"},
        model={"parameters": {"max_completion_tokens": 30}},
        task={"system": SYSTEM},
    )
    run = user.start("run", "job.toml")
    wait_until(lambda: (user.run_dir / "live.json").exists() and endpoint.calls() > 20)
    wait_until(lambda: user.do("status", "run", "--json").json["live"]["calls"] > 20)
    facts = user.do("status", "run", "--json").expect(0).json
    live = facts["live"]
    assert (live["gate"], live["concurrency"], live["outage"], live["stopping"]) == ("open", 2, None, None)
    assert live["calls"] > 20
    assert live["rate_per_minute"] > 0
    assert 0.03 < live["latency_p50_s"] < live["latency_p95_s"] * 1.01
    assert live["budget"]["spent"]["usd"] > 0
    assert live["budget"]["left"]["tokens"] < 50_000_000 - live["budget"]["spent"]["tokens"] + 1
    assert live["limits"]["limits.budget_tokens"] == 50_000_000
    assert live["ends_at"].split("T")[1].startswith("03:33")
    assert 0 < live["requests_left_today"] < 9_000
    assert (live["learned"], live["estimated"]) == ({}, [])
    assert live["usage"]["cached"] > 0
    shown = user.do("status", "run").expect(0).out
    for words in ("gate open", "budget: $", "tokens used", "of 9,000 requests left", "the run ends at", " saved"):
        assert words in shown, shown
    run.kill()
    killed = user.do("status", "run", "--json").expect(0).json
    assert (killed["running"], killed["ended"], killed["live"]["total"]) == (False, "killed", live["total"])
    assert killed["saved_usd"] == pytest.approx(killed["tokens"]["cached"] * (0.10 - 0.01) / 1e6)
    assert killed["saved_usd"] > 0
    endpoints.close(endpoint)


def test_what_the_cache_saved_is_said_as_money(make: Make) -> None:
    user = make(count=30, task={"system": SYSTEM})
    done = user.do("run", "job.toml").expect(0)
    summary = json.loads((user.run_dir / "summary.json").read_bytes())
    cached = summary["usage"]["cached"]
    assert cached > 0
    assert summary["saved_usd"] == pytest.approx(cached * (0.10 - 0.01) / 1e6)
    written = summary["usage"]["cache_write"]
    assert summary["cache_write_usd"] == pytest.approx(written * (0.125 - 0.10) / 1e6)
    assert f"({cached:,} cached, $0.00" in done.err
    assert f" saved; {written:,} written to the cache, $0.0001 more; $0.00" in done.err


def test_the_constant_part_is_marked_where_that_is_set(make: Make) -> None:
    user = make(count=3, task={"system": "You help."}, model={"cache_breakpoint": True})
    assert user.run()["labelled"] == 3
    user.configure(model={"base_url": "https://api.openai.com/v1", "name": "gpt-5.5"})
    told = user.do("check", "job.toml", "--offline").expect(2).out
    assert "model.cache_breakpoint = true, but gpt-5.5 takes no mark" in told


def test_a_config_with_another_models_price(make: Make, tmp_path: Path) -> None:
    from pipeline.parts.limits import price_for

    user = make(model={"price": {"input": 2.0, "output": 8.0, "cached_input": 0.2}})

    def price(**changes: Any) -> float | None:
        user.configure(model=changes)
        found = price_for(Settings.load(user.folder / "job.toml", []))
        return None if found is None else found.written

    assert price() == 2.5
    assert price(name="gpt-4.1") == 2.0
    assert price(price={"input": 2.0, "output": 8.0, "cache_write": 3.0}) == 3.0


def test_the_first_call_warms_the_cache_alone(tmp_path: Path, endpoints: Endpoints) -> None:
    """No other call leaves before the first one is answered, slow as it is: they find its prompt in the cache."""
    endpoint = endpoints.open(latency_ms=3_000.0)
    user = project(tmp_path / "project", endpoint.base_url, 40, task={"system": SYSTEM}, limits={"concurrency": 40})
    summary = user.run()
    first, *others = sorted(line.at_s for line in endpoint.lines())
    assert len(others) == 39
    assert min(others) - first > 2.0, "a whole call's time later"
    prompt = summary["usage"]["prompt"]
    assert summary["usage"]["cached"] > 0.9 * prompt * 39 / 40
    endpoints.close(endpoint)


def test_the_replay_of_an_unfinished_run_says_that_it_is_one(make: Make) -> None:
    user = make(count=30, limits={"budget_tokens": 2_000, "concurrency": 1},
                model={"parameters": {"max_completion_tokens": 30}})  # fmt: skip
    labelled = user.run(code=3)["labelled"]
    assert 0 < labelled < 30
    again = user.do("replay", "job.toml", "--json").expect(0).json
    assert (again["ended"], again["pending"], again["labelled"]) == ("replayed", 30 - labelled, labelled)
    assert again["next_step"] == "to continue: labelpipe run job.toml"
    shown = user.do("replay", "job.toml").expect(0).err
    assert shown.startswith("Replayed: ")
    assert f"{30 - labelled} pending" in shown
    (user.folder / "in.jsonl").rename(user.folder / "elsewhere.jsonl")
    blind = user.do("replay", "job.toml", "--json").expect(0).json
    assert (blind["ended"], blind["pending"]) == ("replayed", None)
    assert "pending records were not counted" in blind["reason"]
    (user.folder / "elsewhere.jsonl").rename(user.folder / "in.jsonl")
    user.configure(limits={"budget_tokens": None})
    user.run()
    whole = user.do("replay", "job.toml", "--json").expect(0).json
    assert (whole["ended"], whole["pending"], whole["next_step"]) == ("complete", 0, "")


def test_a_preview_with_a_wrong_key_ends_as_a_run_does(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(api_key="sk-right-0123456789abcdef")
    user = project(tmp_path / "project", endpoint.base_url)
    assert "Stopped: " in user.do("preview", "job.toml").expect(2).out
    endpoints.close(endpoint)
    spent = endpoints.open(quota_after=2)
    user.configure(model={"base_url": spent.base_url})
    user.do("preview", "job.toml").expect(3)
    endpoints.close(spent)


def test_a_check_says_that_a_run_would_be_refused_as_changed(make: Make, endpoint: Endpoint) -> None:
    user = make()
    assert "resume" not in user.do("check", "job.toml").out
    user.run()
    assert "20 records there have an outcome and are not asked again" in user.do("check", "job.toml").expect(0).out
    calls = endpoint.calls()
    before = (user.run_dir / "manifest.json").read_bytes()
    user.configure(task={"system": "another one"})
    checks = {one["name"]: one for one in user.do("check", "job.toml", "--json").expect(0).json["checks"]}
    assert checks["resume"]["ok"] is None, "a warning: what to do about it is the user's to choose"
    assert "`run` would stop and ask" in checks["resume"]["detail"]
    assert "--relabel" in checks["resume"]["detail"]
    user.configure(task={"system": None})
    user.give([{"id": "r0001", "text": "another text"}])
    assert "1 record with an outcome and changed content" in user.do("check", "job.toml").expect(0).out
    assert (user.run_dir / "manifest.json").read_bytes() == before
    assert endpoint.calls() == calls, "and nothing was asked"


def test_the_page_about_a_run_is_written_and_served(make: Make) -> None:
    user = make(count=3)
    told = user.do("run", "job.toml").expect(0).err
    assert f"  report    {Path('run', 'report.html')}" in told.splitlines()
    (user.run_dir / "report.html").unlink()
    written = user.do("report", "job.toml", "--json").expect(0).json
    assert written["size_bytes"] == (user.run_dir / "report.html").stat().st_size
    watching = user.start("watch", "run", "--json")
    assert watching.popen.stdout is not None
    address = json.loads(watching.popen.stdout.readline())["address"]
    with urllib.request.urlopen(address) as answer:
        assert b"labeling report</title>" in answer.read()
    watching.signal(signal.SIGINT)
    assert "Traceback" not in watching.wait().expect(0).err
