"""Loads the addresses in records, if they may be used. No address leads into a private network.

A target is checked when the connection is made, after the name lookup. So no private name, redirect, or other notation
of 127.0.0.1 gets through.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import unicodedata
from dataclasses import dataclass
from encodings.idna import nameprep
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from pipeline.errors import MediaError

if TYPE_CHECKING:
    import aiohttp

CONNECTIONS, CONNECTIONS_A_HOST = 32, 8
MOST_REDIRECTS = 5
#: Seconds before another try, after a network failure or a 5xx.
AGAIN_AFTER_S = (0.5, 2.0)
_CHUNK_BYTES = 65_536
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_INNER_NAMES = ("localhost", ".localhost", ".local", ".internal", ".lan", ".home.arpa", ".intranet", ".corp")
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "labelpipe"}
#: what IDNA accepts as a dot
_DOTS = re.compile("[.\u3002\uff0e\uff61]")
#: Characters that no host contains. Some loaders start the path at a backslash.
_NO_HOST = frozenset("#%/<>?@[\\]^| ")
# Own tables, after IANA's special-purpose registries (2024): `is_global` differs between Python releases.
_INNER_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ),
    )
)
#: The allocated part of IPv6, and what in it is not the public internet.
_WORLD_6 = ipaddress.IPv6Network("2000::/3")
_INNER_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """`http` allows addresses without TLS, `private` those of private networks and of this machine.

    `timeout_s` limits one address, over all its tries.
    """

    http: bool = False
    private: bool = False
    timeout_s: float = 60.0


class _PrivateAddressError(OSError):
    """The name leads to an address of a private network."""


class _AgainError(Exception):
    """A temporary failure."""


class Fetcher:
    """Loads addresses in one session, which the first one opens."""

    def __init__(self, options: FetchOptions | None = None) -> None:
        self._options = options or FetchOptions()
        self._session: aiohttp.ClientSession | None = None

    def check(self, url: str) -> None:
        """Raise MediaError for an address that may not be used, as far as its text shows."""
        try:
            parts = urlsplit(url)
            host, _port = _plain_host(parts.hostname or "").rstrip("."), parts.port
        except ValueError as error:
            raise MediaError(f"{_describe(url)} is not an address: {error}") from None
        if parts.scheme != "https" and not (parts.scheme == "http" and self._options.http):
            raise MediaError(f"{_describe(url)}: expected https (task.media.http = true allows http)")
        if not host or any(ord(letter) <= 32 for letter in url + host):
            raise MediaError(
                f"{_describe(url)} is not an address: it has no host, or it contains a space or a control character"
            )
        if ":" not in host and _NO_HOST & set(host):
            raise MediaError(f"{_describe(url)} is not an address: its host contains a character that is not allowed")
        if parts.username is not None or parts.password is not None:
            raise MediaError(f"{_describe(url)}: an address with a login is not allowed")
        if not self._options.private and _is_inner_name(host):
            raise MediaError(
                f"{_describe(url)} leads into a private network; task.media.fetch_private = true allows it"
            )

    async def load(self, url: str, most_bytes: int) -> bytes:
        """Return the bytes at the address. Raises MediaError."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                return await self._tried(url, most_bytes)
        except TimeoutError:
            message = f"not there after {self._options.timeout_s:g} s"
            raise MediaError(f"{_describe(url)} cannot be loaded: {message}") from None

    async def _tried(self, url: str, most_bytes: int) -> bytes:
        """Do the same without a time limit, over all tries and the waits between them."""
        import aiohttp

        for wait_s in (*AGAIN_AFTER_S, None):
            try:
                return await self._follow(url, most_bytes)
            except _PrivateAddressError:
                raise MediaError(f"{_describe(url)} leads into a private network") from None
            except ValueError as error:  # from parsing the address; no check can foresee all of these
                raise MediaError(f"{_describe(url)} is not an address, or does not resolve: {error}") from None
            except (_AgainError, aiohttp.ClientError, TimeoutError, OSError) as error:
                if _is_private(error):
                    raise MediaError(f"{_describe(url)} leads into a private network") from None
                if wait_s is None:
                    reason = str(error) or type(error).__name__
                    raise MediaError(f"{_describe(url)} cannot be loaded: {reason}") from None
                await asyncio.sleep(wait_s)
        raise AssertionError  # the last turn returns or raises

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(0)

    async def _follow(self, url: str, most_bytes: int) -> bytes:
        """Follow redirects, each of which is checked like the first address, and return the content."""
        here = url
        for _turn in range(MOST_REDIRECTS + 1):
            self.check(here)
            async with self._open().get(here, allow_redirects=False, headers=_HEADERS) as response:
                if response.status not in _REDIRECTS:
                    return await _content(response, url, most_bytes)
                here = urljoin(here, response.headers.get("Location", ""))
        raise MediaError(f"{_describe(url)} redirects more than {MOST_REDIRECTS} times")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp
            import httpx2

            connector = aiohttp.TCPConnector(
                limit=CONNECTIONS,
                limit_per_host=CONNECTIONS_A_HOST,
                ssl=httpx2.create_ssl_context(),  # the same certificates as for calls
                socket_factory=self._socket,
            )
            # No proxy, because it would hide where a name leads.
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
            )
        return self._session

    def _socket(self, address: Any) -> socket.socket:
        """Return a socket for an address after the lookup: the final check of where a connection goes."""
        family, kind, protocol, _name, place = address
        if not self._options.private and not is_public(place[0]):
            raise _PrivateAddressError(place[0])
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


