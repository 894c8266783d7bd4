"""The transport below the SDK's client, with its own faster path for calls: aiohttp, one session per run.

The SDK's own aiohttp transport costs about as much CPU per call as aiohttp itself, and reports a refused connection as
a timeout. This one replaces it (`http_client=`, a documented parameter), so both paths share one pool.
"""

import asyncio
import ssl
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from pipeline.errors import ConfigError, UnavailableError
from pipeline.providers.streamed_body import StreamedBody

#: Several hundred connections at once on a busy machine take longer than the SDK's 5 s.
CONNECT_TIMEOUT_S = 20.0
#: Idle connections are closed before servers usually close them.
KEEPALIVE_S = 30.0
#: Unpacked bytes of an answer. The longest from a model (128,000 tokens, each letter as \uXXXX) has 2 MB.
MOST_BODY_BYTES = 8 * 1024 * 1024
#: The beginning of a refusal is enough, because its status classifies it.
MOST_REFUSAL_BYTES = 256 * 1024
#: A file may take long, but if no byte arrives for this long, the other side is gone.
_FILE_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=120.0)
CHUNK_BYTES = 256 * 1024
#: Headers that describe the body in transit; aiohttp has unpacked it.
_OF_THE_WIRE = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


class Wire(httpx2.AsyncBaseTransport):
    """At most `connections` connections, which stay open between calls."""

    def __init__(self, connections: int, *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._connections = connections
        self._connect_timeout_s = min(CONNECT_TIMEOUT_S, connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._routes: dict[URL, dict[str, Any]] = {}

    def _open(self) -> aiohttp.ClientSession:
        """Return the session, created in the running loop at the first call."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEPALIVE_S)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _route(self, url: URL) -> dict[str, Any]:
        """Return how calls to this address are made: the proxy, and the trusted certificates.

        Redirects are not followed, because the headers and the record are for this host. The certificates are read at
        the first call that needs them: that takes more CPU than a hundred calls, and a local server on plain http needs
        none.
        """
        proxy = proxy_for(url)
        tls: ssl.SSLContext | bool = True
        if url.scheme == "https" or urlsplit(proxy or "").scheme == "https":
            tls = self._tls = self._tls or httpx2.create_ssl_context()
        return {"proxy": proxy, "ssl": tls, "allow_redirects": False}

    async def post(self, url: URL, headers: Mapping[str, str], body: bytes | StreamedBody) -> tuple[int, Any, bytes]:
        """Return status, raw headers, and unpacked content of the answer. Raises aiohttp's errors and OSError."""
        data = _StreamedPayload(body) if isinstance(body, StreamedBody) else body
        route = self._routes.get(url)
        if route is None:
            route = self._routes[url] = self._route(url)
        response = await self._open().post(url, data=data, headers=headers, **route)
        try:
            # Once read to its end, an answer releases its connection itself; `async with` would do it again.
            return response.status, response.raw_headers, await _body(response)
        except BaseException:
            response.close()
            raise

    async def upload(
        self, url: URL, headers: Mapping[str, str], path: Path, name: str, fields: Mapping[str, str]
    ) -> tuple[int, Any, bytes]:
        """Return status, raw headers, and content of the answer to a form with a file, which is read while sending."""
        form = aiohttp.FormData(fields)
        with path.open("rb") as file:
            form.add_field("file", file, filename=name, content_type="application/jsonl")
            async with self._file_call("POST", url, headers, form) as response:
                return response.status, response.raw_headers, await _body(response)

    async def download(self, url: URL, headers: Mapping[str, str], to: Path) -> tuple[int, Any, bytes]:
        """Return status and raw headers, and write a success to the file; also return the content of a refusal."""
        async with self._file_call("GET", url, headers) as response:
            if not 200 <= response.status < 300:
                return response.status, response.raw_headers, await _body(response)
            with to.open("wb") as file:
                async for block in response.content.iter_chunked(CHUNK_BYTES):
                    file.write(block)
            return response.status, response.raw_headers, b""

    def _file_call(self, method: str, url: URL, headers: Mapping[str, str], data: Any = None) -> Any:
        """Make a call whose content is a file, not JSON, in one direction."""
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        return self._open().request(method, url, data=data, headers=headers, timeout=_FILE_TIMEOUT, **self._route(url))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Make a call for the SDK."""
        # A total time: a server that sends one byte at a time would never finish.
        most_s = request.extensions.get("timeout", {}).get("read")
        wait = aiohttp.ClientTimeout(total=most_s, sock_connect=self._connect_timeout_s)
        url = URL(str(request.url), encoded=True)
        async with self._open().request(
            request.method,
            url,
            headers=request.headers.multi_items(),
            data=await request.aread() or None,
            timeout=wait,
            **self._route(url),
        ) as response:
            return as_response(request, response.status, response.raw_headers, await _body(response))

    async def aclose(self) -> None:
        """Close all connections. May be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            # Transports of TLS connections end in the loop's next turns.
            await asyncio.sleep(0)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Return the unpacked body, or the beginning of a refusal. Raises UnavailableError if it is too long.

    It is unpacked in steps as it arrives, because 3 MB in transit may be 3 GB.
    """
    is_refusal = response.status >= 400
    most = MOST_REFUSAL_BYTES if is_refusal else MOST_BODY_BYTES
    blocks: list[bytes] = []
    size = 0
    while not response.content.at_eof():
        block = await response.content.readany()
        blocks.append(block)
        size += len(block)
        if size > most:
            response.close()
            if not is_refusal:
                message = f"an answer of more than {MOST_BODY_BYTES:,} bytes, unpacked: it was read no further"
                raise UnavailableError(message, status=response.status, billed=True)
            break
    return b"".join(blocks)[:most]


class _StreamedPayload(aiohttp.Payload):
    """A body that is built while it is sent."""

    _autoclose = True  # it holds nothing open

    def __init__(self, chunked_body: StreamedBody) -> None:
        super().__init__(chunked_body, content_type="application/json")
        self._size = chunked_body.size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return all of its text at once, for aiohttp."""
        return b"".join(self._value.chunks()).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for chunk in self._value.chunks():
            await writer.write(chunk)


@cache
def proxy_for(url: URL) -> str | None:
    """Return the proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, and NO_PROXY set for this address.

    Looked up once per address: aiohttp's `trust_env` does it per call, which takes more CPU than the call.
    """
    if not url.host or proxy_bypass(url.host):
        return None
    proxies = getproxies()
    return proxies.get(url.scheme) or proxies.get("all")


def refuse_proxy(url: URL) -> None:
    """Raise ConfigError if the environment names a proxy that calls cannot use."""
    proxy = urlsplit(proxy_for(url) or "http://")
    if proxy.scheme not in ("http", "https"):
        place = f"{proxy.scheme}://{proxy.hostname}:{proxy.port}"
        raise ConfigError(
            f"the environment names a proxy that cannot be used: {place} (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY). Only "
            f"http proxies work. Unset the variable, or exclude this host: NO_PROXY={url.host}"
        )


def as_response(request: httpx2.Request, status: int, raw_headers: Any, content: bytes) -> httpx2.Response:
    """Return an answer in the SDK's form."""
    headers = [(name, value) for name, value in raw_headers if name.lower() not in _OF_THE_WIRE]
    return httpx2.Response(status, headers=headers, content=content, request=request)
