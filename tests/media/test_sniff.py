"""What bytes are, by the bytes."""

from __future__ import annotations

import io
import wave
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import animated, gif, huge_png, jpeg, mp3, pdf, picture, wav
from PIL import Image

from pipeline.errors import MediaError
from pipeline.media.audio import duration_s
from pipeline.media.sniff import MOST_PIXELS, TYPES, Size, detect_type, require_type, validate_image

WHOLE = {
    "image/png": picture("PNG"),
    "image/jpeg": jpeg(),
    "image/gif": picture("GIF"),
    "image/webp": picture("WEBP"),
    "audio/wav": wav(),
    "audio/mpeg": mp3(),
    "application/pdf": pdf(),
}


@pytest.mark.parametrize("mime", WHOLE)
def test_types_are_known_by_their_bytes(mime: str) -> None:
    assert detect_type(WHOLE[mime]) == mime


def test_every_type_is_tried_here() -> None:
    assert set(WHOLE) == {mime for kind in TYPES.values() for mime in kind}


def test_a_sound_without_a_tag_is_known_too() -> None:
    assert detect_type(mp3(tag=False)) == "audio/mpeg"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is text"),
        (b"\x00\x01\x02", "of no type that is known"),
        (wav(), "is audio/wav"),
        (b"\xff\xd8", "of no type"),
    ],
)
def test_anything_else_is_refused_with_what_it_is(data: bytes, told: str) -> None:
    with pytest.raises(MediaError, match=told) as caught:
        require_type(data, "image", "'a.jpg'")
    assert "'a.jpg'" in str(caught.value)
    assert "jpeg" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("GIF", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": b"Exif\0\0" + b"\xff\xd9" * 20}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM"}),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (640, 33), (33, 640)])
def test_sizes_are_those_that_a_decoder_finds(kind: str, options: dict[str, object], size: tuple[int, int]) -> None:
    data = picture(kind, size, noise=True, **options)
    found = validate_image(data, detect_type(data) or "", "x")
    with Image.open(io.BytesIO(data)) as image:
        assert found == Size(*image.size) == Size(*size)


def test_200_megapixels_are_refused_by_the_head_alone() -> None:
    data = huge_png()
    assert len(data) < 200
    with pytest.raises(MediaError, match=r"20000 x 10000 pixels, 200 megapixels; at most 89"):
        validate_image(data, "image/png", "x")
    assert (Image.MAX_IMAGE_PIXELS or 0) > MOST_PIXELS  # Pillow would warn


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_picture_that_is_cut_off_is_refused(kind: str, share: float) -> None:
    data = picture(kind, (300, 300), noise=True)
    data = data[: int(len(data) * share)]
    with pytest.raises(MediaError, match=r"cut off|no size"):
        validate_image(data, detect_type(data) or "", "x")


def test_what_cameras_put_behind_a_picture_is_no_fault() -> None:
    assert validate_image(jpeg() + b"\0" * 5_000, "image/jpeg", "x") == Size(64, 48)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_what_moves_is_refused(kind: str) -> None:
    data = animated(kind)
    with pytest.raises(MediaError, match="animated"):
        validate_image(data, detect_type(data) or "", "x")


@pytest.mark.parametrize("controls", [(False, False), (True, False), (False, True)])
def test_a_gif_moves_without_a_word_before_each_frame(controls: tuple[bool, bool]) -> None:
    """Frames count, not the extensions that may stand before them."""
    whole = gif(*controls)
    with Image.open(io.BytesIO(whole)) as image:
        assert image.n_frames == 2
    with pytest.raises(MediaError, match="animated"):
        validate_image(whole, "image/gif", "x")


@pytest.mark.parametrize("options", [{}, {"disposal": 2}, {"comment": b"!\xf9\x04\0\0\0\0\0,;" * 30}])
@pytest.mark.parametrize("colours", [("red", "blue"), ("red", "red"), ("red",)])
def test_a_gif_has_as_many_frames_as_a_decoder_finds(colours: tuple[str, ...], options: dict[str, Any]) -> None:
    out = io.BytesIO()
    first, *more = [Image.new("RGB", (9, 9), colour) for colour in colours]
    first.save(out, "GIF", save_all=True, append_images=more, duration=9, **options)
    with Image.open(io.BytesIO(out.getvalue())) as image:
        moves = image.n_frames > 1
    if moves:
        with pytest.raises(MediaError, match="animated"):
            validate_image(out.getvalue(), "image/gif", "x")
    else:
        assert validate_image(out.getvalue(), "image/gif", "x") == Size(9, 9)


def test_a_semicolon_is_no_end_of_a_gif() -> None:
    data = gif(False, False)
    with pytest.raises(MediaError, match="cut off"):
        validate_image(data[: data.index(b",", 13) + 12] + b";;;;", "image/gif", "x")


