"""Writes run.log: one JSON line per event, with the time and the facts."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pipeline import codec
from pipeline.errors import SetupError
from pipeline.terminal import put

LOGGER = logging.getLogger("labelpipe")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        return codec.dumps(line).decode()


class _RunLog(logging.FileHandler):
    """The file of a run's events. If it cannot be written (a full disk), one line reports it once."""

    is_failure_shown = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Replace the traceback that logging prints to stderr for each line that it cannot write."""
        if not self.is_failure_shown:
            put(
                sys.stderr, f"labelpipe: {self.baseFilename} cannot be written: {sys.exception()}. The run continues.\n"
            )
        self.is_failure_shown = True


@contextmanager
def run_log(path: Path) -> Iterator[None]:
    """Write events of the `labelpipe` logger to `path` within the block. Raises SetupError if it cannot be opened."""
    try:
        handler = _RunLog(path, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{path}: the log cannot be written: {error.strerror or error}") from error
    handler.setFormatter(_JsonLines())
    before = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)
        with suppress(OSError):  # the rest of its buffer
            handler.close()


def log_event(event: str, *, level: int = logging.INFO, **facts: object) -> None:
    """Write one event."""
    LOGGER.log(level, event, extra={"facts": facts})
