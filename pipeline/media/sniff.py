"""Detects the type of bytes from the bytes alone, and never trusts a file's name or a server."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import MediaError

#: Kind of attachment -> the types that models accept for it.
TYPES = {
    "image": ("image/png", "image/jpeg", "image/gif", "image/webp"),
    "audio": ("audio/wav", "audio/mpeg"),
    "document": ("application/pdf",),
}
#: An image with more pixels is refused before it is decoded. Pillow's own limit is about the same.
MOST_PIXELS = 89_000_000
#: Scans of a progressive JPEG; writers make about ten. Each costs a pass over the whole image.
MOST_SCANS = 100
#: The most steps through a GIF, over blocks and bytes between them.
MOST_BLOCKS = 1_000_000
#: Segments of a JPEG before its image data, of up to 64 kB each.
MOST_SEGMENTS = 10_000
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: JPEG markers without a length.
_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
#: The first bytes of a GIF's blocks.
_GIF_EXTENSION, _GIF_FRAME, _GIF_END = 0x21, 0x2C, 0x3B
_TEXT = re.compile(r"[\t\n\r\x20-\x7e\xa0-\U0010ffff]+")


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def detect_type(data: bytes) -> str | None:
    """Return the MIME type, one of TYPES; None for anything else."""
    if data.startswith(_PNG):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    if data[:4] in (b"RIFF", b"RIFX"):
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(data[8:12])
    if data.startswith(b"ID3") or is_mp3_frame(data[:4]):
        return "audio/mpeg"
    return "application/pdf" if b"%PDF-" in data[:1024] else None


def is_mp3_frame(head: bytes) -> bool:
    """Whether these four bytes begin a frame of MPEG audio, layer III."""
    return (
        len(head) == 4
        and head[0] == 0xFF
        and head[1] & 0xE6 == 0xE2  # the sync bits and the layer
        and (head[1] >> 3) & 3 != 1
        and head[2] >> 4 not in (0, 15)
        and (head[2] >> 2) & 3 != 3
    )


def require_type(data: bytes, kind: str, name: str) -> str:
    """Return the MIME type, and require that this kind of attachment may have it. Raises MediaError."""
    mime = detect_type(data)
    if mime in TYPES[kind]:
        return str(mime)
    expected = ", ".join(mime.partition("/")[2] for mime in TYPES[kind])
    raise MediaError(
        f"{name} is {mime or _describe_unknown(data)}: expected one of {expected}, by its bytes, for {kind}()"
    )


def _describe_unknown(data: bytes) -> str:
    if not data:
        return "empty"
    # At most the last character of the piece is cut.
    start = data[:64].decode("utf-8", "ignore")
    is_text_file = len(start.encode()) >= len(data[:64]) - 3 and _TEXT.fullmatch(start)
    return "text" if is_text_file else "of no type that is known here"


def read_dimensions(data: bytes, mime: str, name: str) -> Size:
    """Return an image's size from its header, after a quick look. Raises MediaError: no size, or over MOST_PIXELS."""
    size = _READ[mime](data)
    if size is None or not size.pixels:
        raise MediaError(f"{name} has no size in its header: a damaged {mime.partition('/')[2]}")
    if size.pixels > MOST_PIXELS:
        details = f"{size.width} x {size.height} pixels, {size.pixels / 1e6:.0f} megapixels"
        raise MediaError(f"{name} is too large: {details}; at most {MOST_PIXELS / 1e6:.0f} are decoded")
    return size


def validate_image(data: bytes, mime: str, name: str) -> Size:
    """Return the same after a full check. Raises MediaError also if it is animated, cut off, or has too many scans."""
    size = read_dimensions(data, mime, name)
    if mime == "image/jpeg" and (scans := _scans(data)) > MOST_SCANS:
        raise MediaError(f"{name} has {scans:,} scans; at most {MOST_SCANS} are decoded")
    if mime == "image/png" and sum(chunk == b"IHDR" for chunk, _ in _png_chunks(data)) != 1:
        raise MediaError(f"{name} has more than one header: a damaged png")
    if _is_animated(data, mime):
        raise MediaError(f"{name} is animated, which models do not accept: use a single frame")
    if not _is_whole(data, mime):
        raise MediaError(f"{name} is cut off: the end of the {mime.partition('/')[2]} is missing")
    return size


