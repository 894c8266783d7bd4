"""Parses the sources of attachments (local files, data URLs, and addresses) and formats them for messages."""

import base64
import binascii
import re
from typing import Protocol
from urllib.parse import unquote_to_bytes

from pipeline.errors import MediaError

SHOWN_CHARS = 120
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{1,20}):")
_WEB = ("https", "http")


class MediaFetcher(Protocol):
    """Loads addresses, and knows which are allowed."""

    def check(self, url: str) -> None:
        """Require that the address may be used. Raises MediaError."""

    async def load(self, url: str, most_bytes: int) -> bytes:
        """Return the bytes at the address. Raises MediaError."""

    async def close(self) -> None:
        """Close all connections. May be called twice."""


def scheme_of(source: str) -> str | None:
    """Return `data`, `https`, or `http`; None for a path. Raises MediaError for any other scheme."""
    match = _SCHEME.match(source)
    if match is None:
        return None
    scheme = match[1].lower()
    if scheme == "data" or (scheme in _WEB and source[match.end() :].startswith("//")):
        return scheme
    raise MediaError(f"{display_source(source)!r} cannot be used: expected a path, an https address or a data URL")


def display_source(source: str) -> str:
    """Format a source for a message: short, on one line, and without its query, which may contain secrets."""
    if source[:5].lower() == "data:":
        return f"{source[:40].partition(',')[0]},... ({len(source):,} characters)"
    plain = " ".join(source.split()).partition("?")[0] if source[:4].lower() == "http" else " ".join(source.split())
    return plain if len(plain) <= SHOWN_CHARS else f"{plain[:SHOWN_CHARS]}..."


def display_path(path: str) -> str:
    """Format a local path for a message. A long path shows both ends, because its end identifies it."""
    half = SHOWN_CHARS // 2
    return (
        repr(path) if len(path) <= 2 * SHOWN_CHARS else f"{path[:half]!r}...{path[-half:]!r} ({len(path):,} characters)"
    )


def decode_data_url(source: str, most_bytes: int) -> bytes:
    """Return the bytes of a data URL. Its type is not trusted. Raises MediaError."""
    head, comma, body = source.partition(",")
    if not comma:
        raise MediaError(f"{display_source(source)} is not a data URL: it has no comma")
    # A body this long is too large even if each byte takes three characters, as in %41%42.
    if len(body) * 3 // 4 > most_bytes * 3:
        raise MediaError(f"{display_source(source)} is too large: task.media.max_bytes allows {most_bytes:,} bytes")
    try:
        data = _base64(body) if head.lower().endswith(";base64") else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"{display_source(source)} is not base64: {error}") from None
    if len(data) > most_bytes:
        raise MediaError(
            f"{display_source(source)} holds {len(data):,} bytes; task.media.max_bytes allows {most_bytes:,}"
        )
    return data


def _base64(body: str) -> bytes:
    plain = "".join(body.split()).replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
