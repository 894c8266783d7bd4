"""Hostile bytes taken apart: heads read to their ends, pictures scaled, pages drawn. Runs in a process of its own."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.errors import MediaError
from pipeline.media.audio import seconds_of
from pipeline.media.images import Picture, prepared
from pipeline.media.pdf import count_of, pages_of
from pipeline.media.sniff import Size, size_of

_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_BYTES_A_PAGE = 50_000  #: of a document whose pages cannot be counted here


@dataclass(frozen=True, slots=True)
class Order:
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
class Decoded:
    """What came of it: pictures, a sound's length, or a document's number of pages."""

    pictures: tuple[Picture, ...] = ()
    seconds: float = 0.0
    pages: int = 0


def decode(data: bytes, order: Order) -> Decoded:
    """What the bytes show. Raises MediaError."""
    return _KINDS[order.kind](data, order)


def _image(data: bytes, order: Order) -> Decoded:
    size = size_of(data, order.mime, order.name)
    if not order.draws:
        return Decoded((Picture(data, order.mime, size),))
    return Decoded((prepared(data, order.mime, size, Size(*order.bound), order.name),))


def _pages(data: bytes, order: Order) -> Decoded:
    bound = Size(*order.bound)
    found = pages_of(data, order.name, dpi=order.dpi, bound=bound, most=order.most_pages, wanted=order.pages)
    if not found:
        raise MediaError(f"{order.name} has no page to show")
    return Decoded(tuple(found))


def _file(data: bytes, order: Order) -> Decoded:
    if order.draws:
        return Decoded(pages=count_of(data, order.name))
    return Decoded(pages=max(1, len(_PAGE.findall(data)), math.ceil(len(data) / _BYTES_A_PAGE)))


_KINDS: Mapping[str, Callable[[bytes, Order], Decoded]] = {
    "image": _image,
    "audio": lambda data, order: Decoded(seconds=seconds_of(data, order.mime, order.name)),
    "document": _pages,
    "file": _file,
}
