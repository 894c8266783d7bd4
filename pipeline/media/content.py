"""Bytes -> the content parts that a model is sent, in the Chat Completions form. Holds no state, decodes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pipeline.errors import MediaError
from pipeline.media.decode import DecodeJob, DecodeResult
from pipeline.media.images import EncodedImage, has_pillow, target_size, work_bytes
from pipeline.media.pdf import has_pdfium
from pipeline.media.sniff import Size, read_dimensions, require_type
from pipeline.media.tokens import TokenCost, audio_cost, document_cost, image_cost
from pipeline.records import JSON, Attachment, Blob

#: What one page takes while it is drawn, and how large it may be where nothing else says so.
PAGE_WORK_BYTES = 64 * 1024 * 1024
PAGE_BOUND = Size(2_048, 2_048)
_FORMATS = {"audio/wav": "wav", "audio/mpeg": "mp3"}


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """What may be shown, and how.

    `root`          the folder below which local files must be
    `model`         whose rules the estimates follow
    `detail`        where the prompt says nothing: auto, low, high or original
    `max_pixels`    pictures are scaled down to so many pixels; None: as `detail` asks
    `max_bytes`     of one file, address or data URL
    `urls`          pass (the server loads them), fetch (they are loaded here) or refuse
    `hold_bytes`    the most that loaded media may take at once
    `pdf_as`        images (a picture a page) or file (the document as it is)
    `pdf_pages`     the most pages that a document may show as pictures
    `pdf_dpi`       how fine they are drawn
    """

    root: Path
    model: str = ""
    detail: str = "high"
    max_pixels: int | None = None
    max_bytes: int = 20_000_000
    urls: str = "pass"
    hold_bytes: int = 512 * 1024 * 1024
    pdf_as: str = "images"
    pdf_pages: int = 20
    pdf_dpi: int = 110


@dataclass(frozen=True, slots=True)
class LoadedAttachment:
    """An attachment as it is sent. `size_bytes` is what it takes in memory."""

    parts: list[JSON]
    size_bytes: int
    cost: TokenCost


def url_attachment(attachment: Attachment, options: MediaOptions) -> LoadedAttachment:
    """A picture that the server loads itself."""
    detail = _detail(attachment, options)
    return LoadedAttachment([_image_part(attachment.source, detail)], 0, image_cost(None, detail, options.model))


def plan_decoding(data: bytes, attachment: Attachment, name: str, options: MediaOptions) -> DecodeJob:
    """What is to be made of the bytes. A short look; raises MediaError for what is not of the kind it should be."""
    mime = require_type(data, attachment.kind, name)
    if attachment.kind == "image":
        size = read_dimensions(data, mime, name)
        bound = target_size(size, _detail(attachment, options), options.max_pixels)
        work = work_bytes(size, mime, bound)
        return DecodeJob("image", mime, name, has_pillow(), work, (bound.width, bound.height))
    if attachment.kind != "document":
        return DecodeJob(attachment.kind, mime, name)
    if options.pdf_as == "file":
        return DecodeJob("file", mime, name, has_pdfium())
    if not has_pdfium():
        raise MediaError(
            f"{name}: the pages of a PDF as pictures need an optional package: pip install 'labelpipe[pdf]'"
        )
    bound = target_size(PAGE_BOUND, _detail(attachment, options), options.max_pixels)
    pages, drawn = attachment.options.get("pages"), (bound.width, bound.height)
    return DecodeJob("document", mime, name, True, PAGE_WORK_BYTES, drawn, options.pdf_dpi, options.pdf_pages, pages)


def build_attachment(
    result: DecodeResult, data: bytes, attachment: Attachment, job: DecodeJob, options: MediaOptions
) -> LoadedAttachment:
    """The attachment as it is sent."""
    if job.kind == "audio":
        sound = {"data": Blob(data, name=f"audio {job.name}"), "format": _FORMATS[job.mime]}
        return LoadedAttachment([{"type": "input_audio", "input_audio": sound}], len(data), audio_cost(result.seconds))
    if job.kind == "file":
        blob = Blob(data, name=f"document {job.name}", prefix=f"data:{job.mime};base64,")
        file = {"filename": _filename(attachment.source), "file_data": blob}
        return LoadedAttachment([{"type": "file", "file": file}], len(data), document_cost(result.pages))
    return _image_parts(result.images, job.name, _detail(attachment, options), options)


def _image_parts(images: Sequence[EncodedImage], name: str, detail: str, options: MediaOptions) -> LoadedAttachment:
    cost = sum((image_cost(picture.size, detail, options.model) for picture in images), TokenCost())
    blobs = [Blob(picture.data, name=f"image {name}", prefix=f"data:{picture.mime};base64,") for picture in images]
    return LoadedAttachment([_image_part(blob, detail) for blob in blobs], sum(len(blob.data) for blob in blobs), cost)


def _image_part(url: Any, detail: str) -> JSON:
    # "auto" is what the server takes by itself; servers that do not know the word are not bothered with it.
    image_url = {"url": url} if detail == "auto" else {"url": url, "detail": detail}
    return {"type": "image_url", "image_url": image_url}


def _detail(attachment: Attachment, options: MediaOptions) -> str:
    return str(attachment.options.get("detail") or options.detail)


def _filename(source: str) -> str:
    """A name for the document that tells nothing of where it lies."""
    name = PurePath(source).name if ":" not in source[:6] else ""
    return name if name.lower().endswith(".pdf") else "document.pdf"
