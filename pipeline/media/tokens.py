"""Estimates the tokens of media, by the rules of OpenAI's documentation as of September and October 2026.

Images: developers.openai.com/api/docs/guides/images-vision, "Model sizing behavior" and "Calculating costs". Newer
models cover an image with patches of 32 x 32 pixels, within a budget of patches that depends on the detail, and
multiply their count. Older models count tiles of 512 pixels. Audio: .../guides/realtime-costs, one token per 100 ms of
user audio. Whatever is not documented (other makers' models, documents sent as files) is a guess, and marked as one.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from pipeline.media.sniff import Size

PATCH = 32
#: In low detail, an image may have as many patches as 512 x 512 pixels.
LOW_SIDE = 512
HIGH_PATCHES = 2_500
#: Models that do not scale images down refuse an image with more patches.
MOST_PATCHES = 30_000
AUDIO_TOKENS_A_SECOND = 10.0
#: For a page of a document that is sent as a file: its text and its image. A guess.
PAGE_TOKENS = 3_000
#: The factors from the estimate to the limit: for documented rules, and for guesses.
SURE, UNSURE = 1.1, 3.0

_VERSION = re.compile(r"gpt-(\d+)(?:\.(\d+))?")
_SMALL = re.compile(r"(gpt-5|gpt-5\.4|gpt-4\.1)-(mini|nano)|o4-mini")
#: Models that count tiles: the cost of an image, and of each tile.
_TILES = (
    (re.compile(r"gpt-4o-mini"), 2_833, 5_667),
    (re.compile(r"gpt-4(o|\.1|\.5)"), 85, 170),
    (re.compile(r"gpt-5(-chat|-20|$)"), 70, 140),
    (re.compile(r"\bo[13]\b"), 75, 150),
)


@dataclass(frozen=True, slots=True)
class TokenCost:
    """Tokens: the estimate, and the most that it can be."""

    tokens: int = 0
    most: int = 0

    def __add__(self, other: TokenCost) -> TokenCost:
        return TokenCost(self.tokens + other.tokens, self.most + other.most)


@dataclass(frozen=True, slots=True)
class _Patches:
    """A model's rule. `high` and `full` are (patches, longest side); `auto` is the detail that "auto" means."""

    times: float
    high: tuple[int, int]
    full: tuple[int, int]
    auto: str


def image_cost(size: Size | None, detail: str, model: str) -> TokenCost:
    """Return the cost of an image. `size` is None if only the server sees the image."""
    for pattern, base, tile in _TILES:
        if pattern.search(model):
            tokens = base if detail == "low" else base + tile * _tiles(size)
            return _documented_cost(tokens)
    rule = _rule_of(model)
    if size is None:
        return _cost_of_unknown_size(rule, detail)
    tokens = math.ceil(_patches(size, detail, rule) * rule.times)
    is_known = _VERSION.search(model) or _SMALL.search(model)
    return _documented_cost(tokens) if is_known else TokenCost(tokens, math.ceil(tokens * UNSURE))


def audio_cost(seconds: float) -> TokenCost:
    """Return the cost of a recording."""
    return _documented_cost(math.ceil(seconds * AUDIO_TOKENS_A_SECOND) + 2)


def document_cost(pages: int) -> TokenCost:
    """Guess the cost of a document that is sent as a file."""
    return TokenCost(pages * PAGE_TOKENS, math.ceil(pages * PAGE_TOKENS * UNSURE))


def _documented_cost(tokens: int) -> TokenCost:
    return TokenCost(tokens, math.ceil(tokens * SURE))


def _rule_of(model: str) -> _Patches:
    high = (HIGH_PATCHES, 2_048)
    if small := _SMALL.search(model):
        times = {"mini": 1.62, "nano": 2.46}.get(small[2] or "", 1.72)
        return _Patches(times, (1_536, 2_048), (1_536, 2_048), "high")
    match = _VERSION.search(model)
    version = (int(match[1]), int(match[2] or 0)) if match else (6, 0)
    if version >= (5, 6):
        return _Patches(1.2, (HIGH_PATCHES, 65_535), (MOST_PATCHES, 65_535), "original")
    if version >= (5, 4):
        return _Patches(1.2, high, (10_000, 6_000), "original" if version == (5, 5) else "high")
    return _Patches(1.2, (1_536, 2_048), (1_536, 2_048), "high")


def _patches(size: Size, detail: str, rule: _Patches) -> int:
    level = rule.auto if detail == "auto" else detail
    if level == "low":
        scaled = scale_to_fit(size, side=LOW_SIDE)
    else:
        patches, side = rule.high if level == "high" else rule.full
        scaled = scale_to_fit(size, side=side, patches=patches)
    return patches_of(scaled)


def _cost_of_unknown_size(rule: _Patches, detail: str) -> TokenCost:
    """Return the cost of an image of unknown size: estimated as a usual photo, and at most what its detail allows."""
    level = rule.auto if detail == "auto" else detail
    most = {"low": (LOW_SIDE // PATCH) ** 2, "high": rule.high[0]}.get(level, rule.full[0])
    return TokenCost(math.ceil(min(most, HIGH_PATCHES) * rule.times), math.ceil(most * rule.times * SURE))


def patches_of(size: Size) -> int:
    """Return the number of patches that cover an image."""
    return math.ceil(size.width / PATCH) * math.ceil(size.height / PATCH)


def _tiles(size: Size | None) -> int:
    """Return the tiles of 512 pixels, after the server has scaled to at most 2,048, and 768 on the short side."""
    scaled = Size(2_048, 768) if size is None else scale_to_fit(size, side=2_048)
    scale = min(1.0, 768 / max(1, min(scaled.width, scaled.height)))
    return math.ceil(scaled.width * scale / 512) * math.ceil(scaled.height * scale / 512)


def scale_to_fit(size: Size, *, side: int | None = None, patches: int | None = None, pixels: int | None = None) -> Size:
    """Return the size within all limits, with the same shape and never larger than before."""
    scale = 1.0
    if side is not None:
        scale = min(scale, side / max(size.width, size.height))
    if pixels is not None:
        scale = min(scale, math.sqrt(pixels / size.pixels))
    if patches is not None and patches_of(_scale(size, scale)) > patches:
        scale = min(scale, _patch_scale(size, patches))
    return _scale(size, scale)


def _patch_scale(size: Size, patches: int) -> float:
    """Apply the documentation's formula: shrink by area, then once more to whole patches."""
    scale = math.sqrt(PATCH**2 * patches / size.pixels)
    wide, high = size.width * scale / PATCH, size.height * scale / PATCH
    if wide < 1 or high < 1:  # a strip whose short side is one patch
        return min(1.0, PATCH * patches / max(size.width, size.height))
    return scale * min(math.floor(wide) / wide, math.floor(high) / high)


def _scale(size: Size, scale: float) -> Size:
    if scale >= 1:
        return size
    return Size(max(1, int(size.width * scale + 1e-6)), max(1, int(size.height * scale + 1e-6)))
