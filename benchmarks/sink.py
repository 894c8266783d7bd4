"""An endpoint for large bodies, on loopback: `python -m benchmarks.sink LATENCY_S` prints its port.

It keeps no body: the record's number is at the front of it, and the rest is only counted. `GET /books` tells what came.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from typing import ClassVar

from benchmarks.replies import completion, http
from benchmarks.truth import NUMBER

TOOL = "set_label"
_HEAD_BYTES = 16_384


class Sink(asyncio.Protocol):
    """One connection, one request at a time."""

    latency_s: ClassVar[float] = 0.0
    books: ClassVar[dict[str, int]] = {"calls": 0, "bytes": 0, "in_flight": 0, "most_in_flight": 0}

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._front = bytearray()
        self._length = 0
        self._left = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._left > 0:  # in the middle of a body
            self._left -= len(data)
            if len(self._front) < _HEAD_BYTES:
                self._front += data
        else:
            self._front += data
            end = self._front.find(b"\r\n\r\n")
            if end < 0:
                return
            self._length = _length(self._front[:end])
            self._left = self._length - (len(self._front) - end - 4)
        if self._left <= 0:
            self._answer()

    def _answer(self) -> None:
        front, self._front = bytes(self._front[:_HEAD_BYTES]), bytearray()
        found = NUMBER.search(front)
        self._left = -1
        if front.startswith(b"GET"):
            self._send(http(200, json.dumps(self.books).encode()))
            return
        assert found is not None
        self.books["calls"] += 1
        self.books["bytes"] += self._length
        self.books["in_flight"] += 1
        self.books["most_in_flight"] = max(self.books["most_in_flight"], self.books["in_flight"])
        reply = completion(int(found[1]), TOOL, self.books["calls"], (1_000, 10))
        asyncio.get_running_loop().call_later(self.latency_s, partial(self._reply, reply))

    def _reply(self, reply: bytes) -> None:
        self.books["in_flight"] -= 1
        self._send(reply)

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _length(head: bytes | bytearray) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


async def serve(latency_s: float) -> None:
    """Serve until killed; the port is the first line on stdout."""
    Sink.latency_s = latency_s
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