def test_a_png_of_one_frame_does_not_move() -> None:
    data = animated("PNG")
    at = data.index(b"acTL") + 4
    assert validate_image(data[:at] + b"\0\0\0\1" + data[at + 4 :], "image/png", "x") == Size(32, 32)


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 400), st.binary(max_size=40), st.integers(1, 2_000))
def test_damaged_bytes_give_a_media_error_or_an_answer(mime: str, at: int, junk: bytes, length: int) -> None:
    """No bytes make anything but a MediaError."""
    data = (WHOLE[mime][:at] + junk + WHOLE[mime][at + len(junk) :])[:length]
    found = detect_type(data)
    try:
        if found in TYPES["image"]:
            validate_image(data, found, "x")
        elif found in TYPES["audio"]:
            assert duration_s(data, found, "x") > 0
    except MediaError:
        pass


def test_a_recording_that_says_it_is_days_long_is_refused() -> None:
    slow = bytearray(wav(30.0))
    slow[28:32] = (1).to_bytes(4, "little")  # bytes a second
    with pytest.raises(MediaError, match="133 hours long"):
        duration_s(bytes(slow), "audio/wav", "x")


def test_recordings_have_their_length() -> None:
    assert duration_s(wav(2.5), "audio/wav", "x") == pytest.approx(2.5)
    assert duration_s(mp3(100), "audio/mpeg", "x") == pytest.approx(100 * 1152 / 44_100)


def test_a_recorder_that_wrote_into_a_pipe_left_no_length() -> None:
    data = bytearray(wav(1.0))
    data[40:44] = b"\xff\xff\xff\xff"
    assert duration_s(bytes(data), "audio/wav", "x") == pytest.approx(1.0)


@pytest.mark.parametrize(("data", "mime"), [(wav()[:20], "audio/wav"), (b"ID3\x04\0\0\0\0\0\x00", "audio/mpeg")])
def test_no_sound_is_told(data: bytes, mime: str) -> None:
    with pytest.raises(MediaError, match="contains no audio"):
        duration_s(data, mime, "x")


def test_a_recording_that_is_cut_off_is_told() -> None:
    data = wav(2.0)
    with pytest.raises(MediaError, match=r"cut off: it says 32,000 bytes of audio and contains 23,000"):
        duration_s(data[:-9_000], "audio/wav", "x")
    assert duration_s(data[:-44], "audio/wav", "x") == pytest.approx(2.0, rel=0.01)  # the heads were counted too


@pytest.mark.parametrize("length", [0, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF])
def test_a_length_that_no_recorder_knew_is_no_fault(length: int) -> None:
    data = bytearray(wav(1.0))
    data[4:8] = (length + 36 & 0xFFFF_FFFF).to_bytes(4, "little")
    data[40:44] = length.to_bytes(4, "little")
    assert duration_s(bytes(data), "audio/wav", "x") == pytest.approx(1.0)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 7, 8_001])
def test_what_python_writes_is_taken(channels: int, width: int, frames: int) -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(8_000)
        file.writeframes(b"\1" * frames * channels * width)
    for data in (out.getvalue(), out.getvalue() + b"LIST\4\0\0\0abcd"):
        assert duration_s(data, "audio/wav", "x") == pytest.approx(frames / 8_000)


def test_a_recording_of_nothing_is_told_whatever_stands_behind_it() -> None:
    data = bytearray(wav(0.0) + b"LIST\4\0\0\0abcd")
    data[4:8] = (len(data) - 8).to_bytes(4, "little")
    with pytest.raises(MediaError, match="contains no audio"):
        duration_s(bytes(data), "audio/wav", "x")


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfb" + b"hello" * 100, b"\xff\xfb\x90\x00" * 500, b"ID3\4\0\0\0\0\0\0" + b"\xff\xfb" + b"hello" * 100],
)
def test_four_bytes_like_a_frame_are_no_sound(data: bytes) -> None:
    assert detect_type(data) == "audio/mpeg"
    with pytest.raises(MediaError, match="contains no audio"):
        duration_s(data, "audio/mpeg", "x")


@pytest.mark.parametrize("head", [b"\xff\xfb\x90\x00", b"\xff\xfa\x92\x44", b"\xff\xf3\x40\xc0", b"\xff\xe3\x18\xc4"])
@pytest.mark.parametrize("frames", [1, 2, 50])
@pytest.mark.parametrize("tail", [b"", b"TAG" + b"x" * 125, b"APETAGEX" + b"\0" * 24])
def test_frames_in_a_row_are_sound(head: bytes, frames: int, tail: bytes) -> None:
    """MPEG 1, 2 and 2.5, with a checksum and padding too; of a real one each frame has a rate of its own."""
    length, frame_s = {
        b"\xff\xfb\x90\x00": (417, 1152 / 44_100),
        b"\xff\xfa\x92\x44": (418, 1152 / 44_100),
        b"\xff\xf3\x40\xc0": (104, 576 / 22_050),
        b"\xff\xe3\x18\xc4": (72, 576 / 8_000),
    }[head]
    data = (head + b"\x55" * (length - 4)) * frames + tail
    assert duration_s(data, "audio/mpeg", "x") == pytest.approx(frames * frame_s)


def test_a_row_that_is_broken_goes_on_behind_it() -> None:
    data = mp3(50, tag=False) + b"\0" * 333 + mp3(50, tag=False)
    assert duration_s(data + mp3(1, tag=False)[:200], "audio/mpeg", "x") == pytest.approx(101 * 1152 / 44_100, rel=0.02)
