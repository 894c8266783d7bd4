"""Calculates the length of a recording from its own headers."""

from typing import Literal

from pipeline.errors import MediaError
from pipeline.media.sniff import is_mp3_frame

#: No recording of 20 MB is longer. Its tokens would be reserved, and would delay all other calls.
MOST_S = 24 * 3600
#: Kilobits per second by the index in the header of a layer III frame: MPEG 1, then MPEG 2 and 2.5.
_KBPS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
#: Samples per second by the version bits in the header of a frame.
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
#: Some writers include a WAV's headers in the length of its audio.
_HEADS_BYTES = 44
#: Recorders that do not know the length write one from here on. Nothing so long is ever read.
_ENDLESS_BYTES = 0x7F00_0000
#: What may follow the last frame of an MP3.
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")


def duration_s(data: bytes, mime: str, name: str) -> float:
    """Return the length of the recording. Raises MediaError if it contains no audio, or if its end is missing."""
    seconds = _wav_s(data, name) if mime == "audio/wav" else _mp3_s(data)
    if not seconds:
        raise MediaError(f"{name} contains no audio: a damaged {'wav' if mime == 'audio/wav' else 'mp3'}")
    if seconds > MOST_S:
        raise MediaError(f"{name} says that it is {seconds / 3600:,.0f} hours long; at most {MOST_S // 3600} are sent")
    return seconds


def _wav_s(data: bytes, name: str) -> float:
    order: Literal["big", "little"] = "big" if data.startswith(b"RIFX") else "little"
    at, bytes_a_second = 12, 0
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], order)
        if kind == b"fmt " and at + 20 <= len(data):
            bytes_a_second = int.from_bytes(data[at + 16 : at + 20], order)
        if kind == b"data" and bytes_a_second:
            there = len(data) - at - 8
            # A recorder that writes to a pipe leaves a meaningless length: 0, or one beyond anything that is sent.
            if length == 0:
                whole = int.from_bytes(data[4:8], order) + 8 == len(data)
                return 0.0 if whole else there / bytes_a_second
            if there + _HEADS_BYTES < length < _ENDLESS_BYTES:
                raise MediaError(f"{name} is cut off: it says {length:,} bytes of audio and contains {there:,}")
            return min(length, there) / bytes_a_second
        at += 8 + length + length % 2
    return 0.0


def _mp3_s(data: bytes) -> float:
    """Return the length of all consecutive frames: four bytes that look like the header of a frame may be anything."""
    at = _after_tag(data)
    seconds, lost, in_row = 0.0, 0, False
    while at + 4 <= len(data) and lost < 4_096:
        length, frame_s = _frame(data[at : at + 4])
        in_row = bool(length) and (in_row or _is_followed(data, at, at + length))
        if not in_row:
            at, lost = at + 1, lost + 1
            continue
        lost = 0
        at += length
        seconds += frame_s
    return seconds


def _frame(head: bytes) -> tuple[int, float]:
    """Return the bytes and seconds of the frame that begins like this; 0 if none does."""
    if not is_mp3_frame(head):
        return 0, 0.0
    version, rate = head[1] >> 3 & 3, head[2] >> 2 & 3
    hertz, kbps = _RATES[version][rate], _KBPS[version != 3][head[2] >> 4]
    samples = 1_152 if version == 3 else 576
    return samples // 8 * kbps * 1_000 // hertz + (head[2] >> 1 & 1), samples / hertz


def _is_followed(data: bytes, at: int, end: int) -> bool:
    """Whether a frame of the same kind follows, or the recording ends there, with or without a tag."""
    head = data[end : end + 4]
    same = is_mp3_frame(head) and head[1] & 0xFE == data[at + 1] & 0xFE and head[2] & 0x0C == data[at + 2] & 0x0C
    return same or end == len(data) or data.startswith(_TAGS, end)


def _after_tag(data: bytes) -> int:
    """Return where the audio begins: after an ID3 tag, whose length has 7 bits per byte."""
    if not data.startswith(b"ID3") or len(data) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << 7 * place for place, byte in enumerate(reversed(data[6:10])))
