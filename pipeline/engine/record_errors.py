"""The net under one record: an error that nobody foresaw is that record's ending, and many in a row are the run's."""

import errno
import logging
import traceback
from collections.abc import Callable

from pipeline.errors import InternalError, LabelpipeError, SetupError, StoppedError, StoreError
from pipeline.records import Problem, Record

log = logging.getLogger("labelpipe")

#: So many records one after another, and none between them that went well: it is no record's fault.
MOST_IN_A_ROW = 20
#: What no record caused, and the next one would meet too: no room, no files, a disk that fails.
_OF_THE_SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})
_MOST_FRAMES, _MOST_CHARS, _SHOWN_CHARS = 30, 8_000, 300


class RecordErrorHandler:
    """Catches what a record's handling raised. `stop` ends the run."""

    def __init__(self, stop: Callable[[LabelpipeError], None]) -> None:
        self._stop = stop
        # All state that changes.
        self._in_a_row = 0

    def on_label(self) -> None:
        """A record got its label."""
        self._in_a_row = 0

    def handle(self, record: Record, error: Exception) -> Problem:
        """The record's problem. Raises the error itself where it is the run's, StoppedError after too many in a row."""
        is_the_systems = isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM
        if is_the_systems or isinstance(error, StoppedError | StoreError | SetupError):
            raise error
        problem = self.record(record, error)
        if self._in_a_row >= MOST_IN_A_ROW:
            raise StoppedError(problem.message) from error
        return problem

    def record(self, record: Record, error: Exception) -> Problem:
        """The record's problem, logged and counted."""
        self._in_a_row += 1
        message = f"{type(error).__name__}: {error}"[:_SHOWN_CHARS]
        trace = "".join(traceback.format_exception(error, limit=-_MOST_FRAMES))[-_MOST_CHARS:]
        facts = {"key": record.key, "source": record.source, "line": record.line, "error": message, "trace": trace}
        log.error("internal error", extra={"facts": facts})
        if self._in_a_row >= MOST_IN_A_ROW:
            self._stop(
                InternalError(f"{self._in_a_row} records in a row failed because of labelpipe itself: {message}")
            )
        return Problem(InternalError.code, f"labelpipe itself failed at this record: {message}; run.log has the trace")
