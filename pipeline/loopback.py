"""Serves pages to the person at this machine: on loopback, protected by a token and from scripts of other sites."""

import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

from pipeline.errors import SetupError

HOST = "127.0.0.1"
#: How long the end of the server waits for answers in progress, in seconds.
STOP_S = 1.0
#: The most bytes that a page may send. A label that is a long text may exceed a megabyte.
BODY_BYTES_MOST = 16_000_000
#: Forbids what the pages do not need: frames around them, type guessing, referrers, and caching.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A browser's request. `path` is what follows the token, without a leading slash.

    `body` has at most `BODY_BYTES_MOST` bytes. `method` is GET also for a request for the head alone.
    """

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class PageResponse:
    """The response. `policy` is a page's Content-Security-Policy; without one the page loads and runs nothing."""

    body: bytes
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    policy: str = "default-src 'none'"


PageHandler: TypeAlias = Callable[[PageRequest], Awaitable[PageResponse]]


@asynccontextmanager
async def serve_pages(answer: PageHandler, *, port: int = 0) -> AsyncIterator[str]:
    """Serve within the block; yields the address to open, which contains the token. Port 0 takes a free one.

    Raises SetupError if the port is taken. Requests without the token, for another host name, or from a page of another
    site are refused before `answer` gets them.
    """
    token, names = secrets.token_urlsafe(24), set[str]()

    async def handle(request: web.Request) -> web.Response:
        first, _, path = request.path.removeprefix("/").partition("/")
        origin = request.headers.get("Origin")  # absent if the request does not come from a page
        if request.headers.get("Host", "") not in names or origin not in {None, *(f"http://{name}" for name in names)}:
            return _refused(403, "This page is for a browser on this machine only.")
        if not hmac.compare_digest(first.encode(), token.encode()):
            return _refused(404, "Not found. Open the address that labelpipe printed.")
        if request.path == f"/{token}":  # without its last slash, the page would request its script elsewhere
            return web.Response(status=308, headers={**_HEADERS, "Location": f"/{token}/"})
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _refused(413, f"What was sent is larger than {BODY_BYTES_MOST:,} bytes.")
        # aiohttp omits the body of a response to HEAD.
        method = "GET" if request.method == "HEAD" else request.method
        reply = await answer(PageRequest(method, path, dict(request.query), body))
        policy = f"{reply.policy}; frame-ancestors 'none'"
        headers = {**_HEADERS, "Content-Type": reply.kind, "Content-Security-Policy": policy}
        return web.Response(body=reply.body, status=reply.status, headers=headers)

    app = web.Application(client_max_size=BODY_BYTES_MOST)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
    await runner.setup()
    try:
        await _listen(runner, port)
        bound_port = runner.addresses[0][1]
        names |= {f"{HOST}:{bound_port}", f"localhost:{bound_port}"}
        yield f"http://{HOST}:{bound_port}/{token}/"
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        raise SetupError(f"--port {port}: cannot listen on {HOST}:{port} ({error}); choose another port") from error


def _refused(status: int, message: str) -> web.Response:
    return web.Response(text=message, status=status, headers=_HEADERS)
