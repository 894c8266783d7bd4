"""A server of pages for the person at this machine: on loopback, behind a token, for no other site's scripts."""

import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

from pipeline.errors import SetupError

HOST = "127.0.0.1"
#: How long the end of the server waits for answers that are on their way, in seconds.
STOP_S = 1.0
#: The most that a page may send: a label that is a long text is larger than a megabyte at times.
BODY_BYTES_MOST = 16_000_000
#: What no page of ours needs: frames around it, guesses about its type, a trace of its address elsewhere, a copy of it.
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
    """What a browser asks for. `path` is what follows the token, without a slash in front.

    `body` has at most `BODY_BYTES_MOST` bytes. `method` is GET also where only the head is asked for.
    """

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class PageResponse:
    """What it gets. `policy` is the Content-Security-Policy of a page; without one nothing in it is loaded or run."""

    body: bytes
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    policy: str = "default-src 'none'"


PageHandler: TypeAlias = Callable[[PageRequest], Awaitable[PageResponse]]


@asynccontextmanager
async def serve_pages(answer: PageHandler, *, port: int = 0) -> AsyncIterator[str]:
    """Serve while the block lasts; gives the address to open, which has the token in it. Port 0 takes a free one.

    Raises SetupError where the port is taken. A request without the token, under another name than this machine's, or
    from a page of another site is refused before `answer` sees it.
    """
    token, names = secrets.token_urlsafe(24), set[str]()

    async def handle(request: web.Request) -> web.Response:
        first, _, path = request.path.removeprefix("/").partition("/")
        origin = request.headers.get("Origin")  # none where no page of a browser asks
        if request.headers.get("Host", "") not in names or origin not in {None, *(f"http://{name}" for name in names)}:
            return _refused(403, "This page is for a browser on this machine only.")
        if not hmac.compare_digest(first.encode(), token.encode()):
            return _refused(404, "Not found. Open the address that labelpipe printed.")
        if request.path == f"/{token}":  # without its last slash the page would look for its script elsewhere
            return web.Response(status=308, headers={**_HEADERS, "Location": f"/{token}/"})
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _refused(413, f"What was sent is larger than {BODY_BYTES_MOST:,} bytes.")
        # aiohttp leaves the body out where only the head is asked for.
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
