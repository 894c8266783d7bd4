"""A model that talks by a script, over real sockets, and writes down each call; a task that talks, and its books."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web
from end_to_end.stage import Project, project
from task.task_conversation import is_conversation

from pipeline.store import Ledger

#: What is said: calls as (function, arguments) or (function, arguments, id), or words; None is an answer without
#: anything in it, a number an HTTP status.
Script = Callable[[str, int, list[dict[str, Any]]], Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One call that was answered. `turn` counts the answers with calls before it that were not asked again."""

    key: str
    turn: int
    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation so far."""
        found: list[dict[str, Any]] = self.body["messages"]
        return found

    @property
    def told(self) -> list[str]:
        """What the functions gave back."""
        return [message["content"] for message in self.messages if message["role"] == "tool"]


class Talker:
    """Serves in a thread. `script` is called with the record's key, the turn and the messages.

    The key is the first word of the user's message.
    """

    def __init__(self, script: Script, latency_s: float = 0.0) -> None:
        self.script = script
        self.latency_s = latency_s
        self.asked: list[Asked] = []
        self.base_url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="talker", daemon=True)

    def turns_of(self, key: str) -> list[Asked]:
        """The calls about one record."""
        return [one for one in self.asked if one.key == key]

    def __enter__(self) -> Talker:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        messages = body["messages"]
        key = next(one["content"] for one in messages if one["role"] == "user").split()[0]
        turn = sum(one["role"] == "assistant" and bool(one.get("tool_calls")) for one in messages)
        self.asked.append(Asked(key, turn, body))
        number = len(self.asked)
        await asyncio.sleep(self.latency_s)
        said = self.script(key, turn, messages)
        if not is_conversation(messages):
            said = 400
        if isinstance(said, int):
            return web.json_response({"error": {"message": "not now"}}, status=said)
        return web.json_response(_completion(said, number), headers={"x-request-id": f"request {number}"})


def _completion(said: str | Sequence[tuple[Any, ...]] | None, number: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said if isinstance(said, str) else None}
    if said is not None and not isinstance(said, str):
        message["tool_calls"] = [
            {
                "id": own[0] if own else f"call_{number}_{place}",
                "type": "function",
                "function": {"name": name, "arguments": _text(value)},
            }
            for place, (name, value, *own) in enumerate(said)
        ]
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-6-luna",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# -- a task that talks -----------------------------------------------------------------------------------------------

TOOLS = [
    {"name": "look_up", "description": "Look a thing up.", "labels": {"thing": ["kettle", "lamp", "none"]}},
    {"name": "close", "description": "Nothing has to be done.", "labels": {"why": ["spam", "done"]}},
]
#: Each callback writes what it was called with before it does anything, so that nothing it does goes unseen.
TALK = """
import asyncio
import json
import os
import pathlib
import time


def note(label, record, call):
    line = json.dumps({"key": call.idempotency_key, "record": record.key, "turn": call.turn, "tool": call.tool,
                       "label": label}) + "\\n"
    file = os.open("noted.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


def look_up(label, record, call):
    note(label, record, call)
    if label["thing"] == "none":
        raise LookupError("there is no such thing")
    return {"stock": 3, "thing_known": True}


look_up.extra_columns = ("stock",)


async def slowly(label, record, call):
    note(label, record, call)
    await asyncio.sleep(0.03)
    return {"seen": record.key}


slowly.extra_columns = ("seen",)


async def waits(label, record, call):
    note(label, record, call)
    while not pathlib.Path("go").exists():
        await asyncio.sleep(0.01)
    return {"version": pathlib.Path("go").read_text()}


def hangs(label, record, call):
    note(label, record, call)
    time.sleep(3600)
"""


def talking(folder: Path, base_url: str, count: int = 6, **tables: Any) -> Project:
    """A project whose task has tools and callbacks."""
    task = {"labels": None, "tools": TOOLS, "callback": "talk:look_up", "max_turns": 3, "reply": "words"}
    made = project(folder, base_url, count=count, task={**task, **tables.pop("task", {})}, **tables)
    (folder / "talk.py").write_text(TALK, encoding="utf-8")
    return made


def noted(user: Project) -> list[dict[str, Any]]:
    """What the callbacks were called with."""
    path = user.folder / "noted.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def outcomes(user: Project) -> dict[str, Any]:
    """The ledger's outcomes by key."""

    async def read() -> dict[str, Any]:
        async with await Ledger.open(user.run_dir / "ledger.db", read_only=True) as ledger:
            return {outcome.record.key: outcome for _, outcome in await ledger.rows_after(0, 10_000)}

    return asyncio.run(read())
