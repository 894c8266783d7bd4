"""Signals, in a process of their own: the first asks, the second forces, the handlers are put back."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.engine import StopSwitch, under
from pipeline.errors import InterruptedRunError

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import asyncio, signal, sys
from pipeline.engine import StopSwitch

def before(number, frame):
    print("the old handler", flush=True)

async def main():
    done = asyncio.Event()
    def soft(name):
        print("soft", name, flush=True)
    def hard():
        print("hard", flush=True)
        done.set()
    switch = StopSwitch(soft, hard)
    with switch.stopping():
        print("ready", flush=True)
        await done.wait()
        assert switch.signal_name
    signal.raise_signal(signal.SIGTERM)

signal.signal(signal.SIGTERM, before)
interrupts = signal.getsignal(signal.SIGINT)
asyncio.run(main())
assert signal.getsignal(signal.SIGTERM) is before
assert signal.getsignal(signal.SIGINT) is interrupts
print("the end", flush=True)
"""


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGTERM)], ids=["mixed", "twice"]
)
def test_the_first_asks_and_the_second_forces(first: signal.Signals, second: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert next(lines) == "ready\n"
        process.send_signal(first)
        assert next(lines) == f"soft {first.name}\n"
        process.send_signal(second)
        assert list(lines) == ["hard\n", "the old handler\n", "the end\n"]
        assert process.wait(10) == 0


def test_a_hang_up_never_forces_and_stays_ignored_where_it_was() -> None:
    """The shell that ends sends one and the kernel another; nohup ignores both."""
    before = signal.getsignal(signal.SIGHUP)
    called: list[str] = []

    async def main() -> None:
        with StopSwitch(called.append, lambda: called.append("hard")).stopping():
            for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
                signal.raise_signal(number)
                await asyncio.sleep(0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with StopSwitch(called.append).stopping():
            signal.raise_signal(signal.SIGHUP)
            await asyncio.sleep(0)

    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGHUP, before)
    assert called == ["SIGHUP", "hard"]


def test_before_there_is_anything_to_stop_the_work_is_cancelled() -> None:
    """A first Ctrl-C while an input is being opened."""

    async def work() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(3600)

    async def main() -> None:
        with pytest.raises(InterruptedRunError, match="SIGINT"):
            await under(StopSwitch(), work())
        await asyncio.sleep(0)  # the cancel is over

    asyncio.run(main())


def test_in_another_thread_it_does_nothing() -> None:
    """A notebook's worker thread has no signals."""
    found = signal.getsignal(signal.SIGINT)

    async def main() -> None:
        with StopSwitch(lambda _: None, lambda: None).stopping():
            assert signal.getsignal(signal.SIGINT) is found

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert signal.getsignal(signal.SIGINT) is found
