"""The transport under the SDK's client, and a lean road of its own for calls: aiohttp, one session a run.

The SDK's own aiohttp transport costs about as much CPU a call as aiohttp itself, and reports a refused connection as a
timeout. This one is handed to the SDK in its place (`http_client=`, a documented seam), so both roads share one pool.
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

#: Connects get long: several hundred at once on a busy machine pass the SDK's 5 s.
CONNECT_TIMEOUT_S = 20.0
#: Idle connections are closed before servers tend to do it.
KEEPALIVE_S = 30.0
#: Unpacked bytes of an answer. The longest that models give (128,000 tokens, each letter written as \uXXXX) have 2 MB.
MOST_BODY_BYTES = 8 * 1024 * 1024
#: Of a refusal the beginning is enough: its status says what it is.
MOST_REFUSAL_BYTES = 256 * 1024
#: A file may take long; but where not a byte comes for so long, the other side is gone.
_FILE_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=120.0)
CHUNK_BYTES = 256 * 1024
#: Headers that describe the body as it was on the wire; aiohttp has unpacked it.
_OF_THE_WIRE = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


class Wire(httpx2.AsyncBaseTransport):
    """At most `connections` connections, kept open between calls."""

    def __init__(self, connections: int, *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._connections = connections
        self._connect_timeout_s = min(CONNECT_TIMEOUT_S, connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._routes: dict[URL, dict[str, Any]] = {}

    def _open(self) -> aiohttp.ClientSession:
        """The session; made in the running loop at the first call."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEPALIVE_S)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _route(self, url: URL) -> dict[str, Any]:
        """How calls to this address go: through which proxy, and which certificates are trusted.

        Redirects are not followed: the headers and the record are for this host. The certificates are read at the first
        call that needs them: that takes more CPU than a hundred calls, and a local server on plain http needs none.
        """
        proxy = proxy_for(url)
        tls: ssl.SSLContext | bool = True
        if url.scheme == "https" or urlsplit(proxy or "").scheme == "https":
            tls = self._tls = self._tls or httpx2.create_ssl_context()
        return {"proxy": proxy, "ssl": tls, "allow_redirects": False}

    async def post(self, url: URL, headers: Mapping[str, str], body: bytes | StreamedBody) -> tuple[int, Any, bytes]:
        """Status, raw headers and unpacked content of the answer. Raises aiohttp's errors and OSError."""
        data = _StreamedPayload(body) if isinstance(body, StreamedBody) else body
        route = self._routes.get(url)
        if route is None:
            route = self._routes[url] = self._route(url)
        response = await self._open().post(url, data=data, headers=headers, **route)
        try:
            # Read to its end, an answer gives its connection back by itself: `async with` would do it once more.
            return response.status, response.raw_headers, await _body(response)
        except BaseException:
            response.close()
            raise

    async def upload(
        self, url: URL, headers: Mapping[str, str], path: Path, name: str, fields: Mapping[str, str]
    ) -> tuple[int, Any, bytes]:
        """Status, raw headers and content of the answer to a form with a file, which is read as it is sent."""
        form = aiohttp.FormData(fields)
        with path.open("rb") as file:
            form.add_field("file", file, filename=name, content_type="application/jsonl")
            async with self._file_call("POST", url, headers, form) as response:
                return response.status, response.raw_headers, await _body(response)

    async def download(self, url: URL, headers: Mapping[str, str], to: Path) -> tuple[int, Any, bytes]:
        """Status and raw headers of what lies there; a success is written to the file, a refusal is given."""
        async with self._file_call("GET", url, headers) as response:
            if not 200 <= response.status < 300:
                return response.status, response.raw_headers, await _body(response)
            with to.open("wb") as file:
                async for block in response.content.iter_chunked(CHUNK_BYTES):
                    file.write(block)
            return response.status, response.raw_headers, b""

    def _file_call(self, method: str, url: URL, headers: Mapping[str, str], data: Any = None) -> Any:
        """A call whose content is a file, not JSON, in one direction."""
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        return self._open().request(method, url, data=data, headers=headers, timeout=_FILE_TIMEOUT, **self._route(url))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The SDK's road, for its own calls."""
        # For the whole of it: a server that sends a byte at a time would never be through.
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
        """Close all connections; may be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            # Transports of TLS connections end in the loop's next turns.
            await asyncio.sleep(0)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The unpacked body; of a refusal no more than its beginning. Raises UnavailableError for one that is too long.

    Read as it comes, and so it is unpacked in steps: 3 MB on the wire may be 3 GB.
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
    """A body that is made while it is sent."""

    _autoclose = True  # it holds nothing open

    def __init__(self, chunked_body: StreamedBody) -> None:
        super().__init__(chunked_body, content_type="application/json")
        self._size = chunked_body.size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Its text, as aiohttp asks for it: all of it at once."""
        return b"".join(self._value.chunks()).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for chunk in self._value.chunks():
            await writer.write(chunk)


@cache
def proxy_for(url: URL) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY name for this address.

    Looked up once an address: aiohttp's `trust_env` looks at each call, which takes more CPU than the call.
    """
    if not url.host or proxy_bypass(url.host):
        return None
    proxies = getproxies()
    return proxies.get(url.scheme) or proxies.get("all")


def refuse_proxy(url: URL) -> None:
    """Raise ConfigError for a proxy of the environment that calls cannot go through."""
    proxy = urlsplit(proxy_for(url) or "http://")
    if proxy.scheme not in ("http", "https"):
        place = f"{proxy.scheme}://{proxy.hostname}:{proxy.port}"
        raise ConfigError(
            f"the environment names a proxy that cannot be used: {place} (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY). Only "
            f"http proxies work. Unset the variable, or exclude this host: NO_PROXY={url.host}"
        )


def as_response(request: httpx2.Request, status: int, raw_headers: Any, content: bytes) -> httpx2.Response:
    """An answer as the SDK knows it."""
    headers = [(name, value) for name, value in raw_headers if name.lower() not in _OF_THE_WIRE]
    return httpx2.Response(status, headers=headers, content=content, request=request)
