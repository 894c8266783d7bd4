"""What nobody is awake for: orders from elsewhere, edits, a budget, a tuned concurrency, stragglers, notices."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Endpoints, Project, project, wait_until

Make = Callable[..., Project]


@pytest.fixture
def slow(tmp_path: Path, endpoints: Endpoints) -> Iterator[Callable[..., tuple[Project, Any]]]:
    """Projects with an endpoint of their own, 100 ms a call."""
    opened = []

    def make_one(count: int = 400, options: dict[str, Any] | None = None, **tables: Any) -> tuple[Project, Any]:
        endpoint = endpoints.open(**{"latency_ms": 100.0, **(options or {})})
        opened.append(endpoint)
        return project(tmp_path / f"project{len(opened)}", endpoint.base_url, count, **tables), endpoint

    yield make_one
    for endpoint in opened:
        endpoints.close(endpoint)


def live(user: Project) -> dict[str, Any]:
    """What the run shows of itself; {} while it does not."""
    try:
        found: dict[str, Any] = json.loads((user.run_dir / "live.json").read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def test_orders_from_another_terminal(slow: Callable[..., tuple[Project, Any]]) -> None:
    user, endpoint = slow(1_500, limits={"concurrency": 2})
    process = user.start("run", "job.toml")
    endpoint.wait_for_calls(3)
    wait_until(lambda: bool(live(user)))

    assert "2 -> 8" in user.do("set", "run", "limits.concurrency=8").expect(0).err
    wait_until(lambda: endpoint.in_flight() > 2)
    assert "cannot change during a run" in user.do("set", "run", "task.prompt=x").expect(2).err
    assert "expected" in user.do("set", "run", "limits.concurrency=many").expect(2).err

    user.do("pause", "run").expect(0)
    wait_until(lambda: endpoint.in_flight() == 0 and bool(live(user).get("paused")))
    calls = endpoint.calls()
    assert "PAUSED" in user.do("status", "run").expect(0).out
    assert endpoint.calls() == calls, "nothing leaves while it is paused"
    user.do("resume", "run").expect(0)
    wait_until(lambda: endpoint.calls() > calls)

    assert "draining" in user.do("drain", "run").expect(0).err
    done = process.wait().expect(3)
    assert "limits.concurrency 2 -> 8" in done.err
    assert "labelpipe run" in done.err, "it says how to go on"
    assert len(user.labels()) == len(endpoint.given()), "what was in flight is kept"
    user.run("--set", "limits.concurrency=200")
    assert user.verify()["labelled"] == 1_500
    assert "did not answer" in user.do("pause", "run", "--wait", "0.3").expect(2).err


def test_an_edit_of_the_config_is_taken_over(slow: Callable[..., tuple[Project, Any]]) -> None:
    user, endpoint = slow(limits={"concurrency": 2})
    process = user.start("run", "job.toml", "--set", "limits.max_attempts=3")
    endpoint.wait_for_calls(2)
    wait_until(lambda: live(user).get("limits", {}).get("limits.concurrency") == 2)

    user.configure(limits={"concurrency": 12}, task={"system": "another one"})
    wait_until(lambda: live(user)["limits"]["limits.concurrency"] == 12)
    assert live(user)["limits"]["limits.max_attempts"] == 3, "what --set said holds"
    user.configure(task={"system": None})
    (user.folder / "job.toml").write_text("[limits\n")
    wait_until(lambda: "was not applied" in (process.popen.stderr.readline() if process.popen.stderr else ""))
    user.configure(limits={"concurrency": 50})
    done = process.wait().expect(0)
    assert user.verify()["labelled"] == 400
    assert "limits.concurrency" in done.err


def test_a_budget_is_never_passed_over_kills_and_resumes(slow: Callable[..., tuple[Project, Any]]) -> None:
    """By the endpoint's own books: every billed token counts, also those of a killed session."""
    cap = 90_000
    user, endpoint = slow(
        1_200,
        {"latency_ms": 5.0},
        limits={"budget_tokens": cap, "concurrency": 8},
        model={"parameters": {"max_completion_tokens": 30}},
    )
    process = user.start("run", "job.toml")
    endpoint.wait_for_calls(100)
    process.kill()
    summary = user.run(code=3)
    assert "budget" in summary["reason"]
    assert endpoint.totals()["tokens"] <= cap
    assert endpoint.totals()["tokens"] > 0.9 * cap, "what a kill had in flight, and what was written ahead, is counted"
    assert user.run(code=3)["session_records"] == 0, "and it stays reached"
    assert endpoint.totals()["tokens"] <= cap

    user.configure(limits={"budget_tokens": 10_000_000})
    user.run()
    assert user.verify()["labelled"] == 1_200


def test_a_budget_needs_a_bound_and_a_price(make: Make) -> None:
    user = make(limits={"budget_usd": 1.0})
    assert "max_completion_tokens" in user.do("run", "job.toml").expect(2).err
    user.configure(model={"parameters": {"max_completion_tokens": 30}, "name": "nobody-knows"})
    assert "model.price" in user.do("run", "job.toml").expect(2).err


def test_concurrency_finds_itself(slow: Callable[..., tuple[Project, Any]]) -> None:
    user, endpoint = slow(1_500, {"latency_ms": 30.0}, limits={"concurrency": "auto", "concurrency_max": 40})
    summary = user.run()
    assert summary["labelled"] == 1_500
    assert 8 < endpoint.totals()["peak_in_flight"] <= 40
    assert "concurrency" in summary["learned"]


def test_a_straggler_is_asked_a_second_time(slow: Callable[..., tuple[Project, Any]]) -> None:
    """One call hangs for ever: with hedging the run does not wait for its timeout."""
    user, endpoint = slow(
        60,
        {"latency_ms": 20.0, "faults": {"hang": 0.02}, "seed": 5},
        limits={"hedge_after_p": 95, "concurrency": 30},
        model={"timeout_s": 600},
    )
    summary = user.run()
    assert summary["labelled"] == 60
    hung = [key for key, calls in endpoint.asked().items() if calls > 1] or summary["retries"].get("hedge")
    assert hung
    assert summary["session_s"] < 600


def test_outside_its_hours_nothing_leaves(slow: Callable[..., tuple[Project, Any]]) -> None:
    now = datetime.now().astimezone()
    hours = [f"{now + timedelta(hours=2):%H:%M}", f"{now + timedelta(hours=3):%H:%M}"]
    user, endpoint = slow(20, limits={"run_between": hours})
    process = user.start("run", "job.toml")
    wait_until(lambda: "outside the hours" in live(user).get("trouble", ""))
    assert endpoint.calls() == 0
    user.do("set", "run", "limits.run_between=none").expect(0)
    process.wait().expect(0)
    assert len(user.labels()) == 20


class _Hook(http.server.BaseHTTPRequestHandler):
    got: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


def test_the_end_is_told(make: Make) -> None:
    got: list[dict[str, Any]] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Hook", (_Hook,), {"got": got})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        secret = f"http://127.0.0.1:{server.server_port}/hooks/T000/very-secret"
        user = make(notify={"url": secret})
        user.run()
        user.configure(notify={"url": "http://127.0.0.1:9/very-secret"}, input={"limit": 3})
        user.run("--output", "other")
        server.shutdown()
        thread.join()
    assert [message["labelpipe"]["event"] for message in got] == ["end"]
    assert "20 labelled" in got[0]["text"]
    for path in [*user.run_dir.iterdir(), *(user.folder / "other").iterdir()]:
        assert b"very-secret" not in path.read_bytes(), f"{path.name} holds the address of the webhook"
