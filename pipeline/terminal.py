"""What is written where a person looks: without the signs that steer a terminal, and never an error."""

from __future__ import annotations

import io
import logging
import os
import queue
import re
import sys
import threading
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


# -- writing ----------------------------------------------------------------------------------------------------------


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at what is written there. False for a stream that is closed or not there."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


def put(stream: TextIO | None, text: str) -> OSError | None:
    """Write `text`, and never raise: gives the error where nobody reads any more, or the disk is full.

    After an error the stream goes nowhere: Python itself would fail over it at the exit, with an exit code of its own.
    """
    if stream is None:
        return None
    try:
        stream.write(_encodable(text, stream))
        stream.flush()
    except ValueError:  # it was closed
        return None
    except OSError as error:
        _silence(stream)
        return error
    return None


def _encodable(text: str, stream: TextIO) -> str:
    """The text with a question mark for what the stream's encoding lacks: an old console, LANG=C."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _silence(stream: TextIO) -> None:
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


class Scribe:
    """Does what writes to a stream, in order, in a thread of its own.

    A terminal that is stopped (Ctrl-S), a connection that died, a pipe that nobody reads, a full disk: they hold up
    this thread or break its work, and nothing else. What finds no place in its queue is left out.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = _bare(stream)
        # All state that changes: what is to be done, and whether a failure was told.
        self._work: queue.Queue[Callable[[], object] | None] = queue.Queue(WAITING_MOST)
        self._told = False
        self._thread = threading.Thread(target=self._run, name="labelpipe-display", daemon=True)
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """Whether enough is waiting that a drawing would come too late."""
        return self._work.qsize() >= DRAWINGS_MOST

    def do(self, work: Callable[[], object]) -> None:
        """Have it done; what it raises is only logged."""
        with suppress(queue.Full):
            self._work.put_nowait(work)

    def failed(self, error: Exception) -> None:
        """Log why nothing can be shown, once."""
        if not self._told:
            log.warning("nothing can be shown", extra={"facts": {"error": repr(error)}})
        self._told = True

    def close(self) -> None:
        """End when all is done, or without waiting any longer; may be called twice."""
        with suppress(queue.Full):
            self._work.put_nowait(None)
        self._thread.join(LAST_WAIT_S)
        if not self._thread.is_alive() and isinstance(self.stream, _Bare):
            self.stream.close()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception as error:
                self.failed(error)


class _Bare(io.TextIOBase):
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


def _bare(stream: TextIO) -> TextIO:
    """The stream's file where it has one of its own; a notebook's stream, or a text in memory, as it is."""
    # A Windows console wants text, not bytes.
    if os.name == "posix" and isinstance(stream, io.TextIOWrapper):
        with suppress(OSError, ValueError):
            return cast("TextIO", _Bare(stream))
    return stream
