"""A server that answers as a test says, on a free port of this process; and a run against it, under a moved clock."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from engine.engine_parts import Rig, items, request

from pipeline.engine import Ending, Job, Pool, PoolSizes
from pipeline.engine.health import CHECK_MESSAGES
from pipeline.engine.interview_context import TaskPart
from pipeline.providers import ClientOptions, HttpProvider
from pipeline.records import Outcome, Status

RunOn = Callable[[Any], Any]
#: The record's number of a word that is about none.
NO_RECORD = -1


@dataclass(slots=True)
class Call:
    """One call: the record's number, how often it was asked before, how many calls came before, and when, in s.

    `tier` is the service tier that it asks for.
    """

    number: int
    again: int
    count: int
    at_s: float
    tier: str | None = None


Answer = Callable[[Call], web.StreamResponse | Awaitable[web.StreamResponse]]


def good(arguments: str = "good", tier: str | None = None, **more: Any) -> web.Response:
    """A completion with a call, served at this tier; `more` is laid over its choice."""
    calls = [{"id": "c1", "type": "function", "function": {"name": "set_label", "arguments": arguments}}]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls", **more}
    usage = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
    told = {"service_tier": tier} if tier else {}
    return web.json_response({"id": "x", "model": "m", "choices": [choice], "usage": usage, **told})


def words(text: str, finish_reason: str = "stop") -> web.Response:
    """A completion that calls nothing."""
    return good(message={"role": "assistant", "content": text}, finish_reason=finish_reason)


def error(status: int, message: str, type: str | None = None, code: Any = None, **more: Any) -> web.Response:  # noqa: A002
    """An error as OpenAI words it."""
    return web.json_response({"error": {"message": message, "type": type, "code": code, **more}}, status=status)


def page(status: int, text: str) -> web.Response:
    """A page, as firewalls and load balancers send it."""
    return web.Response(status=status, text=f"<html><title>{text}</title></html>", content_type="text/html")


@dataclass(slots=True)
class Night:
    """What a run against an odd server came to."""

    ending: Ending
    stopped: Exception | None
    outcomes: list[Outcome]
    took_s: float
    calls: Counter[int]
    rig: Rig
    seen: Counter[int] = field(default_factory=Counter)

    @property
    def labelled(self) -> set[int]:
        """The records that have a label."""
        return {one.record.ordinal for one in self.outcomes if one.status is Status.LABELLED}

    @property
    def codes(self) -> Counter[str]:
        """Why the others have none."""
        return Counter(one.problem.code for one in self.outcomes if one.problem is not None)

    @property
    def without(self) -> set[int]:
        """The records that were given up."""
        return {one.record.ordinal for one in self.outcomes} - self.labelled

    @property
    def total(self) -> int:
        """All calls, words too."""
        return self.calls.total()


def night(
    run_on: RunOn,
    answer: Answer,
    count: int = 60,
    *,
    concurrency: int = 8,
    proven: bool = False,
    task: TaskPart | None = None,
    **rules: Any,
) -> Night:
    """`count` records through a server that answers so."""
    return run_on(_night(answer, count, concurrency, proven, task, rules))  # type: ignore[no-any-return]


async def _night(
    answer: Answer, count: int, concurrency: int, proven: bool, task: TaskPart | None, rules: dict[str, Any]
) -> Night:
    loop, calls, outcomes = asyncio.get_running_loop(), Counter[int](), list[Outcome]()
    began = loop.time()

    async def handle(asked: web.Request) -> web.StreamResponse:
        body = json.loads(await asked.read())
        number = _number(body)
        call = Call(number, calls[number], calls.total(), loop.time() - began, body.get("service_tier"))
        calls[number] += 1
        await asyncio.sleep(0.02)
        found = answer(call)
        return found if isinstance(found, web.StreamResponse) else await found

    async def commit(batch: Any) -> None:
        outcomes.extend(batch)

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    provider = HttpProvider(ClientOptions(base_url=base_url, api_key="sk-test"))
    try:
        rig = Rig(provider, concurrency=concurrency, ping=provider.ping, task=task, **rules)
        rig.asker.judge.proven = rig.asker.first_records_breaker.is_off = proven
        jobs = items([Job(request(number)) for number in range(count)])
        pool = Pool(jobs, rig.asker, commit, sizes=PoolSizes.for_concurrency(concurrency, 30))
        async with asyncio.timeout(7 * 3600):
            ending = await pool.run()
        assert rig.gate.in_flight == rig.gate.unwritten == rig.asker.judge.active == 0
        assert len({one.record.key for one in outcomes}) == len(outcomes)
        return Night(ending, rig.gate.stopped, outcomes, loop.time() - began, calls, rig)
    finally:
        await provider.close()
        await runner.cleanup()


def _number(body: Any) -> int:
    text = next(one["content"] for one in body["messages"] if one["role"] == "user")
    if text == CHECK_MESSAGES[0]["content"]:
        return NO_RECORD
    found = re.search(r"text (\d+)", text)
    assert found is not None
    return int(found[1])
