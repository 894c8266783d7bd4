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


def two_headed_png() -> bytes:
    """A PNG that says first 10 x 10 pixels, then 20,000 x 20,000."""
    small, large = huge_png(10, 10), huge_png(20_000, 20_000)
    return small[:33] + large[8:]


def many_scans(scans: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A progressive JPEG whose last scan comes over and over."""
    data = picture("JPEG", size, "L", noise=True, progressive=True)
    start, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[start:end] * scans + b"\xff\xd9"


def nested_pdf(levels: int = 12, fan: int = 10) -> bytes:
    """3 kB whose page draws a form `fan` times, which draws another as often, and so on: `fan` ** `levels` of them."""

    def stream(head: str, content: bytes) -> bytes:
        return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (head.encode(), len(content), content)

    page = (
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 60 80] /Contents 4 0 R /Resources << /XObject << /F 5 0 R >> >> >>"
    )
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>", page.encode()]
    objects.append(stream("", b"/F Do " * fan))
    for number in range(5, 5 + levels):
        more = f"/Resources << /XObject << /F {number + 1} 0 R >> >>" if number < 4 + levels else ""
        content = b"/F Do " * fan if more else b"0 0 9 9 re f "
        objects.append(stream(f"/Type /XObject /Subtype /Form /BBox [0 0 60 80] {more}", content))
    out, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n" % (len(objects) + 1) + table + b"trailer << /Size %d /Root 1 0 R >>\n" % (len(objects) + 1)
    return out + head + b"startxref\n%d\n%%%%EOF" % len(out)


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
