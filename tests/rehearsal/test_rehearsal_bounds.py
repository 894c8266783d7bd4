"""Schemas, connections and pages of other sites that would hold the endpoint, or use it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from rehearsal_client import ask, tool

from pipeline.rehearsal import Rehearsal, RehearsalOptions, server
from pipeline.rehearsal.schema_values import ValueGenerator
from pipeline.rehearsal.seeded_random import SeededRandom
from pipeline.rehearsal.string_values import text_for
from pipeline.rehearsal.tool_choice import results_of
from pipeline.rehearsal.tools import read_tools

TWICE = {"$ref": "#/$defs/a"}
HOSTILE: dict[str, Any] = {
    "minLength": {"type": "string", "minLength": 10**9},
    "minItems": {"type": "array", "minItems": 10**9, "items": {"type": "null"}},
    "uniqueItems": {"type": "array", "minItems": 10**9, "uniqueItems": True, "items": {"type": "boolean"}},
    "minimum": {"type": "integer", "minimum": 10**400},
    "doubling": {"allOf": [TWICE, TWICE]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_schema_that_asks_for_too_much_is_refused(name: str) -> None:
    defs = {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}
    assert ValueGenerator(
        {"type": "object", "properties": {"x": HOSTILE[name]}, "required": ["x"], "$defs": defs}
    ).fault()


def test_a_list_without_a_bound_of_its_own_has_a_usual_one() -> None:
    generator = ValueGenerator({"type": "array", "maxItems": 10**9, "items": {"type": "boolean"}})
    assert max(len(generator.fill(SeededRandom(seed))) for seed in range(50)) <= 50


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+^", "(a|a)*^", "((a*)*)*$", "(x+x+)+y^", ".*.*.*.*.*.*.*.*=^", "(?:){1000000000}", "((a{999}){999}){999}",
     "(" * 900 + ")" * 900, "a" * 5_000, "(?=a)b", "[", "^(a?){50}a{50}$"],
)  # fmt: skip
@pytest.mark.parametrize("least", [0, 1_000])
def test_no_pattern_is_a_trap(pattern: str, least: int) -> None:
    text = text_for({"pattern": pattern, "minLength": least}, SeededRandom(1))
    assert least <= len(text) <= 20_000


def test_a_repeat_within_a_repeat_still_gets_its_text() -> None:
    assert text_for({"pattern": "^([a-z]+-)+[a-z]+$"}, SeededRandom(1)).count("-") >= 1
    assert "@" in text_for({"pattern": r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$"}, SeededRandom(1))


def test_many_tools_and_many_words_take_no_square_of_time() -> None:
    names = [f"f{number}" for number in range(20_000)]
    large = {"type": "object", "properties": {name: {"type": "null"} for name in names}, "required": names,
             "additionalProperties": False}  # fmt: skip
    for tools in ([tool(name=name, strict=False) for name in names[:5_000]], [tool(large)]):
        assert len(read_tools(json.dumps(tools).encode()).tools) == len(tools)
    said = [{"role": "tool", "content": "call " * 100_000}, {"role": "tool", "content": "please CALL it, then again"}]
    assert [results_of([one], lambda message: message["content"]).complaint for one in said] == [False, True]


async def _status(endpoint: Rehearsal, *headers: str, method: str = "GET", path: str = "/health") -> int:
    body = json.dumps(ask()).encode() if method == "POST" else b""
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    head = [f"{method} {path} HTTP/1.1", *headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    writer.write("\r\n".join(head).encode() + body)
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


def test_pages_of_other_sites_are_kept_out() -> None:
    """Their scripts can call this machine, by its address or by a name of theirs that leads to it."""

    async def main() -> None:
        async with Rehearsal(RehearsalOptions(latency_ms=0)) as endpoint:
            here = f"127.0.0.1:{endpoint.port}"
            for headers in ((f"Host: {here}",), ("Host: localhost",), ("Host: [::1]:80",), ("Host: app.localhost:1",),
                            (f"Host: {here}", "Origin: http://localhost:3000")):  # fmt: skip
                assert await _status(endpoint, *headers) == 200, headers
            for headers in (("Host: rebound.example.org",), (f"Host: {here}", "Origin: https://example.org"),
                            (f"Host: {here}", "Origin: null"), ("Host: [", ), ("Host: ",)):  # fmt: skip
                assert await _status(endpoint, *headers) in (400, 403), headers
            foreign = await _status(
                endpoint, f"Host: {here}", "Origin: https://example.org", method="POST", path="/v1/chat/completions"
            )
            assert foreign == 403
            assert endpoint.books.totals().answered == 0

    asyncio.run(main())


def test_a_connection_without_a_head_is_let_go_and_one_in_use_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.2)

    async def main() -> None:
        async with Rehearsal(RehearsalOptions(latency_ms=0)) as endpoint, asyncio.timeout(60):
            used, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            idle, other = await asyncio.open_connection("127.0.0.1", endpoint.port)
            other.write(b"GET /health HTTP/1.1\r\nHo")
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" in await used.readline()
            with contextlib.suppress(ConnectionError):
                assert not await idle.read()
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while b"200 OK" not in await used.readline():
                pass
            writer.close()
            other.close()

    asyncio.run(main())
