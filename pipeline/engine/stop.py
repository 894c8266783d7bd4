"""Stopping in stages: the first signal asks, the second forces. The handlers that were there are put back."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from pipeline.errors import LabelpipeError


class InterruptedRunError(LabelpipeError):
    """Interrupted by a signal."""

    code = "interrupted"


SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSwitch:
    """Calls `soft(signal name)` at the first SIGINT or SIGTERM and `hard()` at the second.

    Does nothing outside the main thread (a notebook's worker thread has no signals).
    """

    def __init__(self, soft: Callable[[str], None], hard: Callable[[], None]) -> None:
        self._soft, self._hard = soft, hard
        self._before: dict[int, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.asked = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        assert self._loop is not None
        # A plain signal handler runs between any two bytecodes: the loop is only told, and acts in its own time.
        self._loop.call_soon_threadsafe(self._act, signal.Signals(number).name)

    def _act(self, name: str) -> None:
        if self.asked:
            self._hard()
            return
        self.asked = True
        self._soft(name)

    def __enter__(self) -> StopSwitch:
        if threading.current_thread() is threading.main_thread():
            self._loop = asyncio.get_running_loop()
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not set from Python, and cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()
