"""Stopping in stages: the first signal asks, the second forces. The handlers that were there are put back."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from pipeline.errors import HungUpError, InterruptedRunError

_T = TypeVar("_T")


#: The terminal was closed, or the connection to it broke. Windows has no such signal.
HANG_UP = "SIGHUP"
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", HANG_UP) if hasattr(signal, name))


def interruption(name: str) -> InterruptedRunError:
    """The reason for which a run stops that got this signal."""
    return HungUpError(f"by {name}") if name == HANG_UP else InterruptedRunError(f"by {name}")


class StopSwitch:
    """Calls `soft(signal name)` at the first SIGINT, SIGTERM or SIGHUP, and `hard()` at the second.

    A hang-up only asks: the shell that ends and the kernel send one each, and neither is impatient. Under nohup it
    stays ignored. Outside the main thread there are no signals: who waits there for the work presses the switch. Until
    `turn` says what there is to stop, the task is cancelled.
    """

    def __init__(self, soft: Callable[[str], None] | None = None, hard: Callable[[], None] | None = None) -> None:
        # All state that changes: whom to call, the task that is stopped, its cancels, and the first signal.
        self._soft, self._hard = soft or self._cancel, hard or self._cancel
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancels = 0
        self.signal_name = ""

    def turn(self, soft: Callable[[str], None], hard: Callable[[], None] | None = None) -> None:
        """From now on call these. Without `hard`, the task is cancelled."""
        self._soft, self._hard = soft, hard or self._cancel

    def press(self, name: str) -> None:
        """Act as at this signal, in the loop's own time. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._act, name)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        # A plain signal handler runs between any two bytecodes: the loop is only told.
        self.press(signal.Signals(number).name)

    def _act(self, name: str) -> None:
        if self._task is None:
            return
        first, self.signal_name = not self.signal_name, self.signal_name or name
        if first:
            self._soft(name)
        elif name != HANG_UP:
            self._hard()

    def _cancel(self, _name: str = "") -> None:
        assert self._task is not None
        self._cancels += 1
        self._task.cancel()

    def take_back(self) -> bool:
        """Whether a cancel was the switch's own; then it is over."""
        ours, self._cancels = self._cancels, 0
        for _ in range(ours):
            assert self._task is not None
            self._task.uncancel()
        return ours > 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals press the switch while the block lasts; outside the main thread nothing does."""
        before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number.name != HANG_UP or signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: a handler that was not set from Python, and cannot be put back from here.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """It is the current task that is stopped while the block lasts."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            with self.listening():
                yield
        finally:
            self._task = None


async def under(switch: StopSwitch, work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` gives. Raises InterruptedRunError where the switch cancelled it."""
    with switch.stopping():
        try:
            return await work
        except asyncio.CancelledError:
            if not switch.take_back():
                raise
            raise interruption(switch.signal_name) from None
