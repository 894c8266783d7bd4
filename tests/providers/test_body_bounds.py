"""An answer's body has a bound: of its unpacked size, and of the time that all of it takes."""

from __future__ import annotations

import asyncio
import gzip
import resource
import zlib
from typing import Any

import pytest
from aiohttp import web
from provider_servers import answers, asked, completion, provider_at, request, served

from pipeline import codec
from pipeline.errors import CallError, CallTimeoutError, RequestShapeError, UnavailableError
from pipeline.providers.wire import MOST_BODY_BYTES, MOST_REFUSAL_BYTES

RAW = zlib.compressobj(wbits=-15)
#: 256 MB in 260 kB: the same block again and again.
DEFLATED = (RAW.compress(b" " * 2**20) + RAW.flush(zlib.Z_FULL_FLUSH)) * 256 + RAW.flush()
#: Without its checksum, which nobody gets to.
BOMB = b"\x1f\x8b\x08" + bytes(6) + b"\xff" + DEFLATED


def failed(handler: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        asyncio.run(asked(handler))
    return caught.value


async def endless(got: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(got)
    while True:
        await response.write(b" " * 65_536)


@pytest.mark.parametrize(
    "handler",
    [
        answers(BOMB, Content_Encoding="gzip"),
        answers(DEFLATED, Content_Encoding="deflate"),
        answers(b'{"choices": "' + b"x" * MOST_BODY_BYTES),
        endless,
    ],
    ids=["gzip", "deflate", "long", "endless"],
)
def test_a_body_is_read_up_to_its_bound(handler: Any) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = failed(handler)

    assert isinstance(error, UnavailableError)
    assert "more than 8,388,608 bytes" in str(error)
    assert error.billed, "the model may have written all of it"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "in kB"


def test_a_refusal_is_known_by_its_status_however_long_its_body_is() -> None:
    long = codec.dumps({"error": {"message": "no such field", "code": "invalid_request", "more": "x" * 2**20}})
    assert len(long) > MOST_REFUSAL_BYTES
    assert isinstance(failed(answers(long, 400)), RequestShapeError)
    assert isinstance(failed(answers(BOMB, 503, Content_Encoding="gzip")), UnavailableError)


def test_an_answer_below_the_bound_comes_whole_and_packed_or_not() -> None:
    body = codec.dumps(completion(message={"content": "x" * (MOST_BODY_BYTES - 1_000)}))
    for handler in (answers(body), answers(gzip.compress(body, 1), Content_Encoding="gzip")):
        assert len(asyncio.run(asked(handler)).answer.text) == MOST_BODY_BYTES - 1_000


def test_the_connection_of_a_body_that_is_too_long_is_not_used_again() -> None:
    async def handler(got: web.Request) -> web.StreamResponse:
        body = await got.json()
        return await endless(got) if body["messages"][0]["content"] == "long" else web.json_response(completion())

    async def main() -> None:
        async with served(handler) as base_url, provider_at(base_url, max_connections=1) as provider:
            for _ in range(20):
                with pytest.raises(UnavailableError):
                    await provider(request("long"))
                assert (await provider(request("short"))).answer.text == "positive"

    asyncio.run(main())


def test_a_models_page_that_comes_a_byte_at_a_time_ends_in_the_calls_time() -> None:
    async def handler(got: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(got)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    async def main() -> None:
        async with served(handler) as base_url, provider_at(base_url, timeout_s=0.2) as provider:
            async with asyncio.timeout(60):
                await provider.model("m")

    with pytest.raises(CallTimeoutError):
        asyncio.run(main())


@pytest.mark.parametrize(
    "text",
    ["\\" * 20_000, '"message": ' + "\\" * 19_000, '"message":"' * 2_000, "reset" * 4_000, "wait " + "1 " * 9_000],
)
def test_no_text_of_an_error_is_a_trap_for_what_looks_through_it(text: str) -> None:
    """20 kB of backslashes took half a minute, in the loop."""
    body = codec.dumps({"error": {"message": text}})
    assert isinstance(failed(answers(body, 400)), CallError)
    assert isinstance(failed(answers(text.encode(), 429)), CallError)
