"""Writes text for people: without control characters, and without raising errors."""

import io
import logging
import os
import queue
import re
import sys
import threading
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO, cast

log = logging.getLogger("labelpipe")

#: The most lines and drawings that wait for a terminal, and the most drawings. An old drawing is useless.
WAITING_MOST, DRAWINGS_MOST = 200, 8
#: How long the end of a run waits for its last lines to be written.
LAST_WAIT_S = 1.0

#: C0 except tab and newline, DEL, C1, the marks that change a line's direction, line separators, and lone surrogates,
#: which no stream can encode. In a terminal they would move the cursor, set its title, or reorder a line.
_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Write each control character of `text` as an escape, such as `\x1b`; tabs and newlines stay.

    Colors are added after this, never before.
    """
    return text if text.isprintable() else _CONTROL_CHARACTERS.sub(_escape, text)


def printable_json(text: str) -> str:
    r"""Escape control characters in a JSON text, such as `\u009b`, without changing its value."""
    return _CONTROL_CHARACTERS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


# -- how it looks ------------------------------------------------------------------------------------------------------

_RED, _GREEN, _YELLOW, _OFF = "\x1b[1;31m", "\x1b[1;32m", "\x1b[1;33m", "\x1b[0m"
#: What is colored. Words at the beginning of a line are those of labelpipe's own screens.
_PAINT = (
    (re.compile(r"^(FAIL|BAD)(?= )|\bNOT verified\b|\bOUTAGE( since [0-9:]+)?", re.MULTILINE), _RED),
    (re.compile(r"^(ok|Done)(?= |$)", re.MULTILINE), _GREEN),
    (re.compile(r"^(look|Interrupted|Stopped early|Replayed)(?= |:|$)", re.MULTILINE), _YELLOW),
    (re.compile(r"\bSIMULATED( LABELS)?\b|\bPAUSED\b|(?<=[0-9]) simulated\b", re.MULTILINE), _YELLOW),
)
#: A word that is not broken, or a number with its unit, together with the separator before it.
_WORD = re.compile(r"(?:· )?(?:[0-9.,]+ (?:s|ms|min|h|d)\b\S*|\S+)")
#: The names before the text of a line, each with at least two spaces. Continuation lines are indented by their width.
_HANGING = re.compile(r" *(?:\S+(?: \S+)* {2,})*")


def columns_of(stream: TextIO | None) -> int | None:
    """Return the width of the terminal; None if the stream is not a terminal, or does not report it."""
    try:
        return None if stream is None else os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def format_for_stream(text: str, stream: TextIO | None) -> str:
    """Format the text for the stream: a terminal gets lines wrapped between words, and colors."""
    columns = columns_of(stream) if is_terminal(stream) else None
    if columns is not None:
        text = "\n".join(wrap_line(line, columns - 1) for line in text.split("\n"))
    return colorize(text) if supports_color(stream) else text


def supports_color(stream: TextIO | None) -> bool:
    """Whether the stream supports colors and the user wants them (NO_COLOR, no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return is_terminal(stream) and not plain and (os.name == "posix" or "WT_SESSION" in os.environ)


def colorize(text: str) -> str:
    """Color the important parts of the text."""
    for pattern, color in _PAINT:
        text = pattern.sub(lambda match, color=color: f"{color}{match[0]}{_OFF}", text)  # type: ignore[misc]
    return text


def wrap_line(line: str, columns: int) -> str:
    """Wrap the line between words to at most `columns`, with the further lines indented below its text.

    A word that is longer than a line stays whole: it is a path or an address to be copied.
    """
    if width(line) <= columns:
        return line
    start = hanging.end() if (hanging := _HANGING.match(line)) is not None else 0
    lines = [line[:start]]
    is_named = lines[0].strip() and start <= columns // 2
    indent = " " * (start if is_named else len(line) - len(line.lstrip()) + 2)
    parts = re.split(" (?=· )", line[start:])
    fitting = [[part] if width(part) <= columns - len(indent) else _WORD.findall(part) for part in parts]
    for word in (word for part in fitting for word in part):
        gap = "" if lines[-1].endswith(" ") or not lines[-1] else " "
        if lines[-1].strip() and width(lines[-1] + gap + word) > columns:
            lines.append(indent + word)
        else:
            lines[-1] += gap + word
    return "\n".join(lines)


def cut(text: str, columns: int) -> str:
    """Return as many whole words as fit, and a sign if there are more."""
    if width(text) <= columns:
        return text
    words = text.split(" ")
    while words and width(" ".join(words)) + 1 > columns:
        words.pop()
    # One long word has no spaces to cut at.
    return f"{' '.join(words) or text[: max(0, columns - 1)]}…"


def width(text: str) -> int:
    """Return the columns that a text takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(_columns(sign) for sign in text)


def _columns(sign: str) -> int:
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


# -- writing ----------------------------------------------------------------------------------------------------------


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal. False for a closed or missing stream."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


def is_notebook(stream: TextIO | None) -> bool:
    """Whether the stream ends in a notebook cell, where a carriage return works as in a terminal."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def put(stream: TextIO | None, text: str) -> OSError | None:
    """Write `text` and never raise: return the error if nobody reads any more, or the disk is full.

    After an error the stream is redirected to nowhere. Otherwise Python itself would fail at exit, with its own exit
    code.
    """
    if stream is None:
        return None
    try:
        if text:  # an empty write waits for a terminal too, and an empty flush does not
            stream.write(_encodable(text, stream))
        stream.flush()
    except ValueError:  # the stream is closed
        return None
    except OSError as error:
        _redirect_to_null(stream)
        return error
    return None


def _encodable(text: str, stream: TextIO) -> str:
    """Replace characters that the stream's encoding lacks by question marks: an old console, LANG=C."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _redirect_to_null(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def open_missing_streams() -> None:
    """Give a process that was started without stdin, stdout, or stderr an empty one instead.

    Otherwise the first file that is opened gets the number of stderr, and whatever writes there writes into the ledger.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - by the lowest number


def put_soon(stream: TextIO | None, text: str) -> None:
    """Do the same as `put`, but wait only a moment for a stopped terminal."""
    if stream is not None:
        scribe = BackgroundWriter(stream)
        scribe.submit(lambda: put(scribe.stream, text))
        scribe.close()


class BackgroundWriter:
    """Runs work that writes to a stream, in order, in a thread of its own.

    A stopped terminal (Ctrl-S), a dead connection, a pipe that nobody reads, or a full disk blocks or breaks only this
    thread. Work that does not fit into its queue is dropped.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = _unbuffered(stream)
        # Mutable state: the queue, and whether a failure was logged.
        self._work: queue.Queue[Callable[[], object] | None] = queue.Queue(WAITING_MOST)
        self._is_failure_logged = False
        self._thread = threading.Thread(target=self._run, name="labelpipe-display", daemon=True)
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """Whether so much is waiting that a drawing would come too late."""
        return self._work.qsize() >= DRAWINGS_MOST

    def submit(self, work: Callable[[], object]) -> None:
        """Queue the work. Its exceptions are only logged."""
        with suppress(queue.Full):
            self._work.put_nowait(work)

    def log_failure(self, error: Exception) -> None:
        """Log once why nothing can be shown; not to the terminal, where logging goes without a handler."""
        if not self._is_failure_logged and log.hasHandlers():
            log.warning("nothing can be shown", extra={"facts": {"error": repr(error)}})
        self._is_failure_logged = True

    def close(self) -> None:
        """End when the queue is empty, or without waiting any longer; may be called twice."""
        with suppress(queue.Full):
            self._work.put_nowait(None)
        self._thread.join(LAST_WAIT_S)
        if not self._thread.is_alive() and isinstance(self.stream, _UnbufferedStream):
            self.stream.close()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception as error:
                self.log_failure(error)


class _UnbufferedStream(io.TextIOBase):
    """A stream's file without its buffer: a blocked thread would hold the buffer's lock when Python exits.

    It has its own descriptor, because that of a closed stream may be given to another file.
    """

    encoding = "utf-8"

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._number = os.dup(stream.fileno())
        self.encoding = stream.encoding

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, text: str) -> int:
        data = text.encode(self.encoding, "replace")
        while data:
            data = data[os.write(self._number, data) :]
        return len(text)

    def close(self) -> None:
        if not self.closed:
            os.close(self._number)
        super().close()


def _unbuffered(stream: TextIO) -> TextIO:
    """Return the stream's file if it has one; a notebook's stream, or a text in memory, is returned as it is."""
    # A Windows console wants text, not bytes.
    if os.name == "posix" and isinstance(stream, io.TextIOWrapper):
        with suppress(OSError, ValueError):
            return cast("TextIO", _UnbufferedStream(stream))
    return stream
