"""The books: what a test can prove from them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from rehearsal_client import Clock, ask, until, with_endpoint

from pipeline.rehearsal import CallLog, Rehearsal, read_call_log
from pipeline.rehearsal.call_log import CallEnding


async def get(endpoint: Rehearsal, path: str, method: str = "GET") -> Any:
    async with aiohttp.ClientSession() as session, session.request(method, endpoint.root_url + path) as response:
        return await response.json()


def test_each_record_and_the_whole_are_counted() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> Any:
        for record, text in [("a", "I love it"), ("a", "I love it"), ("b", "a bomb"), ("c", "no luck")]:
            try:
                await client.chat.completions.create(**ask(text, record))
            except openai.APIError:
                continue
        return await get(endpoint, "/books")

    clock = Clock()
    found = with_endpoint(test, clock=clock, poison={"bomb": "503"}, requests_per_minute=3)
    a, b, c = (found["records"][name] for name in "abc")
    assert (a["calls"], a["answered"], a["label"]) == (2, 2, {"label": "positive"})
    assert (b["calls"], b["answered"], b["failed"], b["tokens"]) == (1, 0, {"503": 1}, 0)
    assert (c["calls"], c["refused"]) == (1, 1)
    totals = found["totals"]
    assert totals["records"] == 3
    assert (totals["calls"], totals["answered"], totals["refused"], totals["failed"]) == (4, 2, 1, {"503": 1})
    assert totals["by_status"] == {"200": 2, "429": 1, "503": 1}
    assert totals["tokens"] == a["tokens"] > 0
    assert (totals["in_flight"], totals["peak_in_flight"], totals["lost"]) == (0, 1, 0)
    assert totals["calls_by_second"] == [4]
    assert totals["answers_by_second"] == [2]


def test_since_shows_only_what_changed() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        await client.chat.completions.create(**ask(record="a"))
        first = await get(endpoint, "/books")
        assert set(first["records"]) == {"a"}
        await client.chat.completions.create(**ask(record="b"))
        second = await get(endpoint, f"/books?since={first['sequence']}")
        assert set(second["records"]) == {"b"}
        assert second["totals"]["calls"] == 2
        assert (await get(endpoint, f"/books?since={second['sequence']}"))["records"] == {}
        assert "not a sequence number" in (await get(endpoint, "/books?since=x"))["error"]["message"]

    with_endpoint(test)


def test_reset_and_health() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        await client.chat.completions.create(**ask())
        assert await get(endpoint, "/health") == {"status": "ok", "calls": 1, "in_flight": 0}
        await get(endpoint, "/books/reset", "POST")
        assert len(endpoint.books) == 0
        assert endpoint.books.totals().calls == 0
        assert "r1" not in endpoint.books

    with_endpoint(test)


def test_a_record_without_a_name_is_known_by_its_text() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> list[str]:
        for text in ("one text", "one text", "another\ntext " + "x" * 99):
            await client.chat.completions.create(**ask(text, record=None))
        return [f"{entry.name[16:]} {entry.calls}" for entry in endpoint.books]

    assert with_endpoint(test) == [" one text 2", " another text " + "x" * 27 + " 1"]


def test_an_answer_that_nobody_waits_for_is_booked_as_lost() -> None:
    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> None:
        call = asyncio.create_task(client.chat.completions.create(**ask()))
        await until(lambda: endpoint.books.in_flight == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: not endpoint.books.in_flight)
        entry = endpoint.books["r1"]
        assert (entry.answered, entry.lost) == (1, 1)
        assert endpoint.books.totals().lost == 1

    with_endpoint(test, latency_ms=200.0)


def test_the_file_tells_what_the_books_tell(tmp_path: Path) -> None:
    path = tmp_path / "books.jsonl"

    async def test(endpoint: Rehearsal, client: AsyncOpenAI) -> dict[str, Any]:
        for i in range(12):
            try:
                await client.chat.completions.create(**ask(f"text {i % 6} 사랑 \n", record=f"r{i % 6}"))
            except openai.APIError:
                continue
        assert path.read_bytes().count(b"\n") == 12  # while it still runs
        return endpoint.books.as_json()

    told = with_endpoint(test, faults={"500": 0.3, "reset": 0.2}, seed=3, books_path=path)
    read = read_call_log(path).as_json()
    assert read["records"] == told["records"]
    for name in ("records", "calls", "answered", "refused", "failed", "tokens", "by_status", "lost"):
        assert read["totals"][name] == told["totals"][name]
    assert told["totals"]["failed"].keys() == {"500", "reset"}


def test_a_file_is_added_to_and_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "books.jsonl"
    for tokens in (5, 7):
        books = CallLog(path)
        books.close_call(books.entry("a"), CallEnding("answered", 200, tokens, '{"x":1}'))
        books.close()
        books.close()
    with path.open("ab") as file:
        file.write(b'{"record": "b", "wh')
    read = read_call_log(path)
    assert len(read) == 1
    assert (read["a"].answered, read["a"].tokens, read["a"].label) == (2, 12, {"x": 1})
    assert json.loads(path.read_bytes().splitlines()[0])["record"] == "a"


def test_seconds_are_counted_from_the_first_call() -> None:
    clock = Clock()
    books = CallLog(clock=clock)
    for wait in (0.0, 0.9, 0.2, 3.0):
        clock.now += wait
        books.arrive()
        books.close_call(books.entry("a"), CallEnding("answered", 200))
        books.leave()
    totals = books.totals()
    assert totals.calls_by_second == totals.answers_by_second == [2, 1, 0, 0, 1]
    assert totals.first_call_at is not None
    assert totals.last_call_at is not None
    assert round(totals.last_call_at - totals.first_call_at, 3) == 4.1
    assert CallLog().totals().first_call_at is None


def test_an_entry_is_small() -> None:
    import tracemalloc

    tracemalloc.start()
    books = CallLog()
    before = tracemalloc.get_traced_memory()[0]
    for i in range(20_000):
        books.close_call(books.entry(str(i)), CallEnding("answered", 200, 120, '{"label":"positive"}'))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown / 20_000 < 350
