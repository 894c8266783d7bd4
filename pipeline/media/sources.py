"""Where an attachment's bytes come from: a local file, a data URL, an address; and which of these may be."""

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
    """What loads addresses, and knows which of them may be asked for."""

    def check(self, url: str) -> None:
        """Raises MediaError for an address that may not be used."""

    async def load(self, url: str, most_bytes: int) -> bytes:
        """The bytes at the address. Raises MediaError."""

    async def close(self) -> None:
        """Close all connections; may be called twice."""


def scheme_of(source: str) -> str | None:
    """`data`, `https`, `http`; None for a path. Raises MediaError for any other scheme."""
    match = _SCHEME.match(source)
    if match is None:
        return None
    scheme = match[1].lower()
    if scheme == "data" or (scheme in _WEB and source[match.end() :].startswith("//")):
        return scheme
    raise MediaError(f"{display_source(source)!r} cannot be used: expected a path, an https address or a data URL")


def display_source(source: str) -> str:
    """A source as a message may show it: short, on one line, without what a query may hold."""
    if source[:5].lower() == "data:":
        return f"{source[:40].partition(',')[0]},... ({len(source):,} characters)"
    plain = " ".join(source.split()).partition("?")[0] if source[:4].lower() == "http" else " ".join(source.split())
    return plain if len(plain) <= SHOWN_CHARS else f"{plain[:SHOWN_CHARS]}..."


def display_path(path: str) -> str:
    """A local path as a message may show it: of a long one both ends, for the end is what tells it from others."""
    half = SHOWN_CHARS // 2
    return (
        repr(path) if len(path) <= 2 * SHOWN_CHARS else f"{path[:half]!r}...{path[-half:]!r} ({len(path):,} characters)"
    )


def decode_data_url(source: str, most_bytes: int) -> bytes:
    """The bytes in a data URL; its type is not believed. Raises MediaError."""
    head, comma, body = source.partition(",")
    if not comma:
        raise MediaError(f"{display_source(source)} is not a data URL: it has no comma")
    # Even written out as %41%42 no byte takes less than its share here.
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
