"""How long a recording is, in seconds, from its own heads."""

from __future__ import annotations

from pipeline.errors import MediaError
from pipeline.media.sniff import is_mp3_frame

#: kilobits a second by the index in a frame's head, of layer III: MPEG 1, and MPEG 2 and 2.5
_KBPS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
#: samples a second by the version's bits in a frame's head
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def seconds_of(data: bytes, mime: str, name: str) -> float:
    """The recording's length. Raises MediaError for one that holds no sound."""
    found = _wav_s(data) if mime == "audio/wav" else _mp3_s(data)
    if not found:
        raise MediaError(f"{name} holds no sound: a damaged {'wav' if mime == 'audio/wav' else 'mp3'}")
    return found


def _wav_s(data: bytes) -> float:
    order = "big" if data.startswith(b"RIFX") else "little"
    at, bytes_a_second = 12, 0
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], order)  # type: ignore[arg-type]
        if kind == b"fmt " and at + 20 <= len(data):
            bytes_a_second = int.from_bytes(data[at + 16 : at + 20], order)  # type: ignore[arg-type]
        if kind == b"data" and bytes_a_second:
            # A recorder that writes into a pipe leaves a length that means nothing.
            return min(length, len(data) - at - 8) / bytes_a_second
        at += 8 + length + length % 2
    return 0.0


def _mp3_s(data: bytes) -> float:
    at = _after_tag(data)
    seconds, lost = 0.0, 0
    while at + 4 <= len(data) and lost < 4_096:
        head = data[at : at + 4]
        if not is_mp3_frame(head):
            at, lost = at + 1, lost + 1
            continue
        lost = 0
        version, rate = head[1] >> 3 & 3, head[2] >> 2 & 3
        hertz, kbps = _RATES[version][rate], _KBPS[version != 3][head[2] >> 4]
        samples = 1_152 if version == 3 else 576
        at += samples // 8 * kbps * 1_000 // hertz + (head[2] >> 1 & 1)
        seconds += samples / hertz
    return seconds


def _after_tag(data: bytes) -> int:
    """Where the sound begins: behind an ID3 tag, whose length is written in 7 bits a byte."""
    if not data.startswith(b"ID3") or len(data) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << 7 * place for place, byte in enumerate(reversed(data[6:10])))
