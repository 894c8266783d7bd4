"""Limits from outside the session: a resource that sends only what a coordinator of several runs grants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import CODES, Endpoint, read_csv, rows

from pipeline import RunOptions, Settings, run, verify
from pipeline.errors import RateLimitedError, StoppedError
from pipeline.limits import Admission, Gate, Hold, ResourceState, Verdict
from pipeline.records import ServerLimits, Usage

RunOn = Callable[[Any], Any]

COUNT = 43
#: What one grant holds; how long it is valid, and how soon the next one follows, in seconds.
REQUESTS, TOKENS, VALID_S, EVERY_S = 5, 4_000, 0.25, 0.05


class Granted:
    """A resource with a grant of requests and tokens that expires, and its books. It learns nothing of the server."""

    def __init__(self, verdict: Verdict | None = None) -> None:
        self.verdict = verdict or Verdict()
        self.requests = self.tokens = 0
        self.expires_at = self.next_at = float("-inf")
        self.granted_requests = self.granted_tokens = self.sent_calls = self.used_tokens = 0
        self.sent_late = 0
        self.caps: tuple[float | None, float | None] = (None, None)
        self.released = asyncio.Event()

    async def acquire(self, tokens: int) -> None:
        while not self.released.is_set():
            now = asyncio.get_running_loop().time()
            if now < self.expires_at and self.requests and self.tokens >= tokens:
                self.requests, self.tokens = self.requests - 1, self.tokens - tokens
                return
            try:
                async with asyncio.timeout(self.next_at - now):
                    await self.released.wait()
            except TimeoutError:
                self._grant(asyncio.get_running_loop().time())

    def _grant(self, now: float) -> None:
        """What is left goes back, and what was used too much is taken from the next grant."""
        self.granted_requests += REQUESTS - self.requests
        self.granted_tokens += TOKENS - max(0, self.tokens)
        self.requests, self.tokens = REQUESTS, min(0, self.tokens) + TOKENS
        self.expires_at, self.next_at = now + VALID_S, now + EVERY_S

    def give_back(self, tokens: int) -> None:
        self.tokens += tokens

    def skip_pause(self, seconds: float) -> bool:
        return asyncio.get_running_loop().time() < self.expires_at

    def on_send(self, now: float, in_flight: int) -> None:
        self.sent_calls += 1
        self.sent_late += now >= self.expires_at
        assert self.sent_calls <= self.granted_requests

    def on_answer(self, tokens: int, limits: ServerLimits | None, now: float, sent_at: float) -> Hold | None:
        self.used_tokens += tokens
        return None

    def on_refusal(self, error: RateLimitedError, now: float, sent_at: float, in_flight: int) -> Verdict:
        return self.verdict

    def configure(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self.caps = (requests_per_minute, tokens_per_minute)

    def release(self) -> None:
        self.released.set()

    def state(self, now: float) -> ResourceState:
        return ResourceState()


def test_a_whole_run_sends_no_more_than_was_granted(tmp_path: Path, endpoint: Endpoint) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(COUNT)), encoding="utf-8")
    settings = Settings(
        input={"path": str(tmp_path / "in.jsonl"), "key": "id"},
        task={"prompt": "{{ id }} {{ text }}", "labels": {"label": CODES}},
        model={"name": "gpt-6-luna", "base_url": endpoint.base_url},
        output={"dir": str(tmp_path / "run")},
    )
    resource = Granted()
    summary = run(settings, RunOptions(quiet=True, resource=resource))
    assert (summary.labelled, summary.calls, endpoint.calls()) == (COUNT, COUNT, COUNT)
    assert {row["id"] for row in read_csv(tmp_path / "run" / "labels.csv")} == {row["id"] for row in rows(COUNT)}
    assert verify(str(tmp_path / "run")).ok
    assert resource.sent_calls == COUNT <= resource.granted_requests
    assert 0 < resource.used_tokens <= resource.granted_tokens
    assert resource.sent_late == 0


def test_a_grant_that_expires_while_the_gate_is_shut_is_not_used(moved_clock: RunOn) -> None:
    async def main() -> None:
        resource = Granted()
        door = Admission(gate=Gate(8), resource=resource)
        waiting = asyncio.ensure_future(door.acquire(10))
        resource.next_at = asyncio.get_running_loop().time() + 1.0
        await asyncio.sleep(0.5)
        door.gate.set_paused(True)
        await asyncio.sleep(60.0)
        assert resource.granted_requests == REQUESTS, "it was granted while the gate was shut"
        door.gate.set_paused(False)
        (await waiting).close()
        assert (resource.sent_calls, resource.sent_late) == (1, 0)
        assert resource.granted_requests == REQUESTS + 1, "the first call went back with the rest"

    moved_clock(main())


def test_a_stop_reaches_who_waits_for_a_grant(moved_clock: RunOn) -> None:
    async def main() -> None:
        resource = Granted()
        door = Admission(gate=Gate(8), resource=resource)
        resource.next_at = asyncio.get_running_loop().time() + 3600.0
        waiting = asyncio.ensure_future(door.acquire(10))
        await asyncio.sleep(1.0)
        door.gate.stop(ValueError("interrupted"))
        async with asyncio.timeout(0.1):
            with pytest.raises(StoppedError):
                await waiting
        assert resource.sent_calls == 0

    moved_clock(main())


@pytest.mark.parametrize(
    ("verdict", "alone_s", "held_until", "at_once"),
    [
        (Verdict(alone_s=3.0), 3.0, 0.0, 4),
        (Verdict(hold=Hold(9000.0, "told by the coordinator")), 0.0, 9000.0, 0),
        (Verdict(shrink=True), 0.0, 0.0, 0),
    ],
    ids=["its record waits", "everyone waits", "fewer in flight"],
)
def test_the_resource_says_what_a_refusal_means(
    moved_clock: RunOn, verdict: Verdict, alone_s: float, held_until: float, at_once: int
) -> None:
    async def main() -> None:
        door = Admission(gate=Gate(8), resource=Granted(verdict))
        (await door.acquire(10)).close()
        door.on_answer(Usage(10, 0), None)
        permits = [await door.acquire(10) for _ in range(4)]
        now = asyncio.get_running_loop().time()
        assert door.on_refusal(RateLimitedError(retry_after_s=0.5), now) == alone_s
        state = door.state()
        assert (state.hold_s, state.hold_reason) == (
            max(0.0, held_until - now),
            verdict.hold.reason if verdict.hold else "",
        )
        leaving = [asyncio.ensure_future(door.acquire(10)) for _ in range(4)]
        await asyncio.sleep(1.0)
        assert sum(one.done() for one in leaving) == at_once
        for permit in permits:
            permit.close()
        for one in leaving:
            one.cancel()

    moved_clock(main())
