"""Who is told at 3 a.m., and of what: every event that needs somebody, once, over a real webhook."""

from __future__ import annotations

import http.server
import json
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Endpoint, Endpoints, Project, project, wait_until

Make = Callable[..., Project]
BOUND = {"parameters": {"max_completion_tokens": 30}}


class Hook:
    """A webhook that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def events(self) -> list[str]:
        """What was told, by name: two that go out at once may come in any order."""
        return sorted(one["labelpipe"]["event"] for one in self.got)

    def text(self, event: str) -> str:
        """What a person reads of it."""
        return str(next(one["text"] for one in self.got if one["labelpipe"]["event"] == event))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    opened = Hook()
    yield opened
    opened.close()


def test_a_budget_that_is_reached_says_what_is_left_and_what_it_would_cost(make: Make, hook: Hook) -> None:
    """On the screen, in summary.json, in the status and in the notice: the same words."""
    user = make(count=400, notify={"url": hook.url}, model=BOUND, limits={"budget_tokens": 8_000, "concurrency": 4})
    done = user.do("run", "job.toml").expect(3)
    summary = json.loads((user.run_dir / "summary.json").read_bytes())
    left, labelled = summary["left"], summary["labelled"]
    assert 0 < labelled < 400
    assert left["records"] + labelled == pytest.approx(400, rel=0.05)
    assert left["tokens"] == pytest.approx(summary["usage"]["prompt"] * left["records"] / labelled, rel=0.5)
    assert left["usd"] > 0
    assert f"at what {labelled:,} cost so far they need about $" in left["text"]
    assert f"left      {left['text']}" in done.err
    assert f"left: {left['text']}" in user.do("status", "run").expect(0).out
    assert hook.events == ["budget", "end"]
    assert "are left; at what" in hook.text("budget")
    assert "Raise limits.budget_usd or limits.budget_tokens" in hook.text("budget")
    assert "Then: labelpipe run job.toml" in hook.text("budget")
    assert left["text"] in hook.text("end")


@pytest.mark.parametrize("on", [["attention"], ["end"]])
def test_a_quota_that_is_used_up(tmp_path: Path, endpoints: Endpoints, hook: Hook, on: list[str]) -> None:
    endpoint = endpoints.open(quota_after=10)
    user = project(tmp_path / "project", endpoint.base_url, 60, notify={"url": hook.url, "on": on})
    user.run(code=3)
    assert hook.events == (["quota"] if on == ["attention"] else ["end"])
    if on == ["attention"]:
        assert "Add credit" in hook.text("quota")
    endpoints.close(endpoint)


def test_a_key_that_is_refused(tmp_path: Path, endpoints: Endpoints, hook: Hook) -> None:
    endpoint = endpoints.open(api_key="sk-right-0123456789abcdef")
    user = project(tmp_path / "project", endpoint.base_url, notify={"url": hook.url})
    user.run(code=2)
    assert hook.events == ["credentials", "end"]
    assert "Fix the key" in hook.text("credentials")
    endpoints.close(endpoint)


def test_a_day_that_is_used_up_is_told_once_and_slept_through(make: Make, hook: Hook) -> None:
    user = make(notify={"url": hook.url}, limits={"requests_per_day": 7})
    process = user.start("run", "job.toml")
    wait_until(lambda: "day_limit" in hook.events)
    assert "It then continues by itself" in hook.text("day_limit")
    assert "the 7 requests a day are used up" in hook.text("day_limit")
    status = user.do("status", "run", "--json").expect(0).json["live"]
    assert (status["requests_left_today"], status["requests_per_day"], status["gate"]) == (0, 7, "held")
    user.do("drain", "run").expect(0)
    process.wait().expect(3)
    assert hook.events == ["day_limit", "end"], "who drains needs not be told"


def test_a_day_that_is_used_up_may_end_the_run(make: Make, hook: Hook) -> None:
    user = make(notify={"url": hook.url}, limits={"requests_per_day": 7, "on_day_limit": "stop"})
    user.run(code=3)
    assert hook.events == ["day_limit", "end"]
    assert "after 00:00 UTC" in hook.text("day_limit")


def test_an_outage_and_its_limit(make: Make, hook: Hook, endpoints: Endpoints, endpoint: Endpoint) -> None:
    user = make(count=3_000, notify={"url": hook.url}, limits={"outage_limit_s": 2})
    process = user.start("run", "job.toml")
    endpoint.wait_for_calls(20)
    down = endpoints.again(endpoint, faults={"503": 1.0})
    process.wait().expect(3)
    assert hook.events == ["end", "outage", "outage_limit"]
    assert "The run probes until it is over" in hook.text("outage")
    assert "provider's status page" in hook.text("outage_limit")
    assert down.calls() < 60


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux takes a process's room away from outside")
def test_a_disk_that_is_full_is_told_before_the_last_try(tmp_path: Path, endpoints: Endpoints, hook: Hook) -> None:
    endpoint = endpoints.open(latency_ms=50.0)
    user = project(tmp_path / "project", endpoint.base_url, 1_000, notify={"url": hook.url})
    process = user.start("run", "job.toml")
    wait_until(lambda: (user.run_dir / "live.json").exists() and endpoint.calls() > 30)
    before = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    wait_until(lambda: "store" in hook.events)
    assert "Make room on the disk" in hook.text("store")
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, before)
    process.wait().expect(3)
    assert hook.events == ["end", "store"]
    user.run("--set", "limits.concurrency=200")
    assert user.verify()["labelled"] == 1_000
    endpoints.close(endpoint)
