"""Processes that take media apart, an order at a time; one that does not come back is ended, and replaced.

A picture of half a megabyte can take a minute of CPU, a PDF of 3 kB all memory there is: a thread could not be stopped.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

from pipeline import codec
from pipeline.errors import MediaError
from pipeline.media.decode import Decoded, Order
from pipeline.media.images import Picture
from pipeline.media.sniff import Size

_T = TypeVar("_T")
#: What a process may take: Python, the largest picture that is decoded (89 megapixels of 6 bytes), and as much again.
MEMORY_BYTES = 1_536 * 1024 * 1024
#: What one order may take of the CPU. The largest picture takes 5 s of a slow one; a document may have many pages.
CPU_S = {"image": 20, "audio": 20, "document": 60, "file": 20}
#: For a process that does not use the CPU at all, or has to wait for it: so many times as long.
PATIENCE = 10
#: Pictures have megabytes; 64 kB at a time would be a hundred switches from one process to the other.
PIPE_BYTES = 1024 * 1024
#: In the child: the modules are those of this process, and none that lies in the working directory.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from pipeline.media.decoder_main import main; main(int(sys.argv[1]))"
)
#: What one picture took is used for the next: a tenth of the CPU.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "268435456"}
#: The environment, which may hold keys, stays here but for what finds libraries.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP")


class WorkerEndedError(Exception):
    """The process has ended: `code` is its exit code, or less than 0 the signal that ended it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the process that decodes media ended with exit code {code}")
        self.code = code


class Worker:
    """One process. Its methods block, and are called by one thread at a time; `end` by any."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own words
            [sys.executable, "-I", "-c", _PROGRAM, str(MEMORY_BYTES), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=PIPE_BYTES,
            stderr=subprocess.DEVNULL,
            env={**_MALLOC, **{name: os.environ[name] for name in _KEPT if name in os.environ}},
            start_new_session=True,  # a Ctrl-C is the run's affair
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._results = self._process.stdin, self._process.stdout

    def decode(self, data: bytes, order: Order) -> Decoded:
        """What came of it. Raises MediaError where the order says so, WorkerEndedError with the process gone."""
        head = {**asdict(order), "bytes": len(data), "cpu_s": CPU_S[order.kind]}
        try:
            self._orders.write(codec.dumps(head) + b"\n")
            self._orders.write(data)
            self._orders.flush()
            told = codec.loads(self._results.readline())
            if "error" not in told:
                pictures = tuple(self._picture(one, data) for one in told["pictures"])
                return Decoded(pictures, told["seconds"], told["pages"])
        except (OSError, ValueError, LookupError, TypeError):
            raise WorkerEndedError(self.buried()) from None
        raise MediaError(told["error"])

    def _picture(self, told: Mapping[str, Any], data: bytes) -> Picture:
        if (wanted := told["bytes"]) is not None:
            data = self._results.read(wanted)
            if len(data) != wanted:
                raise EOFError
        return Picture(data, told["mime"], Size(**told["size"]))

    def end(self) -> None:
        """End the process, whatever it is at; may be called twice."""
        self._process.kill()

    def buried(self) -> int:
        """End the process and let go of it; gives its exit code. May be called twice."""
        with suppress(subprocess.TimeoutExpired):
            # One that has closed its pipe is about to end by itself, and the code says why.
            self._process.wait(1)
        self.end()
        for pipe in (self._orders, self._results):
            with suppress(OSError, ValueError):
                pipe.close()
        return self._process.wait()


class Workshop:
    """At most `size` workers, made when they are wanted."""

    def __init__(self, size: int) -> None:
        self._size = size
        # All state that changes: workers without an order, all that were made, whose turn it is, the threads, the end.
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._turns = asyncio.Semaphore(size)
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    async def decode(self, data: bytes, order: Order) -> Decoded:
        """What the bytes show. Raises MediaError, also where it takes more time or memory than it may."""
        async with self._turns:
            worker = self._idle.pop() if self._idle else await self.in_thread(self._begun)
            try:
                async with asyncio.timeout(PATIENCE * CPU_S[order.kind]):
                    decoded = await self.in_thread(worker.decode, data, order)
            except MediaError:
                self._idle.append(worker)
                raise
            except WorkerEndedError as error:
                self._all.discard(worker)
                if error.code > 0:  # no decoder does that: it could not begin
                    raise
                raise MediaError(_told(order, -error.code)) from None
            except BaseException as error:
                worker.end()  # its thread sees that, and lets go of it
                if isinstance(error, TimeoutError):
                    raise MediaError(f"{order.name} cannot be decoded: it takes too long") from None
                raise
            self._idle.append(worker)
            return decoded

    async def in_thread(self, call: Callable[..., _T], *given: Any) -> _T:
        """What `call` gives, in one of a few threads."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._size, "labelpipe-media")
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *given)

    def close(self) -> None:
        """End everything; may be called twice."""
        self._closed = True
        ended = list(self._all)
        for worker in ended:
            worker.end()
        for worker in ended:
            worker.buried()
        self._all.clear()
        self._idle.clear()
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    def _begun(self) -> Worker:
        worker = Worker()
        self._all.add(worker)
        if self._closed:  # while it was made: nobody else would end it
            worker.end()
            worker.buried()
        return worker


def _told(order: Order, number: int) -> str:
    if number == getattr(signal, "SIGXCPU", None):
        return f"{order.name} cannot be decoded: it takes more than {CPU_S[order.kind]} s of CPU"
    told = f"the decoder broke off (signal {number}): it is damaged, or takes more than {MEMORY_BYTES // 1024**2:,} MB"
    return f"{order.name} cannot be decoded: {told}"
