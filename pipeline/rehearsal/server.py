"""Serves the endpoint: address, routes, and HTTP responses."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import itertools
import secrets
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from pipeline.codec import dumps, loads
from pipeline.errors import SetupError
from pipeline.rehearsal.batch_api import BatchStore, to_reply
from pipeline.rehearsal.call_handler import CallHandler
from pipeline.rehearsal.call_log import CallEnding, CallLog, CallTotals
from pipeline.rehearsal.options import RehearsalOptions
from pipeline.rehearsal.replies import CHAT, JSON_TYPE, ApiFormat, ErrorReply, Reply, retry_headers
from pipeline.rehearsal.request_parser import unknown_model
from pipeline.rehearsal.responses_api import RESPONSES

#: A response that never arrives.
_LOST = Reply(0, b"", wire="reset")
#: Enough for a prompt of a million tokens, or for several images.
_MAX_BODY_BYTES = 64 * 1024 * 1024
#: How long a stop waits for answers in progress, at most twice.
_STOP_S = 0.25
#: SO_LINGER on, zero seconds: closing the socket resets the connection.
_LINGER_RESET = struct.pack("ii", 1, 0)

#: Seconds that a connection may take for its first head, and a request for its body.
HEAD_S, _BODY_S = 30.0, 120.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Rehearsal:
    """An OpenAI-compatible endpoint with simulated answers. It runs in the loop that starts it.

    Use `async with Rehearsal(options) as endpoint:`, or `start()` and `stop()`. `clock` drives the limits, the outages,
    and the log's seconds; latencies really sleep. Raises SetupError if the address is taken.
    """

    def __init__(self, options: RehearsalOptions | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.options = options or RehearsalOptions()
        self.books = CallLog(self.options.books_path, clock)
        self.port = self.options.port
        self._handler = CallHandler(self.options, self.books, clock)
        self._store = BatchStore(
            self.options, self._handler, {"/v1/chat/completions": CHAT, "/v1/responses": RESPONSES}, clock
        )
        self._run_id = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._stopping = asyncio.Event()
        self._runner: web.ServerRunner | None = None
        self._routes: Mapping[tuple[str, str], Handler] = {
            ("POST", "/v1/chat/completions"): partial(self._answer, api=CHAT),
            ("POST", "/v1/responses"): partial(self._answer, api=RESPONSES),
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/files"): self._upload,
            ("GET", "/v1/files"): self._files,
            ("POST", "/v1/batches"): self._create_batch,
            ("GET", "/v1/batches"): self._batches,
            ("GET", "/books"): self._show_books,
            ("POST", "/books/reset"): self._reset_books,
            ("GET", "/health"): self._health,
        }

    @property
    def root_url(self) -> str:
        """The address of `/books` and `/health`."""
        host = self.options.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The base URL for an OpenAI client."""
        return self.root_url + "/v1"

    async def start(self) -> None:
        """Listen, and set `port` to the actual one."""
        self._runner = web.ServerRunner(_Server(self._handle), shutdown_timeout=_STOP_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.options.host, self.options.port, backlog=2048)
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            where = f"{self.options.host}:{self.options.port}"
            raise SetupError(
                f"the rehearsal endpoint cannot listen on {where} ({error}); choose another port"
            ) from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening, drop hanging calls, and give answers in progress a moment. May be called twice."""
        self._stopping.set()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            await asyncio.sleep(0)  # lets canceled handlers end
        await self._store.close()
        self.books.close()

    async def __aenter__(self) -> Rehearsal:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if self._is_foreign(request):
            return self._refuse(request, 403, "This endpoint answers programs of this machine only.", "forbidden")
        if self.options.api_key is not None and path.startswith("/v1/") and not self._has_key(request):
            return self._refuse(request, 401, "Incorrect API key provided.", "invalid_api_key")
        handler = self._routes.get((request.method, path))
        if handler is not None:
            return await handler(request)
        for folder, answer in (("/v1/files/", self._file), ("/v1/batches/", self._batch)):
            if path.startswith(folder):
                return answer(request.method, *path.removeprefix(folder).split("/", 1))
        if request.method == "GET" and path.startswith("/v1/models/"):
            return self._model(path.removeprefix("/v1/models/"))
        if any(path == route for _, route in self._routes):
            return self._error(405, f"Not allowed to {request.method} {path}.")
        return self._error(404, f"Unknown request URL: {request.method} {path}.", "unknown_url")

    def _refuse(self, request: web.BaseRequest, status: int, message: str, code: str) -> web.StreamResponse:
        if request.method == "POST":
            self.books.arrive()
            self.books.close_call(None, CallEnding("invalid", status))
            self.books.leave()
        return self._error(status, message, code)

    def _is_foreign(self, request: web.BaseRequest) -> bool:
        """Whether a page of another site sent the request, by its Origin header or the host name that it called.

        Applies only to an endpoint on loopback. On another address it is meant for others.
        """
        if not _is_here(self.options.host):
            return False
        origin = request.headers.get("Origin")
        return not _is_here(_host_of(f"//{request.headers.get('Host', '')}")) or not (
            origin is None or _is_here(_host_of(origin))
        )

    def _has_key(self, request: web.BaseRequest) -> bool:
        header = request.headers.get("Authorization", "")
        return hmac.compare_digest(header.encode("utf-8", "surrogateescape"), f"Bearer {self.options.api_key}".encode())

    async def _answer(self, request: web.BaseRequest, api: ApiFormat) -> web.StreamResponse:
        self.books.arrive()
        try:
            async with asyncio.timeout(_BODY_S):
                raw = await request.read()

            def is_gone() -> bool:
                return request.transport is None or request.transport.is_closing()

            reply = await self._handler.serve(raw, is_gone, api)
            return await self._fail(request, reply) if reply.wire else self._send(reply)
        except web.HTTPRequestEntityTooLarge:
            self.books.close_call(None, CallEnding("invalid", 413))
            return self._error(413, f"The body is larger than {_MAX_BODY_BYTES} bytes.")
        except TimeoutError:
            self.books.close_call(None, CallEnding("invalid", 408))
            return self._error(408, f"The body was not there after {_BODY_S:g} s.")
        finally:
            self.books.leave()

    async def _models(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._json({"object": "list", "data": [_model_json(name) for name in self.options.models]})

    def _model(self, name: str) -> web.StreamResponse:
        if self.options.models and name not in self.options.models:
            return self._send(unknown_model(name).reply())
        return self._json(_model_json(name))

    async def _upload(self, request: web.BaseRequest) -> web.StreamResponse:
        path, name, purpose = self._store.new_path(), "", ""
        parts: Any = await request.multipart()
        async for part in parts:
            if part.name == "purpose":
                purpose = await part.text()
            elif part.name == "file":
                name = part.filename or ""
                with path.open("wb") as file:
                    while block := await part.read_chunk(1 << 16):
                        file.write(block)
        if not name:
            return self._error(400, "'file' is a required property.")
        file_json = self._store.add_file(path, name, purpose)
        return await self._fail(request, _LOST) if self._store.is_upload_lost(file_json) else self._json(file_json)

    async def _files(self, request: web.BaseRequest) -> web.StreamResponse:
        query = request.query
        return self._json(self._store.files(query.get("purpose"), query.get("after"), int(query.get("limit", "20"))))

    def _file(self, method: str, file_id: str, rest: str = "") -> web.StreamResponse:
        file = self._store.file(file_id)
        if file is None:
            return self._error(404, f"No such File object: {file_id}")
        if method == "DELETE":
            return self._json(self._store.delete(file_id))
        if rest == "content":
            return web.FileResponse(file.path, headers={"x-labelpipe-rehearsal": "simulated"})
        return self._json(file.as_json())

    async def _create_batch(self, request: web.BaseRequest) -> web.StreamResponse:
        result, is_lost = self._store.create(loads(await request.read()))
        return await self._fail(request, _LOST) if is_lost else self._send(to_reply(result))

    async def _batches(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._json(self._store.batches(request.query.get("after"), int(request.query.get("limit", "20"))))

    def _batch(self, method: str, batch_id: str, rest: str = "") -> web.StreamResponse:
        is_cancel = method == "POST" and rest == "cancel"
        result = self._store.cancel(batch_id) if is_cancel else self._store.batch(batch_id)
        return (
            self._error(404, f"No batch found with id '{batch_id}'.")
            if result is None
            else self._send(to_reply(result))
        )

    async def _health(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._json({"status": "ok", "calls": self.books.calls, "in_flight": self.books.in_flight})

    async def _show_books(self, request: web.BaseRequest) -> web.StreamResponse:
        since = request.query.get("since", "0")
        if not since.isdecimal():
            return self._error(400, f"Invalid 'since': {since!r} is not a sequence number.")
        return self._json(self.books.as_json(int(since)))

    async def _reset_books(self, request: web.BaseRequest) -> web.StreamResponse:
        self.books.reset()
        return self._json({"status": "ok"})

    async def _fail(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        """Make the connection fail as the reply says."""
        if reply.wire == "hang":
            await self._hang(request)
        transport = request.transport
        if transport is not None and reply.wire == "cut":
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON_TYPE}\r\nContent-Length: {len(reply.body)}\r\n\r\n"
            transport.write(head.encode() + reply.body[: len(reply.body) // 2])
            transport.close()
        elif transport is not None:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            transport.abort()
        return web.Response()  # is sent to nobody, but shows aiohttp that the connection is gone

    async def _hang(self, request: web.BaseRequest) -> None:
        """Wait until the client disconnects, which requires polling, or the endpoint stops."""
        look_s = 0.05
        while request.transport is not None and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), look_s)
            look_s = min(1.0, look_s * 1.5)

    def _send(self, reply: Reply) -> web.StreamResponse:
        headers = {
            "Content-Type": reply.content_type,
            "x-request-id": f"req_{self._run_id}{next(self._numbers):08x}",
            "x-labelpipe-rehearsal": "simulated",
            **reply.headers,
        }
        if reply.retry_after_s is not None and self.options.retry_after:
            headers.update(retry_headers(reply.retry_after_s))
        return web.Response(status=reply.status, body=reply.body, headers=headers)

    def _error(self, status: int, message: str, code: str | None = None) -> web.StreamResponse:
        return self._send(ErrorReply(status, message, "invalid_request_error", None, code).reply())

    def _json(self, value: Any) -> web.StreamResponse:
        return self._send(Reply(200, dumps(value)))


class _Server(web.Server):
    """Drops connections that send no complete head, because a process can have only a few thousand."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(handler, request_factory=self._request, access_log=None)
        # Mutable state: open connections that have sent a complete head.
        self._active_handlers: set[web.RequestHandler] = set()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Start the deadline of a new connection."""
        super().connection_made(handler, transport)
        asyncio.get_running_loop().call_later(HEAD_S, self._let_go, handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a closed connection."""
        super().connection_lost(handler, exc)
        self._active_handlers.discard(handler)

    def _let_go(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        if handler not in self._active_handlers:
            transport.abort()

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        self._active_handlers.add(protocol)
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY_BYTES)


def _host_of(url: str) -> str:
    """Return the host of an address; "?" if it has none or cannot be parsed."""
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"


def _is_here(host: str) -> bool:
    """Whether the host is localhost or an IP address. No other site can make its name look like that."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return True


def _model_json(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "labelpipe-rehearsal"}


def serve(options: RehearsalOptions, on_ready: Callable[[Rehearsal], None] | None = None) -> CallTotals:
    """Serve until SIGINT or SIGTERM, and return the counts. `on_ready` is called once the endpoint listens.

    Call it in the main thread of a process. Restores the previous signal handlers.
    """
    handlers = {one: signal.getsignal(one) for one in _SIGNALS}
    try:
        return asyncio.run(_serve(options, on_ready))
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)


async def _serve(options: RehearsalOptions, on_ready: Callable[[Rehearsal], None] | None) -> CallTotals:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with Rehearsal(options) as endpoint:
        for one in _SIGNALS:
            loop.add_signal_handler(one, stop.set)
        try:
            if on_ready:
                on_ready(endpoint)
            await stop.wait()
        finally:
            for one in _SIGNALS:
                loop.remove_signal_handler(one)
    return endpoint.books.totals()
