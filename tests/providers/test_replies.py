"""What servers answered in public, and what each of it means for a run: replies.jsonl, one reply a line.

A line names where it was seen: a repository and the number of its thread, or the provider whose form it is. `kind` is
the class of ours, `words` what must be told of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from provider_servers import provider_at, request, served

from pipeline import codec, errors
from pipeline.errors import CallError, RequestShapeError

REPLIES = [codec.loads(line) for line in (Path(__file__).parent / "replies.jsonl").read_bytes().splitlines()]


def _fault(reply: dict[str, Any], found: CallError) -> str | None:
    told, seen = str(found), f"{reply['source']}, {reply['status']}: {type(found).__name__}: {found}"
    if type(found).__name__ != reply["kind"] or reply["words"] not in told or "\n" in told:
        return seen
    wanted_s = reply.get("retry_after_s")
    return None if wanted_s in (None, found.retry_after_s) else f"{seen}: waits {found.retry_after_s}"


def test_each_reply_is_what_it_means() -> None:
    """Over a real socket, one after another."""
    now: list[dict[str, Any]] = []

    async def handler(_: web.Request) -> web.Response:
        reply = now[-1]
        body = reply["text"].encode() if "text" in reply else codec.dumps(reply["body"])
        return web.Response(body=body, status=reply["status"], headers=reply.get("headers"))

    async def main() -> list[str | None]:
        faults = []
        async with served(handler) as base_url, provider_at(base_url) as provider:
            for reply in REPLIES:
                now.append(reply)
                try:
                    faults.append(f"{reply['source']}: an answer: {await provider(request())}")
                except CallError as found:
                    faults.append(_fault(reply, found))
        return faults

    assert [fault for fault in asyncio.run(main()) if fault] == []


def test_the_replies_are_many_and_of_each_kind() -> None:
    kinds = Counter(reply["kind"] for reply in REPLIES)
    assert len(REPLIES) >= 100
    assert all(issubclass(getattr(errors, kind), CallError) for kind in kinds)
    assert (
        min(kinds[kind] for kind in ("QuotaError", "RateLimitedError", "RecordRefusedError", "CredentialsError")) >= 10
    )


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"type": "string_too_long", "loc": ["body", "x"], "msg": "bad", "input": "insufficient_quota"}]},
        {"error": {"message": "bad", "metadata": {"flagged_input": "Insufficient credits"}}},
        {"error": {"message": "bad", "request": {"error": {"code": "insufficient_quota"}}}},
        {"error": {"message": "bad", "content_filter_result": {"error": {"code": "content_filter"}}}},
    ],
)
def test_what_repeats_the_request_is_not_taken_for_the_servers_word(body: Any) -> None:
    """One text with these words must not end a run."""

    async def main() -> None:
        async def handler(_: web.Request) -> web.Response:
            return web.json_response(body, status=400)

        async with served(handler) as base_url, provider_at(base_url) as provider:
            await provider(request())

    with pytest.raises(RequestShapeError, match="bad"):
        asyncio.run(main())
