"""What the tests of the rehearsal endpoint share: requests, and a client that is not ours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from openai import AsyncOpenAI

from pipeline.rehearsal import Rehearsal, RehearsalOptions

ENUM = ["positive", "negative", "neutral"]


class Clock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def tool(parameters: dict[str, Any] | None = None, name: str = "label", *, strict: bool = True) -> dict[str, Any]:
    if parameters is None:
        parameters = {
            "type": "object",
            "properties": {"label": {"type": "string", "enum": ENUM}},
            "required": ["label"],
            "additionalProperties": False,
        }
    return {"type": "function", "function": {"name": name, "parameters": parameters, "strict": strict}}


def forced(name: str = "label") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def ask(text: str = "I love it", record: str | None = "r1", **more: Any) -> dict[str, Any]:
    """A request's body; what is given as None is left out."""
    body: dict[str, Any] = {
        "model": "gpt-6-luna",
        "messages": [{"role": "system", "content": "You label."}, {"role": "user", "content": text}],
        "tools": [tool()],
        "tool_choice": forced(),
        "metadata": {"record": record} if record is not None else None,
        **more,
    }
    return {name: value for name, value in body.items() if value is not None}


def with_endpoint(
    test: Callable[[Rehearsal, AsyncOpenAI], Awaitable[Any]],
    *,
    clock: Clock | None = None,
    timeout_s: float = 5.0,
    **options: Any,
) -> Any:
    """Run a test against an endpoint of its own, without latency unless asked for."""

    async def main() -> Any:
        settings = RehearsalOptions(**{"latency_ms": 0.0, **options})
        endpoint = Rehearsal(settings, clock=clock) if clock else Rehearsal(settings)
        key = settings.api_key or "any"
        await endpoint.start()  # only now the port is known
        try:
            more: dict[str, Any] = {"api_key": key, "max_retries": 0, "timeout": timeout_s}
            async with AsyncOpenAI(base_url=endpoint.base_url, **more) as client:
                return await test(endpoint, client)
        finally:
            await endpoint.stop()

    return asyncio.run(main())


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what happens at the other end of a socket; fails after five seconds."""
    async with asyncio.timeout(5.0):
        while not holds():
            await asyncio.sleep(0.005)


def arguments(completion: Any) -> str:
    return str(completion.choices[0].message.tool_calls[0].function.arguments)
