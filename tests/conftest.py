"""What all tests share: an event loop whose clock moves by itself."""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import typer.testing
from browser import PROGRAM, Chromium

if TYPE_CHECKING:
    from end_to_end.stage import Endpoints

# Started under nohup or in the background the tests would inherit that a hang-up or a Ctrl-C is ignored, and so would
# the processes they start: those that are to end by one would not.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are shared: how long an example takes says nothing. The examples are the same each time, so that a change
# is not blamed for what a new example finds; `ARGS=--hypothesis-profile=search` looks for new ones.
_UNHURRIED = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("shared", _UNHURRIED, derandomize=True, max_examples=30)
hypothesis.settings.register_profile("search", _UNHURRIED, max_examples=1000)
hypothesis.settings.load_profile("shared")

# The runner of commands builds all of them anew for each call.
typer.testing._get_command = cache(typer.testing._get_command)  # type: ignore[attr-defined]

# Until all tests are collected nothing of what is made is garbage.
gc.disable()

# Each process that a test starts would compile the whole package: that takes three times as long as its work.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The threads of numpy and scikit-learn wait for each other by spinning: that takes three times as long as their work.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

#: Folders whose tests wait for other processes most of the time. All the others need a core.
WAITING = ("chaos", "end_to_end")
#: By this part of the run all of them are begun, so that the workers end at the same time.
WAITING_BY = 0.8


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are no name of a case: packed ones hold the time, and every worker must collect the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait are given out evenly among those that work; the order is the same in every worker."""
    here = Path(__file__).parent
    paths = dict.fromkeys(item.path for item in items)
    waiting = [path for path in paths if path.relative_to(here).parts[0] in WAITING]
    working = [path for path in paths if path not in set(waiting)]
    place = {path: at / len(waiting) * WAITING_BY for at, path in enumerate(waiting)}
    place |= {path: (at + 0.5) / len(working) for at, path in enumerate(working)}
    items.sort(key=lambda item: place[item.path])


def pytest_collection_finish() -> None:
    """What has been imported and collected stays to the end: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


class _JumpingSelector(selectors.DefaultSelector):
    """Where a selector would wait, the clock jumps instead. Real sockets and threads still get their turn."""

    now = 1000.0

    def __init__(self) -> None:
        super().__init__()
        self.threads = threading.active_count()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # While it watches only its own socket, nobody but a thread that has begun since could have written to that.
        is_alone = len(self.get_map()) == 1 and threading.active_count() == self.threads
        if not (timeout and is_alone) and (ready := super().select(0)):
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


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Opens endpoints with any options: one process serves those of all tests."""
    from end_to_end.stage import Endpoints, Process

    with Endpoints(tmp_path_factory.mktemp("books")) as host:
        yield host
    Process.end_all()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """A real browser; the test is skipped where there is none."""
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not here: apt-get install chromium")
    pytest.importorskip("playwright")
    opened = Chromium()
    yield opened
    opened.close()
