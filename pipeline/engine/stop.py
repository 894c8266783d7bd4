"""Stops in two stages: the first signal asks, the second forces. Restores the earlier handlers at the end."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from pipeline.errors import HungUpError, InterruptedRunError

_T = TypeVar("_T")


#: The terminal was closed, or its connection broke. Windows has no such signal.
HANG_UP = "SIGHUP"
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", HANG_UP) if hasattr(signal, name))


def interruption(name: str) -> InterruptedRunError:
    """Return the reason for stopping a run that received this signal."""
    return HungUpError(f"by {name}") if name == HANG_UP else InterruptedRunError(f"by {name}")


class StopSwitch:
    """Calls `soft(signal name)` at the first SIGINT, SIGTERM, or SIGHUP, and `hard()` at the second.

    A hang-up never forces: an ending shell and the kernel send one each, and neither is impatient. Under nohup it stays
    ignored. There are no signals outside the main thread; there the waiting code presses the switch. Until `turn`
    defines what to call, a signal cancels the task.
    """

    def __init__(self, soft: Callable[[str], None] | None = None, hard: Callable[[], None] | None = None) -> None:
        # Mutable state: what to call, the task to stop, its cancels, and the first signal.
        self._soft, self._hard = soft or self._cancel, hard or self._cancel
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancels = 0
        self.signal_name = ""

    def turn(self, soft: Callable[[str], None], hard: Callable[[], None] | None = None) -> None:
        """Call these from now on. Without `hard`, the task is canceled."""
        self._soft, self._hard = soft, hard or self._cancel

    def press(self, name: str) -> None:
        """Act in the event loop as at this signal. Thread-safe."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._act, name)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        # A plain signal handler runs between any two bytecodes, so it only notifies the loop.
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
        """Whether the switch itself canceled the task. The cancel is then undone."""
        ours, self._cancels = self._cancels, 0
        for _ in range(ours):
            assert self._task is not None
            self._task.uncancel()
        return ours > 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let signals press the switch during the block. Outside the main thread, do nothing."""
        before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number.name != HANG_UP or signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: the handler was not set from Python, and cannot be restored from here.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Stop the current task, if pressed, during the block."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            with self.listening():
                yield
        finally:
            self._task = None


async def under(switch: StopSwitch, work: Coroutine[Any, Any, _T]) -> _T:
    """Return what `work` returns. Raises InterruptedRunError if the switch canceled it."""
    with switch.stopping():
        try:
            return await work
        except asyncio.CancelledError:
            if not switch.take_back():
                raise
            raise interruption(switch.signal_name) from None
