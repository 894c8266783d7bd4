"""What all tests share: an event loop whose clock moves by itself."""

from __future__ import annotations

import asyncio
import selectors
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Started under nohup the tests would inherit that a hang-up is ignored, and so would the processes they start.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Machines are shared: how long an example takes says nothing.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")


#: Folders whose tests start processes and look at the clock: each of them goes on one after the other, in one worker.
IN_TURN = ("chaos", "end_to_end")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are no name of a case: packed ones hold the time, and every worker must collect the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests stay together when they are spread over workers: those of such a folder, else those of a file."""
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0]
        together = folder if folder in IN_TURN else str(item.path)
        item.add_marker(pytest.mark.xdist_group(together))


class _JumpingSelector(selectors.DefaultSelector):
    """Where a selector would wait, the clock jumps instead. Real sockets and threads still get their turn."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            return super().select(None)
        self.now += timeout
        return []


class MovedClockLoop(asyncio.SelectorEventLoop):
    """A loop in which sleeping takes no time, but the clock says it did."""

    def __init__(self) -> None:
        self.jumping = _JumpingSelector()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


@pytest.fixture
def moved_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs a coroutine under a clock that moves instead of waiting; asyncio-throttle follows the same clock."""
    loop = MovedClockLoop()

    class _Time:
        monotonic = staticmethod(loop.time)

    monkeypatch.setattr("asyncio_throttle.throttler.time", _Time)
    yield loop.run_until_complete
    loop.close()


@pytest.fixture
def wall() -> float:
    """Seconds since 1970 now, for tests that compare stamps."""
    return time.time()
