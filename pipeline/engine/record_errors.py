"""Turns an unforeseen error into the ending of one record; many in a row end the run."""

import errno
import logging
import traceback
from collections.abc import Callable

from pipeline.errors import InternalError, LabelpipeError, SetupError, StoppedError, StoreError
from pipeline.records import Problem, Record

log = logging.getLogger("labelpipe")

#: If this many records fail in a row, with no success in between, no record is at fault.
MOST_IN_A_ROW = 20
#: Errors that no record causes and the next one would meet too: disk full or failing, too many open files.
_OF_THE_SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})
_MOST_FRAMES, _MOST_CHARS, _SHOWN_CHARS = 30, 8_000, 300


class RecordErrorHandler:
    """Catches what the processing of a record raised. `stop` ends the run."""

    def __init__(self, stop: Callable[[LabelpipeError], None]) -> None:
        self._stop = stop
        # Mutable state.
        self._in_a_row = 0

    def on_label(self) -> None:
        """Note a labeled record."""
        self._in_a_row = 0

    def handle(self, record: Record, error: Exception) -> Problem:
        """Return the record's problem. Raises an error of the run itself, and StoppedError after too many in a row."""
        is_the_systems = isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM
        if is_the_systems or isinstance(error, StoppedError | StoreError | SetupError):
            raise error
        problem = self.record(record, error)
        if self._in_a_row >= MOST_IN_A_ROW:
            raise StoppedError(problem.message) from error
        return problem

    def record(self, record: Record, error: Exception) -> Problem:
        """Log and count the problem, and return it."""
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
