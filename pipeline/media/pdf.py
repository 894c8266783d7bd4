"""Renders the pages of a PDF as images with PDFium, one document at a time because it is not thread-safe."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

from pipeline.errors import MediaError
from pipeline.media.images import EncodedImage, encode_image
from pipeline.media.sniff import Size
from pipeline.media.tokens import scale_to_fit

POINTS_AN_INCH = 72
_LOCK = threading.Lock()


@cache
def has_pdfium() -> bool:
    """Whether pages can be rendered here."""
    return find_spec("pypdfium2") is not None and find_spec("PIL") is not None


def render_pages(data: bytes, name: str, *, dpi: int, bound: Size, most: int, pages: int | None) -> list[EncodedImage]:
    """Render the first `pages` pages (None: all), none larger than `bound`. Raises MediaError, also if too many."""
    with _open_pdf(data, name) as document:
        count = len(document)
        shown_count = count if pages is None else min(count, pages)
        if shown_count > most:
            raise MediaError(
                f"{name} has {count:,} pages; task.media.pdf_pages allows {most}: "
                "raise it, or show the first ones with document(path, pages=...)"
            )
        return [_render_page(document[number], dpi, bound) for number in range(shown_count)]


def count_pages(data: bytes, name: str) -> int:
    """Return the number of pages. Raises MediaError."""
    with _open_pdf(data, name) as document:
        return len(document)


@contextmanager
def _open_pdf(data: bytes, name: str) -> Iterator[Any]:
    import pypdfium2

    with _LOCK:
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


def _render_page(page: Any, dpi: int, bound: Size) -> EncodedImage:
    width, height = page.get_size()  # in points
    scale = dpi / POINTS_AN_INCH
    size = Size(max(1, round(width * scale)), max(1, round(height * scale)))
    # A page may declare that it is as large as a wall.
    fit = scale_to_fit(size, side=max(bound.width, bound.height), pixels=bound.pixels)
    bitmap = page.render(scale=max(0.001, scale * fit.width / size.width))
    try:
        return encode_image(bitmap.to_pil().convert("RGB"), lossy=False)
    finally:
        bitmap.close()
        page.close()
