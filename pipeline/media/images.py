"""Scales images, turns them upright, and converts their colors to what models accept. Loads Pillow only if needed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pipeline.errors import MediaError
from pipeline.media.sniff import Size
from pipeline.media.tokens import HIGH_PATCHES, LOW_SIDE, MOST_PATCHES, scale_to_fit

if TYPE_CHECKING:
    from PIL import Image

#: EXIF's tag for the position of the camera; 1 is upright.
_ORIENTATION, _UPRIGHT = 0x0112, 1
#: Orientation -> the number of Pillow's transposition that undoes it.
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
#: Color modes that every model accepts unchanged.
_PLAIN_MODES = frozenset({"1", "L", "P", "RGB", "RGBA", "LA"})
_QUALITY = 90
#: For images from lossless formats, so that text in them stays sharp.
_FINE_QUALITY = 95
_MOST_PROFILE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image that is sent: its bytes, their type, and the size when upright."""

    data: bytes
    mime: str
    size: Size


@cache
def has_pillow() -> bool:
    """Whether images can be scaled here."""
    return find_spec("PIL") is not None


def target_size(size: Size, detail: str, max_pixels: int | None) -> Size:
    """Return the size to which an image is scaled down, as the server would for this detail; never larger."""
    bound = {"low": scale_to_fit(size, side=LOW_SIDE), "high": scale_to_fit(size, patches=HIGH_PATCHES)}.get(detail)
    target = bound or scale_to_fit(size, patches=MOST_PATCHES)
    return scale_to_fit(target, pixels=max_pixels) if max_pixels is not None else target


def work_bytes(size: Size, mime: str, target: Size) -> int:
    """Return the most memory for decoding. A JPEG is decoded at 1/2, 1/4, or 1/8 if that is still large enough."""
    if mime != "image/jpeg":
        return 6 * size.pixels
    fraction = 1
    while fraction < 8 and min(size.width, size.height) // (2 * fraction) >= min(target.width, target.height):
        fraction *= 2
    return 4 * size.pixels // fraction**2 + 6 * target.pixels


def fit_image(data: bytes, mime: str, size: Size, target: Size, name: str) -> EncodedImage:
    """Return the image within the target size, or its own bytes if nothing must change. Raises MediaError."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            actual = Size(*image.size)
            if actual.pixels > size.pixels:
                raise ValueError(f"it has {actual.width} x {actual.height} pixels; its header says fewer")  # noqa: TRY301
            turn = image.getexif().get(_ORIENTATION, _UPRIGHT)
            if target == size and turn == _UPRIGHT and image.mode in _PLAIN_MODES:
                return EncodedImage(data, mime, size)
            return _resize(image, mime, target, turn)
    except MemoryError:
        raise
    except Exception as error:  # with hostile bytes, Pillow raises nearly anything
        raise MediaError(f"{name} cannot be decoded: {error}") from None


def encode_image(image: Image.Image, *, lossy: bool) -> EncodedImage:
    """Encode a decoded image as JPEG, or as PNG if it has an alpha channel."""
    keep: dict[str, Any] = {}
    profile = image.info.get("icc_profile")
    if profile and len(profile) <= _MOST_PROFILE_BYTES:
        keep["icc_profile"] = profile
    out = io.BytesIO()
    if image.mode in ("RGB", "L"):
        fine = {} if lossy else {"subsampling": 0}
        image.save(out, "JPEG", quality=_QUALITY if lossy else _FINE_QUALITY, **fine, **keep)
        return EncodedImage(out.getvalue(), "image/jpeg", Size(*image.size))
    image.save(out, "PNG", compress_level=3, **keep)
    return EncodedImage(out.getvalue(), "image/png", Size(*image.size))


def _resize(image: Image.Image, mime: str, target: Size, turn: int) -> EncodedImage:
    from PIL import Image

    if mime != "image/jpeg":
        image = _to_plain_mode(image)  # palettes and 16 bits do not scale well unconverted
    # Scaled before anything else, because libjpeg skips most of the work if it reads at a fraction of the size.
    # reducing_gap=1.0 allows any fraction that is large enough: half the CPU of Pillow's default for the same image.
    image.thumbnail((target.width, target.height), Image.Resampling.LANCZOS, reducing_gap=1.0)
    if turn in _TURNS:
        image = image.transpose(Image.Transpose(_TURNS[turn]))
    return encode_image(_to_plain_mode(image), lossy=mime in ("image/jpeg", "image/webp"))


def _to_plain_mode(image: Image.Image) -> Image.Image:
    """Convert the image to a mode that fits into JPEG or, with an alpha channel, into PNG."""
    if image.mode in ("RGB", "L", "RGBA", "LA"):
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits per pixel: `convert` would clip, not scale
        return image.convert("I").point(lambda value: value / 256).convert("L")
    converted = image.convert("RGB")
    if image.mode == "CMYK":
        converted.info.pop("icc_profile", None)  # it describes inks
    return converted
