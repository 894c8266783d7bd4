"""What may be written to a terminal: text from records, labels and servers without the signs that steer it."""

from __future__ import annotations

import re

#: C0 but tab and newline, DEL, C1, the marks that change a line's direction, line separators, and halves of a pair of
#: surrogates, which no stream can encode. Written into a terminal they move the cursor, set its title, reorder a line.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def shown(text: str) -> str:
    r"""`text` with each control character spelled out, such as `\x1b`; tabs and newlines stay.

    Colors are added after this, never before.
    """
    return _STEERING.sub(_spelled, text)


def shown_json(text: str) -> str:
    r"""A JSON text of the same value, in which control characters are escaped as `\u009b` is."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
