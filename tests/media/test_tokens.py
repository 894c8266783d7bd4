"""What media cost, by the examples of OpenAI's documentation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.sniff import Size
from pipeline.media.tokens import MOST_PATCHES, audio_cost, document_cost, image_cost, patches_of, scale_to_fit


@pytest.mark.parametrize(
    ("size", "detail", "model", "tokens"),
    [
        # The guide's own: 1,024 patches and 1,452 patches under a budget of 1,536, times 1.62.
        ((1024, 1024), "high", "gpt-5-mini", 1659),
        ((1800, 2400), "high", "gpt-5-mini", 2353),
        ((1800, 2400), "high", "gpt-5-nano", 3572),
        # The guide's own for tiles: 765 and 1,105; 85 in low detail.
        ((1024, 1024), "high", "gpt-4o", 765),
        ((2048, 4096), "high", "gpt-4o", 1105),
        ((4096, 8192), "low", "gpt-4o", 85),
        ((1024, 1024), "high", "gpt-4o-mini", 2833 + 4 * 5667),
        # From gpt-5.6 on: times 1.2, and "auto" keeps the size.
        ((640, 480), "high", "gpt-6-luna", 360),
        ((640, 480), "low", "gpt-6-luna", 231),
        ((1280, 720), "low", "gpt-6-luna", 173),
        ((4000, 3000), "auto", "gpt-6-luna", 14_100),
        ((4000, 3000), "high", "gpt-6-luna", 2942),
        ((4000, 3000), "auto", "openai/gpt-5.6-sol", 14_100),
        ((4000, 3000), "auto", "gpt-5.4", 2942),
    ],
)
def test_pictures_cost_what_the_documentation_says(size: tuple[int, int], detail: str, model: str, tokens: int) -> None:
    cost = image_cost(Size(*size), detail, model)
    assert cost.tokens == pytest.approx(tokens, rel=0.005)
    assert cost.most >= cost.tokens


def test_a_picture_that_only_the_server_sees_is_bounded_by_its_detail() -> None:
    assert image_cost(None, "low", "gpt-6-luna").most < 400
    assert image_cost(None, "high", "gpt-6-luna").most >= 3_000
    assert image_cost(None, "original", "gpt-6-luna").most >= 1.2 * MOST_PATCHES
    assert image_cost(None, "high", "gpt-4o").most >= 1_445


def test_a_model_that_nobody_knows_has_a_wide_bound() -> None:
    cost = image_cost(Size(640, 480), "high", "llava-next")
    assert cost.most >= 2 * cost.tokens > 0


def test_sound_is_counted_by_the_second_and_documents_by_the_page() -> None:
    assert audio_cost(60).tokens == 602
    assert document_cost(3).most > document_cost(3).tokens > document_cost(1).tokens


@given(st.integers(1, 60_000), st.integers(1, 60_000), st.sampled_from([256, 1_536, 2_500, 30_000]))
def test_what_is_fitted_keeps_within_the_patches(width: int, height: int, patches: int) -> None:
    size = Size(width, height)
    found = scale_to_fit(size, patches=patches)
    assert patches_of(found) <= max(patches, max(width, height) // 32 if patches_of(size) <= patches else patches)
    assert found.width <= width
    assert found.height <= height
    if patches_of(size) <= patches:
        assert found == size


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_what_is_fitted_keeps_its_shape(width: int, height: int) -> None:
    found = scale_to_fit(Size(width, height), side=512, pixels=100_000)
    assert max(found.width, found.height) <= 512
    assert found.pixels <= 100_000 or 1 in (found.width, found.height)
    assert abs(found.width * height - found.height * width) <= max(width, height) + 1
