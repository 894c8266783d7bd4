"""Makes docs/demo.svg, the picture in the README: `labelpipe demo` in a terminal, as it was on the screen.

python docs/picture.py
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 108, 50
COMMAND = "labelpipe demo"
#: What the picture leaves out at the end: it is in the README as text.
UNTIL = "With your own file"


def recorded(columns: int) -> str:
    """All that the command wrote into a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "labelpipe", *COMMAND.split()[1:]]
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=folder, env={**env, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        told = b"".join(_read(ours))
        process.wait()
    return told.decode()


def _read(handle: int) -> Iterator[bytes]:
    while True:
        try:
            block = os.read(handle, 65536)
        except OSError:  # the other end is closed
            return
        if not block:
            return
        yield block


def screen(told: str) -> list[str]:
    """The lines as they stood at the end: what a carriage return has written over is gone."""
    lines = told.replace("\r\n", "\n").partition(UNTIL)[0].rstrip().split("\n")
    return [line.rstrip("\r ").rpartition("\r")[2] for line in lines]


def main() -> None:
    """Write the picture."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text(f"$ {COMMAND}", style="bold"))
    for line in screen(recorded(COLUMNS)):
        console.print(Text.from_ansi(line))
    # The fonts would come from another host; a page should ask nobody but its own.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=COMMAND, unique_id="demo"), flags=re.DOTALL)
    (Path(__file__).parent / "demo.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
