"""The request that is sent: parts in their places, bytes as they are, what they cost, and how much is held."""

from __future__ import annotations

import asyncio
import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from media_files import animated, gif, huge_png, jpeg, mp3, pdf, picture, two_headed_png, wav

from pipeline import codec
from pipeline.errors import MediaError
from pipeline.media import MediaLoader, MediaOptions
from pipeline.records import Attachment, Blob, Record, Request


class MediaFetcher:
    """What a fetcher is to a loader."""

    def __init__(self, pages: dict[str, bytes] | None = None) -> None:
        self.pages = pages or {}
        self.checked: list[str] = []

    def check(self, url: str) -> None:
        self.checked.append(url)

    async def load(self, url: str, most_bytes: int) -> bytes:
        return self.pages[url]

    async def close(self) -> None:
        pass


def request(*attachments: Attachment) -> Request:
    parts = [{"type": "text", "text": "Look"}, *({"type": "attachment", "index": at} for at in range(len(attachments)))]
    messages = ({"role": "system", "content": "s"}, {"role": "user", "content": parts})
    record = Record("s", 0, "k", {}, 1, 0)
    return Request(record, "gpt-6-luna", messages, (), None, {}, 100, b"d", attachments=attachments)


def image(source: str, **options: Any) -> Attachment:
    return Attachment("image", source, options)


def options(root: Path, **given: Any) -> MediaOptions:
    return MediaOptions(root, model="gpt-6-luna", **given)


def opened(asked: Request, given: MediaOptions, web: MediaFetcher | None = None) -> Request:
    async def play() -> Request:
        loader = MediaLoader(given, web)
        try:
            async with loader.attach(asked) as sent:
                return sent
        finally:
            await loader.close()
            assert loader._memory.used == 0

    return asyncio.run(play())


def parts(sent: Request) -> list[Any]:
    return list(sent.messages[-1]["content"])


def test_a_request_without_media_is_the_same_one(tmp_path: Path) -> None:
    asked = request()
    assert opened(asked, options(tmp_path)) is asked


def test_a_picture_goes_byte_for_byte(tmp_path: Path) -> None:
    data = jpeg((300, 200))
    (tmp_path / "a.png").write_bytes(data)  # the name says otherwise
    sent = opened(request(image("a.png", detail="low")), options(tmp_path))
    text, shown = parts(sent)
    assert text == {"type": "text", "text": "Look"}
    assert shown["type"] == "image_url"
    assert shown["image_url"]["detail"] == "low"
    blob = shown["image_url"]["url"]
    assert (blob.data, blob.prefix) == (data, "data:image/jpeg;base64,")
    assert sent.size_tokens > 100
    assert sent.media_tokens >= sent.size_tokens - 100


def test_all_kinds_in_one_record(tmp_path: Path) -> None:
    sound, song, document = wav(60), mp3(), pdf(2)
    for name, data in {"a.wav": sound, "b.mp3": song, "c.pdf": document}.items():
        (tmp_path / name).write_bytes(data)
    asked = request(Attachment("audio", "a.wav"), Attachment("audio", "b.mp3"), Attachment("document", "c.pdf"))
    _text, first, second, *pages = parts(sent := opened(asked, options(tmp_path)))
    assert first["input_audio"]["format"] == "wav"
    assert first["input_audio"]["data"].data == sound
    assert second["input_audio"]["format"] == "mp3"
    assert [page["type"] for page in pages] == ["image_url", "image_url"]
    assert sent.size_tokens > 100 + 600


def test_a_document_goes_as_it_is_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "c.pdf").write_bytes(pdf(3))
    sent = opened(request(Attachment("document", "in/c.pdf")), options(tmp_path, pdf_as="file"))
    file = parts(sent)[1]["file"]
    assert (file["filename"], file["file_data"].data) == ("c.pdf", pdf(3)[:0] + (tmp_path / "in/c.pdf").read_bytes())
    assert sent.size_tokens >= 100 + 3 * 1_000


def test_a_data_url_is_read_and_its_type_not_believed(tmp_path: Path) -> None:
    data = picture("PNG")
    url = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    blob = parts(opened(request(image(url)), options(tmp_path)))[1]["image_url"]["url"]
    assert (blob.data, blob.prefix) == (data, "data:image/png;base64,")


def test_an_address_is_passed_on_after_it_was_checked(tmp_path: Path) -> None:
    web = MediaFetcher()
    sent = opened(request(image("https://example.org/a.jpg?sig=1")), options(tmp_path), web)
    assert parts(sent)[1]["image_url"] == {"url": "https://example.org/a.jpg?sig=1", "detail": "high"}
    assert web.checked == ["https://example.org/a.jpg?sig=1"]
    assert sent.media_tokens >= 3_000


def test_an_address_is_loaded_where_that_is_asked_for(tmp_path: Path) -> None:
    web = MediaFetcher({"https://example.org/a": picture("PNG")})
    sent = opened(request(image("https://example.org/a")), options(tmp_path, urls="fetch"), web)
    assert parts(sent)[1]["image_url"]["url"].data == picture("PNG")