def is_public(host: str) -> bool:
    """Whether a numeric address is on the public internet. Mapped and translated addresses are resolved."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in inner for inner in _INNER_4)
    within = address.ipv4_mapped or address.sixtofour
    if within is None and address in _NAT64:
        within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if within is not None:
        return is_public(str(within))
    return address in _WORLD_6 and not any(address in inner for inner in _INNER_6)


def _plain_host(host: str) -> str:
    """Return a host as a loader reads it, with %31 and other digits, dots, and letters of Unicode made plain.

    Raises ValueError.
    """
    if ":" in host:
        return host
    # First with current Unicode: that of `nameprep` is old, and has fewer digits.
    labels = _DOTS.split(unicodedata.normalize("NFKC", unquote(host)))
    return ".".join(nameprep(label) for label in labels)


def _is_inner_name(host: str) -> bool:
    """Whether the host's text alone shows that it is private: digits in any notation, or a name without a domain."""
    lower = host.lower()
    if ":" in lower:
        return not is_public(lower)
    try:
        # As the C library parses it: 2130706433, 0x7f.1, and 0177.0.0.1 are 127.0.0.1.
        return not is_public(socket.inet_ntoa(socket.inet_aton(lower)))
    except (OSError, UnicodeError):
        return "." not in lower or lower.endswith(_INNER_NAMES)


def _is_private(error: BaseException) -> bool:
    """Whether `_socket` refused the connection. aiohttp wraps what its sockets raise."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, _PrivateAddressError) or isinstance(getattr(seen, "os_error", None), _PrivateAddressError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


async def _content(response: aiohttp.ClientResponse, url: str, most_bytes: int) -> bytes:
    if response.status in (408, 425, 429) or response.status >= 500:
        raise _AgainError(f"status {response.status}")
    if response.status != 200:
        raise MediaError(f"{_describe(url)} cannot be loaded: status {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MediaError(f"{_describe(url)} cannot be loaded: it is compressed, although that was not requested")
    too_large = MediaError(f"{_describe(url)} is larger than the {most_bytes:,} bytes that task.media.max_bytes allows")
    if (response.content_length or 0) > most_bytes:
        raise too_large
    data = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        data += chunk
        if len(data) > most_bytes:
            raise too_large
    return bytes(data)


def _describe(url: str) -> str:
    """Return an address without its query and login, which may be secrets."""
    plain = "".join(letter for letter in url.partition("?")[0] if ord(letter) > 32)
    head, slashes, rest = plain.partition("://")
    host, slash, path = rest.partition("/")
    return f"{head}{slashes}{host.rpartition('@')[2]}{slash}{path}"[:200]
