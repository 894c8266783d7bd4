"""Detects the encoding of a text, and asks the user if its first bytes do not show it plainly."""

import codecs
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.errors import InputError
from pipeline.readers.compression import Inflater, detect
from pipeline.readers.dialect import LOOK_BYTES
from pipeline.readers.rows import BrokenStreamError

#: Byte order mark -> encoding. The longer marks come first.
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
#: How much of a file is read for its beginning: a text that is compressed in large blocks may need as much.
_BEGINNING_BYTES = 1024 * 1024
#: Bytes that are rare in text. \x01 and \x1e to \x1f separate cells and records, and \x1b begins a color.
_CONTROLS = bytes({*range(9), *range(14, 32)} - {1, 0x1B, 0x1E, 0x1F})
_FEW_CONTROLS = 8
#: Encodings without a mark, in the order in which they are tried -> nearly all of their letters.
_REGIONAL = {
    "shift_jis": re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\u3000-\u303f]"),
    "cp949": re.compile(r"[\uac00-\ud7a3]"),
    "gb18030": re.compile(r"[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]"),
    "cp1251": re.compile(r"(?<=[\u0400-\u04ff])[\u0400-\u04ff]|[\u0400-\u04ff](?=[\u0400-\u04ff])"),
    "cp1252": re.compile(r"[^\W\d_]|[€‚„…‘’“”•–—™©«»°£§¿¡®]"),
}


def canonical_encoding(name: str) -> str:
    """Return the canonical name of an encoding. Raises InputError if there is none with this name."""
    try:
        codec_info = codecs.lookup(name)
        codecs.getincrementaldecoder(name)
        " ".encode(name)  # refuses codecs that are not text encodings, like base64
    except (LookupError, ValueError):
        raise InputError(
            f"input.encoding: {name!r} is not a known encoding; try utf-8, utf-16, cp949, latin-1"
        ) from None
    return "utf-8" if codec_info.name == "utf-8-sig" else codec_info.name


def detect_encoding(head: bytes, requested: str | None, name: str) -> str:
    """Return the encoding of a text that begins with `head`: the requested one, or the one that is plainly visible.

    Raises InputError, which names the key to set, if none is plain or the requested one is wrong.
    """
    by_bom = next((encoding for mark, encoding in _BOMS.items() if head.startswith(mark)), None)
    if requested is not None:
        canonical = canonical_encoding(requested)
        if canonical == "utf-8" and by_bom not in (None, "utf-8"):
            raise InputError(f'{name}: begins with the mark of {by_bom}; set input.encoding = "{by_bom}"')
        return canonical
    if by_bom is not None:
        return by_bom
    sample = head[:LOOK_BYTES]
    if b"\0" in sample and (wide := _detect_utf16(sample)):
        raise InputError(f'{name}: looks like UTF-16 without a byte order mark; set input.encoding = "{wide}"')
    if controls := _many_controls(sample):
        raise InputError(
            f"{name}: is not text: {controls:,} of its first {len(sample):,} bytes are control characters. Name a file "
            "of text, or set input.encoding if it is written in one like utf-16-le"
        )
    _refuse_regional(sample, whole=len(head) < LOOK_BYTES, name=name)
    return "utf-8"


def read_text_head(path: Path) -> str:
    """Return the beginning of a file, which may be compressed, as text. Its faults are reported when it is read.

    Raises OSError.
    """
    with path.open("rb") as file:
        head = file.read(_BEGINNING_BYTES)
    encoding = "utf-8"
    with suppress(InputError, BrokenStreamError):
        if kind := detect(head, path.name):
            head = next(Inflater(kind).feed(head), (b"", 0))[0]
        encoding = detect_encoding(head, None, path.name)
    return head[:LOOK_BYTES].decode(encoding, "replace").removeprefix("\ufeff")


def looks_like_text(head: bytes) -> bool:
    """Whether this is the beginning of a text in any encoding."""
    return head.startswith(tuple(_BOMS)) or not _many_controls(head[:LOOK_BYTES])


def _many_controls(sample: bytes) -> int:
    """Return the number of control characters if it is too large for text in any encoding, otherwise 0."""
    count = len(sample) - len(sample.translate(None, _CONTROLS))
    return count if count > max(_FEW_CONTROLS, len(sample) // 20) else 0


def _detect_utf16(sample: bytes) -> str | None:
    """Return utf-16-le or utf-16-be if it decodes bytes with zeros among them to text; otherwise None."""
    for encoding in ("utf-16-le", "utf-16-be"):
        text = sample[: len(sample) // 2 * 2].decode(encoding, "replace")
        plain = len(re.findall(r"[\t\n\r -~]", text))
        # Half of it is ASCII, or it has lines and is not UTF-8. A stray zero causes neither.
        if not re.search(r"[\0-\x08\x0e-\x1f\ufffd]", text[:-1]) and (
            plain > len(text) / 2 or ("\n" in text and not _is_utf8(sample))
        ):
            return encoding
    return None


def _refuse_regional(sample: bytes, *, whole: bool, name: str) -> None:
    """Raise InputError if several lines go beyond ASCII and none of them is UTF-8: that is another encoding."""
    lines = sample.split(b"\n")
    if not whole and len(lines) > 1:
        del lines[-1]
    odd = [(number, line) for number, line in enumerate(lines, 1) if not line.isascii()]
    if len(odd) < 2 or any(map(_is_utf8, (line for _, line in odd))):
        return
    guess = _guess_encoding(b"\n".join(line for _, line in odd))
    number, line = odd[0]
    if guess is None:
        advice = "set input.encoding to the one it is written in, like cp1252, cp949, shift_jis or gb18030"
    else:
        text = line.decode(guess)
        at = next(index for index, char in enumerate(text) if not char.isascii())
        excerpt = text[max(0, at - 15) : at + 15].strip()
        advice = f'as {guess} line {number} reads {excerpt!r}; set input.encoding = "{guess}" if that is right'
    raise InputError(
        f"{name}: is not UTF-8 (none of the first {len(odd)} lines with letters beyond ASCII is): {advice}. "
        'With input.encoding = "utf-8" such lines are rejected'
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _guess_encoding(data: bytes) -> str | None:
    runs = re.findall(rb"[\x80-\xff]+", data)
    # Western European letters stand alone between ASCII letters. All others have neighbors, or two bytes.
    alone = sum(len(run) == 1 for run in runs) > len(runs) / 4
    for encoding, letters in _REGIONAL.items():
        if alone and encoding != "cp1252":
            continue
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        odd = [char for char in text if not char.isascii()]
        if odd and len(letters.findall(text if encoding == "cp1251" else "".join(odd))) >= 0.9 * len(odd):
            return encoding
    return None


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Return lone surrogates for bytes that cannot be decoded. Python's own handler omits bytes below 128."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


ESCAPE = "labelpipe.escape"
codecs.register_error(ESCAPE, _escape)


def utf8_converter(encoding: str, name: str) -> Callable[[bytes, bool], bytes]:
    """Return a function that converts blocks to UTF-8. Bytes that are not in the encoding become invalid UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)(errors=ESCAPE)

    def decode(block: bytes, final: bool) -> bytes:
        try:
            # The surrogates of escaped bytes become invalid UTF-8, so that the line with them is unreadable.
            return decoder.decode(block, final).encode("utf-8", "surrogatepass")
        except UnicodeError as error:
            hint = f"; write {encoding}-le or {encoding}-be" if encoding in ("utf-16", "utf-32") else ""
            raise InputError(f"{name}: not {encoding} text: {error}{hint}") from error

    return decode
