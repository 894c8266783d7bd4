"""What is written where a person looks: without the signs that steer a terminal, and never an error."""

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

#: Lines and drawings that wait for a terminal at the most, and how many drawings: an old one tells nothing.
WAITING_MOST, DRAWINGS_MOST = 200, 8
#: How long the end of a run waits for its last words to be written.
LAST_WAIT_S = 1.0

#: C0 but tab and newline, DEL, C1, the marks that change a line's direction, line separators, and halves of a pair of
#: surrogates, which no stream can encode. Written into a terminal they move the cursor, set its title, reorder a line.
_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""`text` with each control character spelled out, such as `\x1b`; tabs and newlines stay.

    Colors are added after this, never before.
    """
    return text if text.isprintable() else _CONTROL_CHARACTERS.sub(_escape, text)


def printable_json(text: str) -> str:
    r"""A JSON text of the same value, in which control characters are escaped as `\u009b` is."""
    return _CONTROL_CHARACTERS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


# -- how it looks ------------------------------------------------------------------------------------------------------

_RED, _GREEN, _YELLOW, _OFF = "\x1b[1;31m", "\x1b[1;32m", "\x1b[1;33m", "\x1b[0m"
#: What is to be seen at a glance. Words at the beginning of a line are those of our own screens.
_PAINT = (
    (re.compile(r"^(FAIL|BAD)(?= )|\bNOT verified\b|\bOUTAGE( since [0-9:]+)?", re.MULTILINE), _RED),
    (re.compile(r"^(ok|Done)(?= |$)", re.MULTILINE), _GREEN),
    (re.compile(r"^(look|Interrupted|Stopped early|Replayed)(?= |:|$)", re.MULTILINE), _YELLOW),
    (re.compile(r"\bSIMULATED( LABELS)?\b|\bPAUSED\b|(?<=[0-9]) simulated\b", re.MULTILINE), _YELLOW),
)
#: A word that stays whole, as does a number with its unit; with the sign before it that parts it from the last one.
_WORD = re.compile(r"(?:· )?(?:[0-9.,]+ (?:s|ms|min|h|d)\b\S*|\S+)")
#: What stands before the text of a line: names, each with at least two spaces, which the next lines leave free.
_HANGING = re.compile(r" *(?:\S+(?: \S+)* {2,})*")


def columns_of(stream: TextIO | None) -> int | None:
    """How wide the terminal is; None where it is none, or does not say."""
    try:
        return None if stream is None else os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def format_for_stream(text: str, stream: TextIO | None) -> str:
    """The text as it is to stand in the stream: in a terminal no word is broken in the middle, and colors tell."""
    columns = columns_of(stream) if is_terminal(stream) else None
    if columns is not None:
        text = "\n".join(wrap_line(line, columns - 1) for line in text.split("\n"))
    return colorize(text) if supports_color(stream) else text


def supports_color(stream: TextIO | None) -> bool:
    """Whether colors are wanted there (NO_COLOR, no-color.org) and understood."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return is_terminal(stream) and not plain and (os.name == "posix" or "WT_SESSION" in os.environ)


def colorize(text: str) -> str:
    """The text with what is to be seen at a glance in color."""
    for pattern, color in _PAINT:
        text = pattern.sub(lambda match, color=color: f"{color}{match[0]}{_OFF}", text)  # type: ignore[misc]
    return text


def wrap_line(line: str, columns: int) -> str:
    """The line as lines of at most so many columns, cut between words, or parts; the further ones stand below its text.

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
    """As many whole words as there is room for, and a sign that there are more."""
    if width(text) <= columns:
        return text
    words = text.split(" ")
    while words and width(" ".join(words)) + 1 > columns:
        words.pop()
    # One long word has no place between words.
    return f"{' '.join(words) or text[: max(0, columns - 1)]}…"


def width(text: str) -> int:
    """The columns that a text takes: two for a sign that is wide, none for one that is set upon another."""
    if text.isascii():
        return len(text)
    return sum(_columns(sign) for sign in text)


def _columns(sign: str) -> int:
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


# -- writing ----------------------------------------------------------------------------------------------------------


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at what is written there. False for a stream that is closed or not there."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


def is_notebook(stream: TextIO | None) -> bool:
    """Whether it ends in a cell of a notebook, where a carriage return goes back to the line's beginning too."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def put(stream: TextIO | None, text: str) -> OSError | None:
    """Write `text`, and never raise: gives the error where nobody reads any more, or the disk is full.

    After an error the stream goes nowhere: Python itself would fail over it at the exit, with an exit code of its own.
    """
    if stream is None:
        return None
    try:
        if text:  # a write of nothing waits for a terminal too, and a flush of nothing does not
            stream.write(_encodable(text, stream))
        stream.flush()
    except ValueError:  # it was closed
        return None
    except OSError as error:
        _redirect_to_null(stream)
        return error
    return None


def _encodable(text: str, stream: TextIO) -> str:
    """The text with a question mark for what the stream's encoding lacks: an old console, LANG=C."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _redirect_to_null(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def open_missing_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr an empty one in its place.

    Else the first file that is opened gets the number of stderr, and whatever writes there writes into the ledger.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - by the lowest number


def put_soon(stream: TextIO | None, text: str) -> None:
    """`put`, but who stopped the terminal is waited for no longer than a moment."""
    if stream is not None:
        scribe = BackgroundWriter(stream)
        scribe.submit(lambda: put(scribe.stream, text))
        scribe.close()


class BackgroundWriter:
    """Does what writes to a stream, in order, in a thread of its own.

    A terminal that is stopped (Ctrl-S), a connection that died, a pipe that nobody reads, a full disk: they hold up
    this thread or break its work, and nothing else. What finds no place in its queue is left out.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = _unbuffered(stream)
        # All state that changes: what is to be done, and whether a failure was told.
        self._work: queue.Queue[Callable[[], object] | None] = queue.Queue(WAITING_MOST)
        self._is_failure_logged = False
        self._thread = threading.Thread(target=self._run, name="labelpipe-display", daemon=True)
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """Whether enough is waiting that a drawing would come too late."""
        return self._work.qsize() >= DRAWINGS_MOST

    def submit(self, work: Callable[[], object]) -> None:
        """Have it done; what it raises is only logged."""
        with suppress(queue.Full):
            self._work.put_nowait(work)

    def log_failure(self, error: Exception) -> None:
        """Log why nothing can be shown, once; not to the terminal, where logging goes without a handler."""
        if not self._is_failure_logged and log.hasHandlers():
            log.warning("nothing can be shown", extra={"facts": {"error": repr(error)}})
        self._is_failure_logged = True

    def close(self) -> None:
        """End when all is done, or without waiting any longer; may be called twice."""
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
    """A stream's file, without the buffer: its lock would be kept by a thread that is held up when Python exits.

    A number of its own, too: that of a stream which is closed may be given to another file.
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
    """The stream's file where it has one of its own; a notebook's stream, or a text in memory, as it is."""
    # A Windows console wants text, not bytes.
    if os.name == "posix" and isinstance(stream, io.TextIOWrapper):
        with suppress(OSError, ValueError):
            return cast("TextIO", _UnbufferedStream(stream))
    return stream
