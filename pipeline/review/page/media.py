"""Loads the images, sounds, and PDF pages of a record with the run's own media loader: checked and bounded."""

import base64
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import chdir, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import LabelpipeError, MediaError
from pipeline.media import MediaLoader
from pipeline.parts import media_of, task_of
from pipeline.records import Blob, Record, Request
from pipeline.targets import run_settings
from pipeline.task import Task
from pipeline.terminal import printable

#: How many records' media are cached: the current one, and those that are prefetched.
CACHED_RECORDS = 6
#: The only types that a browser receives: none of these can contain a script.
_PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_SOUNDS = {"wav": "audio/wav", "mp3": "audio/mpeg"}


@dataclass(frozen=True, slots=True)
class MediaItem:
    """One item of a record. `kind` is image, audio, or text (then `note` explains what cannot be shown)."""

    kind: str
    note: str = ""
    mime: str = ""
    data: bytes = field(default=b"", repr=False)


class MediaPreview:
    """Loads the media of a run's records. `why` explains why it cannot."""

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.has_media = "media" in fingerprint
        self.why = ""
        self._task: Task | None = None
        self._loader: MediaLoader | None = None
        # Mutable state, besides the loader's: the items loaded last, by key, and their sources.
        self._items_by_key: OrderedDict[str, list[MediaItem]] = OrderedDict()
        self._sources: dict[str, frozenset[str]] = {}
        if self.has_media:
            self._open(folder)

    def _open(self, folder: Path) -> None:
        try:
            with run_settings(folder) as settings:
                media = settings.task.media.model_copy(update={"pdf_as": "images"})
                with_images = settings.model_copy(update={"task": settings.task.model_copy(update={"media": media})})
                self._task = task_of(with_images)
                self._loader = media_of(with_images, self._task)
                self._base = Path.cwd()
        except LabelpipeError as error:
            self.why = f"The media are not shown: {error}"

    async def of(self, record: Record) -> list[MediaItem]:
        """Return the items of the record."""
        if not self.has_media:
            return []
        if record.key not in self._items_by_key:
            self._items_by_key[record.key] = await self._load(record)
        self._items_by_key.move_to_end(record.key)
        while len(self._items_by_key) > CACHED_RECORDS:
            self._sources.pop(self._items_by_key.popitem(last=False)[0], None)
        return self._items_by_key[record.key]

    def sources(self, record: Record) -> frozenset[str]:
        """Return the record's values that refer to its media, once `of` has loaded them."""
        return self._sources.get(record.key, frozenset())

    async def close(self) -> None:
        """Stop the decoders. May be called twice."""
        if self._loader is not None:
            await self._loader.close()

    async def _load(self, record: Record) -> list[MediaItem]:
        if self._loader is None or self._task is None:
            return [MediaItem("text", printable(self.why))]
        try:
            with chdir(self._base):  # a record may name its files relative to this folder
                request = self._task.render(record)
            self._sources[record.key] = frozenset(one.source for one in request.attachments)
            return await self._opened(self._loader, request)
        except LabelpipeError as error:
            return [MediaItem("text", f"This cannot be shown: {printable(str(error))}")]

    async def _opened(self, loader: MediaLoader, request: Request) -> list[MediaItem]:
        """Return the items of the request. Its files may be relative to the folder in which the run was started."""
        try:
            return await _load_items(loader, request)
        except MediaError as error:
            at_home = [replace(one, source=f"{self._base}/{one.source}") for one in request.attachments]
            with suppress(MediaError):
                return await _load_items(loader, replace(request, attachments=tuple(at_home)))
            raise error from None


async def _load_items(loader: MediaLoader, request: Request) -> list[MediaItem]:
    async with loader.attach(request) as opened:
        return [one for message in opened.messages for part in _parts(message) for one in _items_of(part)]


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parts of a message that contain the record's media. Examples have no media."""
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _items_of(part: Mapping[str, Any]) -> Iterator[MediaItem]:
    match part.get("type"):
        case "image_url":
            yield _picture(part["image_url"]["url"])
        case "input_audio":
            sound = part["input_audio"]
            yield MediaItem("audio", mime=_SOUNDS[sound["format"]], data=_bytes(sound["data"]))
        case "file":
            yield MediaItem("text", "A document that cannot be shown as pictures: pip install 'labelpipe[pdf]'")


def _picture(url: str | Blob) -> MediaItem:
    if isinstance(url, Blob):
        mime = url.prefix.removeprefix("data:").partition(";")[0]
        if mime in _PICTURES:
            return MediaItem("image", mime=mime, data=url.data)
        return MediaItem("text", "A picture of a kind that is not shown")
    if url.startswith("data:"):
        mime, _, body = url.removeprefix("data:").partition(";base64,")
        return (
            MediaItem("image", mime=mime, data=base64.b64decode(body))
            if mime in _PICTURES
            else MediaItem("text", "A picture")
        )
    return MediaItem("text", f"A picture at an address, which is not loaded here: {printable(url[:300])}")


def _bytes(data: str | Blob) -> bytes:
    return data.data if isinstance(data, Blob) else base64.b64decode(data)
