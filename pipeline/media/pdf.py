"""The pages of a PDF as pictures. PDFium, one document at a time: it is not made for threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

from pipeline.errors import MediaError
from pipeline.media.images import Picture, encoded
from pipeline.media.sniff import Size
from pipeline.media.tokens import fitted

POINTS_AN_INCH = 72
_ONE_AT_A_TIME = threading.Lock()


@cache
def has_pdfium() -> bool:
    """Whether pages can be drawn here."""
    return find_spec("pypdfium2") is not None and find_spec("PIL") is not None


def pages_of(data: bytes, name: str, *, dpi: int, bound: Size, most: int, wanted: int | None) -> list[Picture]:
    """The first `wanted` pages (None: all), each no larger than `bound`. Raises MediaError, also for too many pages."""
    with _opened(data, name) as document:
        count = len(document)
        shown = count if wanted is None else min(count, wanted)
        if shown > most:
            raise MediaError(
                f"{name} has {count:,} pages; task.media.pdf_pages allows {most}: "
                "raise it, or show the first ones with document(path, pages=...)"
            )
        return [_drawn(document[number], dpi, bound) for number in range(shown)]


def count_of(data: bytes, name: str) -> int:
    """The number of pages. Raises MediaError."""
    with _opened(data, name) as document:
        return len(document)


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Any]:
    import pypdfium2

    with _ONE_AT_A_TIME:
        try:
            document = pypdfium2.PdfDocument(data)
            try:
                yield document
            finally:
                document.close()
        except (MediaError, MemoryError):
            raise
        except Exception as error:  # hostile bytes
            raise MediaError(f"{name} cannot be read as a PDF: {error}") from None


def _drawn(page: Any, dpi: int, bound: Size) -> Picture:
    width, height = page.get_size()  # in points
    scale = dpi / POINTS_AN_INCH
    size = Size(max(1, round(width * scale)), max(1, round(height * scale)))
    # A page may say that it is as large as a wall.
    fit = fitted(size, side=max(bound.width, bound.height), pixels=bound.pixels)
    bitmap = page.render(scale=max(0.001, scale * fit.width / size.width))
    try:
        return encoded(bitmap.to_pil().convert("RGB"), lossy=False)
    finally:
        bitmap.close()
        page.close()