#: one pixel by its head, 65,535 x 65,535 by its frame
GROWN_GIF = gif(False).replace(b"\1\0\1\0\0\2", b"\xff\xff\xff\xff\0\2")
HOSTILE = {
    "cut.jpg": (jpeg((500, 500))[:9_000], "cut off"),
    "huge.png": (huge_png(), "200 megapixels"),
    "moving.gif": (animated(), "animated"),
    "heads.png": (two_headed_png(), "more than one header"),
    "frame.gif": (GROWN_GIF, "cannot be decoded"),
    "junk.gif": (gif(True)[:-1] + b"\0" * 150_000, "cut off"),
    "fill.jpg": (b"\xff\xd8" + b"\xff" * 150_000, "no size"),
    "text.jpg": (b"I am no picture at all", "is text"),
    "empty.jpg": (b"", "is empty"),
    "large.jpg": (b"\xff\xd8\xff" * 100_000, "too large"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_named(name: str, tmp_path: Path) -> None:
    data, told = HOSTILE[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MediaError, match=told) as caught:
        opened(request(image(name)), options(tmp_path, max_bytes=200_000))
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("file:///etc/passwd", "expected a path, an https address or a data URL"),
        ("ftp://example.org/a.png", "expected a path"),
        ("javascript:alert(1)", "expected a path"),
        ("/etc/passwd", "outside"),
        ("https://example.org/a.png", "refuses them"),
        ("data:image/png;base64,!!!!", "not base64"),
        ("data:image/png", "no comma"),
        ("data:,hello", "is text"),
        (f"data:image/png;base64,{'A' * 900_000}", "too large"),
    ],
)
def test_sources_that_may_not_be_are_told(source: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=told) as caught:
        opened(request(image(source)), options(tmp_path, urls="refuse", max_bytes=200_000), MediaFetcher())
    assert len(str(caught.value)) < 400


def test_sounds_cannot_be_passed_on(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r'audio\(\) set task.media.urls = "fetch"'):
        opened(request(Attachment("audio", "https://example.org/a.mp3")), options(tmp_path), MediaFetcher())


def test_what_is_a_picture_is_no_sound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(jpeg())
    with pytest.raises(MediaError, match="expected one of wav, mpeg"):
        opened(request(Attachment("audio", "a")), options(tmp_path))


def test_no_text_of_a_request_holds_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg((500, 500)))
    sent = opened(request(image("a.jpg")), options(tmp_path))
    text = codec.dumps(sent.messages)
    assert len(text) < 400
    assert b"a.jpg" in text
    assert len(repr(sent)) < 2_000


def test_no_more_is_held_than_allowed_and_all_is_given_back(tmp_path: Path) -> None:
    """100 records of about 30 KB each, all at once, within 100 KB."""
    for number in range(10):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg((200, 200), quality=95))
    size = (tmp_path / "0.jpg").stat().st_size

    async def play() -> list[int]:
        loader = MediaLoader(options(tmp_path, hold_bytes=3 * size + size // 2))
        held: list[int] = []

        async def one(number: int) -> None:
            async with loader.attach(request(image(f"{number % 10}.jpg"))) as sent:
                held.append(loader._memory.used)
                await asyncio.sleep(0.001)
                assert isinstance(parts(sent)[1]["image_url"]["url"], Blob)

        async with asyncio.timeout(30):
            await asyncio.gather(*map(one, range(100)))
        await loader.close()
        assert loader._memory.used == 0
        return held

    held = asyncio.run(play())
    assert len(held) == 100
    assert max(held) <= 4 * size


def test_records_that_are_cancelled_while_they_load_give_all_back(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg((1_500, 1_500)))

    async def play() -> None:
        loader = MediaLoader(options(tmp_path, hold_bytes=10_000, detail="low"))

        async def one() -> None:
            async with loader.attach(request(image("a.jpg"))):
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(one()) for _ in range(20)]
        await asyncio.sleep(0.01)
        for task in tasks[::2]:
            task.cancel()
        async with asyncio.timeout(30):
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one for one in found if one is None] == [None] * 10
        assert loader._memory.used == 0
        await loader.close()

    asyncio.run(play())


def test_the_loop_goes_on_while_pictures_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture("PNG", (1_500, 1_500), noise=True))

    seen: list[set[str]] = []

    async def play() -> None:
        loader = MediaLoader(options(tmp_path))
        async with asyncio.timeout(60):
            task = asyncio.create_task(_open(loader))
            while not task.done():
                seen.append({thread.name for thread in threading.enumerate()})
                await asyncio.sleep(0)
        await loader.close()

    asyncio.run(play())
    # The loop turned while a thread of the loader's was at work; how often is the machine's affair.
    assert any(name.startswith("labelpipe-media") for name in set().union(*seen))


async def _open(loader: MediaLoader) -> None:
    async with loader.attach(request(image("a.png"))):
        pass


def test_without_pillow_pictures_go_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg((3_000, 2_000))
    (tmp_path / "a.jpg").write_bytes(data)
    monkeypatch.setattr("pipeline.media.content.has_pillow", lambda: False)
    assert parts(opened(request(image("a.jpg")), options(tmp_path)))[1]["image_url"]["url"].data == data


def test_without_pdfium_documents_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf())
    monkeypatch.setattr("pipeline.media.content.has_pdfium", lambda: False)
    with pytest.raises(MediaError, match=r"labelpipe\[pdf\]"):
        opened(request(Attachment("document", "a.pdf")), options(tmp_path))
    assert opened(request(Attachment("document", "a.pdf")), options(tmp_path, pdf_as="file")).media_tokens > 0
