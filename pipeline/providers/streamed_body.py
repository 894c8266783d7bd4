"""Builds a request's body with media piece by piece while it is sent.

A photo of 4 MB is 5.3 MB as base64, and as much again within a body: gigabytes with 200 calls in flight. So only the
photo itself is in memory, and the rest exists 256 KB at a time.
"""

import base64
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline import codec
from pipeline.records import JSON, Blob

#: of a blob at a time; a multiple of 3, so that there is no padding in between
CHUNK_BYTES = 192 * 1024


class StreamedBody:
    """JSON texts and, between them, blobs that are sent as base64. `size` is that of the whole body, in bytes."""

    __slots__ = ("_parts", "size")

    def __init__(self, parts: Sequence[bytes | Blob]) -> None:
        self._parts = parts
        self.size = sum(len(part) if isinstance(part, bytes) else _size(part) for part in parts)

    @property
    def texts(self) -> list[bytes]:
        """The body without its media."""
        return [part for part in self._parts if isinstance(part, bytes)]

    def chunks(self) -> Iterator[bytes]:
        """Yield the body a few hundred kilobytes at a time."""
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
                continue
            yield part.prefix.encode()
            whole = memoryview(part.data)
            for start in range(0, len(whole), CHUNK_BYTES):
                yield base64.b64encode(whole[start : start + CHUNK_BYTES])


def streamed_body(body: Mapping[str, JSON]) -> StreamedBody:
    """Return the body in pieces."""
    blobs: list[Blob] = []
    # Random for each body, so no record's text can contain it.
    token = secrets.token_hex(16)

    def without(value: Any) -> Any:
        if isinstance(value, Blob):
            blobs.append(value)
            return token
        if isinstance(value, Mapping):
            return {name: without(inner) for name, inner in value.items()}
        return [without(inner) for inner in value] if isinstance(value, list | tuple) else value

    texts = codec.dumps(without(body)).split(token.encode())
    parts: list[bytes | Blob] = [texts[0]]
    for blob, text in zip(blobs, texts[1:], strict=True):
        parts += [blob, text]
    return StreamedBody(parts)


def _size(blob: Blob) -> int:
    return len(blob.prefix.encode()) + 4 * -(-len(blob.data) // 3)
