"""Media made on the spot: pictures, sounds and documents, whole and hostile."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from typing import Any

from PIL import Image


def picture(
    kind: str = "PNG", size: tuple[int, int] = (64, 48), mode: str = "RGB", noise: bool = False, **options: Any
) -> bytes:
    """A picture's bytes; with `noise` one that does not pack."""
    image = Image.effect_noise(size, 90).convert(mode) if noise else Image.new(mode, size)
    if not noise:
        image.putpixel((1, 1), image.getpixel((0, 0)))
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def jpeg(size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    """A JPEG with something in it."""
    return picture("JPEG", size, noise=True, **options)


def huge_png(width: int = 20_000, height: int = 10_000) -> bytes:
    """A PNG of a few bytes whose head says 200 megapixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def animated(kind: str = "GIF") -> bytes:
    """Two frames."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=100)
    return out.getvalue()


def gif(*controls: bool) -> bytes:
    """A frame of one black dot each, with a Graphic Control Extension before it or without one."""
    frame = b",\0\0\0\0\1\0\1\0\0" + b"\2\2\x44\1\0"
    frames = [b"!\xf9\4\0\1\0\0\0" * control + frame for control in controls]
    return b"GIF89a\1\0\1\0\x80\0\0" + b"\0\0\0\xff\xff\xff" + b"".join(frames) + b";"


def turned_jpeg(size: tuple[int, int] = (64, 32), orientation: int = 6) -> bytes:
    """A JPEG whose left half is red, taken with the camera on its side."""
    image = Image.new("RGB", size, "white")
    image.paste("red", (0, 0, size[0] // 2, size[1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif, quality=95)
    return out.getvalue()


def wav(seconds: float = 1.0, hertz: int = 8_000) -> bytes:
    """Silence."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(hertz)
        file.writeframes(b"\0\0" * int(seconds * hertz))
    return out.getvalue()


def mp3(frames: int = 100, *, tag: bool = True) -> bytes:
    """MPEG 1 layer III frames of 128 kbit/s at 44.1 kHz, 26 ms each, with nothing in them."""
    frame = b"\xff\xfb\x90\x00" + b"\0" * 413
    head = b"ID3\x04\0\0\0\0\0\x0a" + b"\0" * 10 if tag else b""
    return head + frame * frames


def pdf(pages: int = 2, size: tuple[int, int] = (200, 100)) -> bytes:
    """Empty pages, of so many points."""
    import pypdfium2

    document = pypdfium2.PdfDocument.new()
    for _ in range(pages):
        document.new_page(*size)
    out = io.BytesIO()
    document.save(out)
    document.close()
    return out.getvalue()
