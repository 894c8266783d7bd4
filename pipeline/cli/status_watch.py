"""A run as it stands, drawn again and again until it has ended."""

import shutil
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TextIO

from pipeline.show import status_lines
from pipeline.terminal import colorize, is_terminal, printable, put, supports_color, wrap_line

#: From the cursor's line up to the first line of the block, and everything from there on off the screen.
_BACK_UP = "\x1b[{lines}F\x1b[J"


def watch(
    read_status: Callable[[], Mapping[str, Any]],
    out: TextIO,
    *,
    every_s: float,
    to_text: Callable[[Mapping[str, Any]], str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the run every `every_s` seconds until it has ended, or nobody reads it: in a terminal in the same
    place, else block after block.

    `tell` makes another text of the facts than `status_lines`, which is then never drawn over.
    """
    drawn = 0
    while True:
        began_at = time.monotonic()
        facts = read_status()
        took_s = time.monotonic() - began_at
        if to_text is not None:
            text = to_text(facts) + "\n"
        elif is_terminal(out):
            text, drawn = _drawn(printable("\n".join(status_lines(facts))), out, over=drawn)
        else:
            text = printable("\n".join([f"{datetime.now().astimezone():%H:%M:%S}", *status_lines(facts), "", ""]))
        if put(out, text) is not None or not facts["running"]:
            return
        # A large ledger takes its time to be looked at: the run must not be slowed down by being watched.
        sleep(max(every_s - took_s, 4 * took_s))


def _drawn(text: str, out: TextIO, *, over: int) -> tuple[str, int]:
    """What draws the text over the `over` lines of the last time, as many as there is room for; and how many those are.

    None is longer than a line of the terminal: it would be two when it is drawn over.
    """
    size = shutil.get_terminal_size((100, 24))
    lines = [
        part[: size.columns - 1] for line in text.split("\n") for part in wrap_line(line, size.columns - 1).split("\n")
    ]
    shown_lines = lines[: size.lines - 1]
    drawn = "".join(f"{line}\n" for line in shown_lines)
    back = _BACK_UP.format(lines=over) if over else ""
    return back + (colorize(drawn) if supports_color(out) else drawn), len(shown_lines)
