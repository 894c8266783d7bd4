"""Builds the content parts for a model from bytes, in the Chat Completions form. Has no state and decodes nothing."""

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

#: The memory that drawing one page takes, and the size limit of a page if nothing else sets one.
PAGE_WORK_BYTES = 64 * 1024 * 1024
PAGE_BOUND = Size(2_048, 2_048)
_FORMATS = {"audio/wav": "wav", "audio/mpeg": "mp3"}


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """Which media are allowed, and how they are sent.

    `root`          the folder that must contain all local files
    `model`         its rules are used for the estimates
    `detail`        the default for prompts that set none: auto, low, high, or original
    `max_pixels`    images are scaled down to this many pixels; None: only as `detail` requires
    `max_bytes`     of one file, address, or data URL
    `urls`          pass (the server loads them), fetch (we load them), or refuse
    `hold_bytes`    the most memory that loaded media may take at once
    `pdf_as`        images (one per page) or file (the document as it is)
    `pdf_pages`     the most pages of a document that are sent as images
    `pdf_dpi`       the resolution of these images
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
    """An attachment in the form that is sent. `size_bytes` is the memory that it takes."""

    parts: list[JSON]
    size_bytes: int
    cost: TokenCost


def url_attachment(attachment: Attachment, options: MediaOptions) -> LoadedAttachment:
    """Return an image that the server loads itself."""
    detail = _detail(attachment, options)
    return LoadedAttachment([_image_part(attachment.source, detail)], 0, image_cost(None, detail, options.model))


def plan_decoding(data: bytes, attachment: Attachment, name: str, options: MediaOptions) -> DecodeJob:
    """Return what to do with the bytes, after a quick check. Raises MediaError if they are not of the right kind."""
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
    """Build the attachment in the form that is sent."""
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
    # "auto" is the server's default, so it is left out for servers that do not know the word.
    image_url = {"url": url} if detail == "auto" else {"url": url, "detail": detail}
    return {"type": "image_url", "image_url": image_url}


def _detail(attachment: Attachment, options: MediaOptions) -> str:
    return str(attachment.options.get("detail") or options.detail)


def _filename(source: str) -> str:
    """Return a name for the document that does not reveal its location."""
    name = PurePath(source).name if ":" not in source[:6] else ""
    return name if name.lower().endswith(".pdf") else "document.pdf"
