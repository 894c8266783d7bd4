"""What pictures, sounds and documents in a message cost here: plain numbers, near those of a real server."""

from collections.abc import Mapping
from typing import Any

LOW_IMAGE_TOKENS, IMAGE_TOKENS = 300, 1_500
FILE_TOKENS = 3_000
#: 10 tokens a second, of a recording with 32,000 bytes a second
_SOUND_CHARS_A_TOKEN = 32_000 * 4 // 3 // 10


def shown_tokens(message: Mapping[str, Any]) -> int:
    """The tokens of a message's parts that are no text."""
    content = message.get("content")
    return sum(_tokens(part) for part in content if isinstance(part, dict)) if isinstance(content, list) else 0


def _tokens(part: Mapping[str, Any]) -> int:
    kind = part.get("type")
    inner = part.get(kind) if isinstance(kind, str) else None
    if not isinstance(inner, dict):
        return 0
    if kind == "image_url":
        return LOW_IMAGE_TOKENS if inner.get("detail") == "low" else IMAGE_TOKENS
    if kind == "input_audio":
        return 1 + len(str(inner.get("data", ""))) // _SOUND_CHARS_A_TOKEN
    return FILE_TOKENS if kind == "file" else 0
