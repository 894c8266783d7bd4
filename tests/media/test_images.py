"""Pictures: smaller, upright, in plain colours; their own bytes where nothing has to be done."""

from __future__ import annotations

import io

import pytest
from media_files import jpeg, pdf, picture, turned_jpeg
from PIL import Image

from pipeline.errors import MediaError
from pipeline.media.images import EncodedImage, fit_image, target_size, work_bytes
from pipeline.media.pdf import count_pages, render_pages
from pipeline.media.sniff import Size, detect_type, validate_image


def scaled(data: bytes, detail: str = "high", max_pixels: int | None = None) -> EncodedImage:
    mime = detect_type(data)
    assert mime is not None
    size = validate_image(data, mime, "x")
    return fit_image(data, mime, size, target_size(size, detail, max_pixels), "x")


def decoded(found: EncodedImage) -> Image.Image:
    image = Image.open(io.BytesIO(found.data))
    image.load()
    assert detect_type(found.data) == found.mime
    assert Size(*image.size) == found.size
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_what_is_small_enough_goes_as_it_is(kind: str) -> None:
    data = picture(kind, (300, 200), noise=True)
    assert scaled(data).data is data


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize(
    ("detail", "size", "most"), [("low", (900, 600), 512 * 512), ("high", (2_100, 1_400), 2_500 * 32 * 32)]
)
def test_what_is_larger_than_the_detail_is_made_smaller(
    kind: str, detail: str, size: tuple[int, int], most: int
) -> None:
    found = scaled(picture(kind, size), detail)
    image = decoded(found)
    assert most * 0.6 < image.width * image.height <= most
    assert image.width / image.height == pytest.approx(1.5, rel=0.01)


def test_original_and_auto_keep_the_size_up_to_what_servers_refuse() -> None:
    data = picture("JPEG", (3_000, 2_000))
    assert scaled(data, "original").data is data
    assert scaled(data, "auto").data is data
    assert target_size(Size(8_000, 6_000), "original", None).pixels <= 30_000 * 32 * 32


def test_max_pixels_holds_beside_the_detail() -> None:
    found = scaled(jpeg((3_000, 2_000)), "high", 100_000)
    assert 90_000 < found.size.pixels <= 100_000


def test_pictures_are_turned_upright() -> None:
    image = decoded(scaled(turned_jpeg((64, 32), 6))).convert("RGB")
    assert image.size == (32, 64)
    red, white = image.getpixel((16, 5)), image.getpixel((16, 60))
    assert red[1] < 60 < 200 < white[1]
    assert image.getexif().get(0x0112, 1) == 1


def test_pictures_are_turned_after_they_were_made_smaller() -> None:
    found = scaled(turned_jpeg((4_000, 2_000), 6), "low")
    assert found.size == Size(256, 512)
    decoded(found)


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "1", "P", "LA", "RGBA", "L"])
def test_every_colour_mode_becomes_one_that_models_take(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    out = io.BytesIO()
    Image.new(mode, (1_000, 1_000)).save(out, kind)
    image = decoded(scaled(out.getvalue(), "low"))
    assert image.mode in ("RGB", "L", "RGBA", "LA")


def test_cmyk_is_changed_even_where_it_is_small() -> None:
    assert decoded(scaled(picture("JPEG", (60, 60), "CMYK"))).mode == "RGB"


def test_16_bits_are_scaled_not_cut() -> None:
    out = io.BytesIO()
    Image.new("I;16", (60, 60), 32_768).save(out, "PNG")
    assert decoded(scaled(out.getvalue())).getpixel((3, 3)) == pytest.approx(128, abs=2)


def test_an_alpha_channel_is_kept() -> None:
    data = picture("PNG", (1_500, 1_500), "RGBA")
    found = scaled(data, "low")
    assert (found.mime, decoded(found).mode) == ("image/png", "RGBA")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_bytes_that_are_damaged_within_are_told(kind: str) -> None:
    data = bytearray(picture(kind, (1_000, 1_000), noise=True))
    for at in range(len(data) // 3, len(data) // 3 + 5_000):
        data[at] = 0xFF
    try:
        decoded(scaled(bytes(data), "low"))  # some damage is seen only as stripes
    except MediaError as error:
        assert "cannot be decoded" in str(error)  # noqa: PT017 - either is right


def test_a_jpeg_is_decoded_at_a_fraction_of_its_size() -> None:
    photo = Size(4_000, 3_000)
    assert work_bytes(photo, "image/jpeg", Size(512, 384)) < work_bytes(photo, "image/jpeg", photo) / 4
    assert work_bytes(photo, "image/png", Size(512, 384)) == 6 * photo.pixels


def test_pages_are_drawn_within_the_bound() -> None:
    pages = render_pages(pdf(3), "x", dpi=144, bound=Size(2_048, 2_048), most=5, pages=None)
    assert [page.size for page in pages] == [Size(400, 200)] * 3
    large = render_pages(pdf(1, (14_000, 14_000)), "x", dpi=300, bound=Size(512, 512), most=5, pages=None)
    assert large[0].size.width <= 513
    decoded(large[0])
    assert count_pages(pdf(7), "x") == 7


def test_too_many_pages_are_told_and_the_first_ones_can_be_taken() -> None:
    with pytest.raises(MediaError, match=r"x has 6 pages; task.media.pdf_pages allows 5"):
        render_pages(pdf(6), "x", dpi=72, bound=Size(100, 100), most=5, pages=None)
    assert len(render_pages(pdf(6), "x", dpi=72, bound=Size(100, 100), most=5, pages=2)) == 2


@pytest.mark.parametrize("data", [b"%PDF-1.7\n", b"%PDF-1.4 nothing", pdf()[:200]])
def test_a_damaged_document_is_told(data: bytes) -> None:
    with pytest.raises(MediaError, match="cannot be read as a PDF"):
        render_pages(data, "x", dpi=72, bound=Size(100, 100), most=5, pages=None)
