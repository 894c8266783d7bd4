"""A body with media in it, made piece by piece: the same bytes as if it were made at once."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.providers.streamed_body import CHUNK_BYTES, streamed_body
from pipeline.records import Blob


def body(*parts: Any, **more: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [*parts]}],
        **more,
    }


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def joined(given: dict[str, Any]) -> tuple[bytes, int]:
    chunked_body = streamed_body(given)
    return b"".join(chunked_body.chunks()), chunked_body.size


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=4), st.text(max_size=40))
def test_it_is_the_json_of_the_whole(blobs: list[bytes], text: str) -> None:
    parts = [image(Blob(data, name="x", prefix="data:image/png;base64,")) for data in blobs]
    plain = [image("data:image/png;base64," + base64.b64encode(data).decode()) for data in blobs]
    words = {"type": "text", "text": text}
    made, size = joined(body(words, *parts, tools=[1]))
    assert made == codec.dumps(body(words, *plain, tools=[1]))
    assert size == len(made)


def test_large_blobs_come_in_chunks() -> None:
    data = bytes(range(256)) * 4_000
    chunks = list(streamed_body(body(image(Blob(data, name="x")))).chunks())
    assert max(map(len, chunks)) <= CHUNK_BYTES * 4 // 3
    assert (
        codec.loads(b"".join(chunks))["messages"][1]["content"][0]["image_url"]["url"]
        == base64.b64encode(data).decode()
    )


def test_a_sound_has_no_prefix() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": Blob(b"abc", name="x"), "format": "wav"}}
    made, _size = joined(body(sound))
    assert codec.loads(made)["messages"][1]["content"][0]["input_audio"] == {"data": "YWJj", "format": "wav"}


def test_what_orjson_refuses_is_sent_with_its_media_all_the_same() -> None:
    made, size = joined(body({"type": "text", "text": "\ud800"}, image(Blob(b"abc", name="x"))))
    assert b"YWJj" in made
    assert size == len(made)
