"""run.log: one JSON line an event, with the time and the facts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipeline import codec

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


@contextmanager
def run_log(path: Path) -> Iterator[None]:
    """Events of the `labelpipe` logger go to `path` while the block lasts."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_JsonLines())
    before = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)
        handler.close()


def tell(event: str, *, level: int = logging.INFO, **facts: object) -> None:
    """One event."""
    LOGGER.log(level, event, extra={"facts": facts})
