"""Hostile bytes taken apart: heads read to their ends, pictures scaled, pages drawn. Runs in a process of its own."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.errors import MediaError
from pipeline.media.audio import duration_s
from pipeline.media.images import EncodedImage, fit_image
from pipeline.media.pdf import count_pages, render_pages
from pipeline.media.sniff import Size, validate_image

_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_BYTES_A_PAGE = 50_000  #: of a document whose pages cannot be counted here


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """What is to be made of some bytes.

    `kind` is image, audio, document (its pages as pictures) or file (a document as it is); `bound` the size that a
    picture, or each page, is scaled down to; `draws` whether the package that takes it apart is there; `work_bytes`
    what that takes of memory. `pages` are those wanted (None: all), `most_pages` and `dpi` are those of MediaOptions.
    """

    kind: str
    mime: str
    name: str
    draws: bool = True
    work_bytes: int = 0
    bound: tuple[int, int] = (1, 1)
    dpi: int = 110
    most_pages: int = 1
    pages: int | None = None


@dataclass(frozen=True, slots=True)
class DecodeResult:
    """What came of it: pictures, a sound's length, or a document's number of pages."""

    images: tuple[EncodedImage, ...] = ()
    seconds: float = 0.0
    pages: int = 0


def decode(data: bytes, job: DecodeJob) -> DecodeResult:
    """What the bytes show. Raises MediaError."""
    return _KINDS[job.kind](data, job)


def _image(data: bytes, job: DecodeJob) -> DecodeResult:
    size = validate_image(data, job.mime, job.name)
    if not job.draws:
        return DecodeResult((EncodedImage(data, job.mime, size),))
    return DecodeResult((fit_image(data, job.mime, size, Size(*job.bound), job.name),))


def _pages(data: bytes, job: DecodeJob) -> DecodeResult:
    bound = Size(*job.bound)
    images = render_pages(data, job.name, dpi=job.dpi, bound=bound, most=job.most_pages, pages=job.pages)
    if not images:
        raise MediaError(f"{job.name} has no page to show")
    return DecodeResult(tuple(images))


def _file(data: bytes, job: DecodeJob) -> DecodeResult:
    if job.draws:
        return DecodeResult(pages=count_pages(data, job.name))
    return DecodeResult(pages=max(1, len(_PAGE.findall(data)), math.ceil(len(data) / _BYTES_A_PAGE)))


_KINDS: Mapping[str, Callable[[bytes, DecodeJob], DecodeResult]] = {
    "image": _image,
    "audio": lambda data, job: DecodeResult(seconds=duration_s(data, job.mime, job.name)),
    "document": _pages,
    "file": _file,
}
