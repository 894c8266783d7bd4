"""A lean OpenAI-compatible endpoint on loopback, for benchmarks only: `python -m benchmarks.endpoint` prints its port.

Each first part of a path is a lane with rules and books of its own:
    PUT  /LANE/rules                   new rules, new books
    GET  /LANE/books[?records]         what happened
    POST /LANE/v1/chat/completions     a forced tool call whose label depends on the text
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import sys
from functools import partial
from typing import Any

from benchmarks.books import Books
from benchmarks.replies import completion, http, page, refusal
from benchmarks.rules import (
    UNBILLED,
    Meter,
    Rules,
    fault_of,
    latency_of,
    limit_headers,
    meter_of,
    retry_header,
    usage_of,
)
from benchmarks.truth import NUMBER

#: SO_LINGER on, 0 s: closing sends a reset.
_RESET = struct.pack("ii", 1, 0)
_MOST_TOKENS = re.compile(rb'"max_(?:completion_)?tokens": ?(\d+)')
_REFUSE_S = 0.002  # a refusal is quick, but not instant


class Lane:
    """One server, as its client sees it."""

    def __init__(self, rules: Rules, meter: Meter | None) -> None:
        self.rules = rules
        self.books = Books()
        self.meter = meter

    def refuse(self, now: float) -> tuple[str, bytes] | None:
        """Why this call is not let through, and the answer to it; None if it is."""
        rules, books = self.rules, self.books
        if books.outage is None and rules.outage_after is not None and books.calls >= rules.outage_after:
            books.outage = (now, now + rules.outage_s)
        if books.outage is not None and books.outage[0] <= now < books.outage[1]:
            return "outage", refusal(503, "server_error", "The engine is down.")
        if rules.quota_after is not None and books.endings["ok"] + books.in_flight >= rules.quota_after:
            return "quota", refusal(429, "insufficient_quota", "You exceeded your current quota.")
        if rules.limit is None or self.meter is None:
            return None
        wait_s = self.meter.take(now)
        if not wait_s:
            return None
        headers = self.headers(now) + retry_header(rules.limit, wait_s)
        return "limited", refusal(429, "rate_limit_exceeded", "Rate limit reached.", headers)

    def told(self, *, records: bool) -> dict[str, Any]:
        """The books, and when the limit was used up for the first time."""
        spent_at = None if self.meter is None else self.meter.spent_at
        return {**self.books.as_plain(records=records), "spent_at": spent_at}

    def headers(self, now: float) -> str:
        """The `x-ratelimit-*` lines, where the rules want them."""
        if self.rules.limit is None or self.meter is None or not self.rules.limit.headers:
            return ""
        return limit_headers(self.rules.limit, self.meter, now)


class Endpoint(asyncio.Protocol):
    """One connection."""

    lanes: dict[str, Lane] = {}  # noqa: RUF012 - shared by all connections on purpose

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _content_length(self._buffer[:end])
            if len(self._buffer) < end + 4 + length:
                return
            head, body = self._buffer[:end], self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._serve(head, body)

    def _serve(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        name, _, rest = path[1:].partition("/")
        if method == "PUT":
            self._open(name, Rules.from_plain(json.loads(body)))
            self._send(http(200, b"{}"))
        elif name not in self.lanes:
            self._send(refusal(404, "not_found", f"No lane {name!r}."))
        elif rest.startswith("books"):
            self._send(http(200, json.dumps(self.lanes[name].told(records="records" in rest)).encode()))
        elif method == "POST" and rest == "v1/chat/completions":
            self._chat(self.lanes[name], body)
        else:
            self._send(http(404, b"{}"))

    def _open(self, name: str, rules: Rules) -> None:
        own = None if rules.limit is None else meter_of(rules.limit, self._loop.time())
        self.lanes[name] = Lane(rules, own if rules.shares is None else self.lanes[rules.shares].meter)

    def _chat(self, lane: Lane, body: bytes) -> None:
        now = self._loop.time()
        found = NUMBER.search(body)
        if found is None:
            self._send(refusal(400, "invalid_request_error", "The prompt names no record."))
            return
        record = int(found[1])
        nth = lane.books.arrive(record, now)
        refused = lane.refuse(now)
        if refused is not None:
            lane.books.endings[refused[0]] += 1
            self._loop.call_later(_REFUSE_S, self._send, refused[1])
            return
        lane.books.passed(now)
        fault = fault_of(lane.rules, record, nth)
        usage = (0, 0) if fault in UNBILLED else self._bill(lane, record, nth, body)
        if fault == "hang":  # nothing comes, ever: the client has to give up
            lane.books.ended(record, fault, now)
            return
        latency_s = latency_of(lane.rules, record, nth, lane.books.in_flight)
        lane.books.work_s += latency_s
        answer = partial(self._answer, lane, record, body, lane.headers(now), fault, usage)
        self._loop.call_later(latency_s, answer)

    def _bill(self, lane: Lane, record: int, nth: int, body: bytes) -> tuple[int, int]:
        """What the call uses; it is paid for from here on, whoever reads the answer."""
        found = _MOST_TOKENS.search(body)
        usage = usage_of(lane.rules, record, nth, len(body), 16 if found is None else int(found[1]))
        lane.books.billed_tokens += sum(usage)
        return usage

    def _answer(
        self, lane: Lane, record: int, body: bytes, headers: str, fault: str | None, usage: tuple[int, int]
    ) -> None:
        lane.books.ended(record, fault or "ok", self._loop.time())
        if fault == "429":
            self._send(refusal(429, "rate_limit_exceeded", "Slow down.", "retry-after-ms: 120\r\n"))
        elif fault == "503":
            self._send(refusal(503, "server_error", "Overloaded."))
        elif fault == "html":
            self._send(page())
        elif fault == "reset":
            self._reset()
        else:
            tool = json.loads(body)["tools"][0]["function"]["name"]
            self._send(completion(record, tool, lane.books.calls, usage, headers, fault))

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _reset(self) -> None:
        if self._transport is not None:
            found = self._transport.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


async def serve() -> None:
    """Serve until killed; the port is the first line on stdout."""
    server = await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
