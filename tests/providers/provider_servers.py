"""Tiny real servers on loopback: an HTTP one that answers what it is told, and a raw one for broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from pipeline.providers import ClientOptions, HttpProvider
from pipeline.records import Record, Request

KEY = "sk-test-0123456789abcdef"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def request(text: str = "hello", **facts: Any) -> Request:
    record = Record("in.jsonl", 0, "k0", {"text": text}, 1, 1)
    plain: dict[str, Any] = {
        "model": "m",
        "messages": ({"role": "user", "content": text},),
        "tools": (),
        "tool_choice": "auto",
        "parameters": {},
        "size_tokens": 10,
        "digest": b"0" * 16,
    }
    return Request(record=record, **{**plain, **facts})


def completion(**choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "positive", **choice.pop("message", {})}
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return {
        "id": "c",
        "object": "chat.completion",
        "model": "m-2026",
        "usage": choice.pop("usage", usage),
        "choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}],
    }


def options(base_url: str, **facts: Any) -> ClientOptions:
    return ClientOptions(**{"base_url": base_url, "api_key": KEY, **facts})


@asynccontextmanager
async def served(handler: Handler, **server: Any) -> AsyncIterator[str]:
    """The base address of a server whose every path is `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, **server)
    await site.start()
    try:
        scheme = "https" if "ssl_context" in server else "http"
        yield f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def talked_to(talk: Talk) -> AsyncIterator[str]:
    """The base address of a server that does with each connection what `talk` does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def provider_at(base_url: str, **facts: Any) -> AsyncIterator[HttpProvider]:
    provider = HttpProvider(options(base_url, **facts))
    try:
        yield provider
    finally:
        await provider.close()


async def asked(handler: Handler, **facts: Any) -> Any:
    """What the provider gives, or raises, when the server answers with `handler`."""
    async with served(handler) as base_url, provider_at(base_url) as provider:
        return await provider(request(**facts))


def answers(body: Any, status: int = 200, **headers: str) -> Handler:
    """A handler that always says this. A dict is sent as JSON, bytes as they are."""

    async def handler(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            return web.Response(body=body, status=status, headers=named)
        return web.json_response(body, status=status, headers=named)

    return handler