def _png(data: bytes) -> Size | None:
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return Size(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))


def _gif(data: bytes) -> Size | None:
    if len(data) < 10:
        return None
    return Size(int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"))


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return Size(1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"))
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return Size(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 " and len(data) >= 30:
        return Size(int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF)
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker and position of each segment of a JPEG, up to the first scan."""
    at = 2
    for _ in range(MOST_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        yield marker, at
        if marker == 0xDA:
            return
        at += 2 if marker in _BARE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _jpeg(data: bytes) -> Size | None:
    for marker, at in _segments(data):
        if marker in _JPEG_SIZES and at + 9 <= len(data):
            return Size(int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big"))
    return None


def _scans(data: bytes) -> int:
    """Return the number of scans of a JPEG. Most have one with all colors, and need no search through all bytes."""
    kind = colours = 0
    for marker, at in _segments(data):
        if marker in _JPEG_SIZES and at + 9 < len(data):
            kind, colours = marker, data[at + 9]
        if marker == 0xDA and at + 4 < len(data) and kind in (0xC0, 0xC1) and data[at + 4] == colours:
            return 1
    return data.count(b"\xff\xda")


_READ = {"image/png": _png, "image/jpeg": _jpeg, "image/gif": _gif, "image/webp": _webp}


def _is_whole(data: bytes, mime: str) -> bool:
    """Whether the image has its end. Anything may follow: cameras append data to their images."""
    if mime == "image/jpeg":
        # The preview within the headers has an end of its own, so the search begins after them.
        scan = next((at for marker, at in _segments(data) if marker == 0xDA), None)
        return scan is not None and data.rfind(b"\xff\xd9") > scan
    if mime == "image/png":
        return data.rfind(_PNG_END) > 0
    if mime == "image/gif":
        return _GIF_END in _gif_blocks(data)
    return int.from_bytes(data[4:8], "little") + 8 <= len(data)


def _is_animated(data: bytes, mime: str) -> bool:
    if mime == "image/webp":
        return data[12:16] == b"VP8X" and bool(data[20] & 0x02)
    if mime == "image/gif":
        frames = (block for block in _gif_blocks(data) if block == _GIF_FRAME)
        return next(frames, None) is not None and next(frames, None) is not None
    return mime == "image/png" and _png_frames(data) > 1


def _gif_blocks(data: bytes) -> Iterator[int]:
    """Yield the first bytes of a GIF's blocks, up to its end. Like decoders, skip bytes between blocks."""
    at = 13 + _colours(data[10]) if len(data) > 10 else len(data)
    for _ in range(MOST_BLOCKS):
        if at >= len(data):
            return
        sign = data[at]
        if sign == _GIF_EXTENSION:
            at = _after_pieces(data, at + 2)
        elif sign == _GIF_FRAME and at + 9 < len(data):
            at = _after_pieces(data, at + 11 + _colours(data[at + 9]))
        else:
            at += 1
        if at <= len(data):
            yield sign
        if sign == _GIF_END:
            return


def _colours(flags: int) -> int:
    """Return the size of a color table in bytes."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_pieces(data: bytes, at: int) -> int:
    """Return the end of a block that has pieces of up to 255 bytes; beyond the end of the data if it is cut off."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _png_frames(data: bytes) -> int:
    """Return the number of frames that an animated PNG declares before the image data."""
    controls = (at for name, at in _png_chunks(data) if name == b"acTL")
    at = next(controls, None)
    return 1 if at is None else int.from_bytes(data[at + 8 : at + 12], "big")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the name and position of each chunk of a PNG, up to the image data."""
    at = len(_PNG)
    while at + 12 <= len(data) and (name := data[at + 4 : at + 8]) != b"IDAT":
        yield name, at
        at += 12 + int.from_bytes(data[at : at + 4], "big")
