"""Bytes -> the content parts that a model is sent, in the Chat Completions form. Works in threads; holds no state."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pipeline.errors import MediaError
from pipeline.media.pages import count_of, has_pdfium, pages_of
from pipeline.media.pictures import Picture, has_pillow, prepared, target_of, work_bytes
from pipeline.media.sniff import Size, expect, size_of
from pipeline.media.sound import seconds_of
from pipeline.media.tokens import Cost, audio_cost, document_cost, image_cost
from pipeline.records import JSON, Attachment, Blob

#: What one page takes while it is drawn, and how large it may be where nothing else says so.
PAGE_WORK_BYTES = 64 * 1024 * 1024
PAGE_BOUND = Size(2_048, 2_048)
_FORMATS = {"audio/wav": "wav", "audio/mpeg": "mp3"}
_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_BYTES_A_PAGE = 50_000  #: of a document whose pages cannot be counted here


@dataclass(frozen=True, slots=True)
class Shape:
    """How media are shown; the names are those of MediaOptions."""

    model: str
    detail: str
    max_pixels: int | None
    pdf_as: str
    pdf_pages: int
    pdf_dpi: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """An attachment as it is sent. `bytes` is what it takes in memory."""

    parts: list[JSON]
    bytes: int
    cost: Cost


def by_address(attachment: Attachment, shape: Shape) -> Loaded:
    """A picture that the server loads itself."""
    detail = _detail(attachment, shape)
    return Loaded([_image_part(attachment.source, detail)], 0, image_cost(None, detail, shape.model))


def work_of(data: bytes, attachment: Attachment, name: str, shape: Shape) -> int | None:
    """What decoding it will take, in bytes; None where nothing is decoded. Raises MediaError."""
    mime = expect(data, attachment.kind, name)
    if attachment.kind == "document":
        return PAGE_WORK_BYTES if shape.pdf_as == "images" else None
    if attachment.kind != "image":
        return None
    size = size_of(data, mime, name)
    return work_bytes(size, mime, target_of(size, _detail(attachment, shape), shape.max_pixels))


def shape_of(data: bytes, attachment: Attachment, name: str, shape: Shape) -> Loaded:
    """The attachment as it is sent. Raises MediaError."""
    return _SHAPES[attachment.kind](data, attachment, name, shape)


def _image(data: bytes, attachment: Attachment, name: str, shape: Shape) -> Loaded:
    mime = expect(data, "image", name)
    size, detail = size_of(data, mime, name), _detail(attachment, shape)
    picture = Picture(data, mime, size)
    if has_pillow():
        picture = prepared(data, mime, size, target_of(size, detail, shape.max_pixels), name)
    return _shown([picture], name, detail, shape)


def _audio(data: bytes, attachment: Attachment, name: str, shape: Shape) -> Loaded:
    mime = expect(data, "audio", name)
    cost = audio_cost(seconds_of(data, mime, name))
    sound = {"data": Blob(data, name=f"audio {name}"), "format": _FORMATS[mime]}
    return Loaded([{"type": "input_audio", "input_audio": sound}], len(data), cost)


def _document(data: bytes, attachment: Attachment, name: str, shape: Shape) -> Loaded:
    mime = expect(data, "document", name)
    if shape.pdf_as == "file":
        blob = Blob(data, name=f"document {name}", prefix=f"data:{mime};base64,")
        file = {"filename": _filename(attachment.source), "file_data": blob}
        return Loaded([{"type": "file", "file": file}], len(data), document_cost(_pages(data, name)))
    if not has_pdfium():
        raise MediaError(
            f"{name}: the pages of a PDF as pictures need an optional package: pip install 'labelpipe[pdf]'"
        )
    detail = _detail(attachment, shape)
    bound = target_of(PAGE_BOUND, detail, shape.max_pixels)
    wanted = attachment.options.get("pages")
    pictures = pages_of(data, name, dpi=shape.pdf_dpi, bound=bound, most=shape.pdf_pages, wanted=wanted)
    if not pictures:
        raise MediaError(f"{name} has no page to show")
    return _shown(pictures, name, detail, shape)


_SHAPES = {"image": _image, "audio": _audio, "document": _document}


def _shown(pictures: list[Picture], name: str, detail: str, shape: Shape) -> Loaded:
    cost = sum((image_cost(picture.size, detail, shape.model) for picture in pictures), Cost())
    blobs = [Blob(picture.data, name=f"image {name}", prefix=f"data:{picture.mime};base64,") for picture in pictures]
    return Loaded([_image_part(blob, detail) for blob in blobs], sum(len(blob.data) for blob in blobs), cost)


def _image_part(url: Any, detail: str) -> JSON:
    # "auto" is what the server takes by itself; servers that do not know the word are not bothered with it.
    shown = {"url": url} if detail == "auto" else {"url": url, "detail": detail}
    return {"type": "image_url", "image_url": shown}


def _detail(attachment: Attachment, shape: Shape) -> str:
    return str(attachment.options.get("detail") or shape.detail)


def _filename(source: str) -> str:
    """A name for the document that tells nothing of where it lies."""
    name = PurePath(source).name if ":" not in source[:6] else ""
    return name if name.lower().endswith(".pdf") else "document.pdf"


def _pages(data: bytes, name: str) -> int:
    if has_pdfium():
        return count_of(data, name)
    return max(1, len(_PAGE.findall(data)), math.ceil(len(data) / _BYTES_A_PAGE))
