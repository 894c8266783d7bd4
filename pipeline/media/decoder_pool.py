"""Runs processes that decode media, one job at a time, and replaces a process that does not return.

An image of half a megabyte can take a minute of CPU, and a PDF of 3 kB all memory. A thread could not be stopped.
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
from pipeline.media.decode import DecodeJob, DecodeResult
from pipeline.media.images import EncodedImage
from pipeline.media.sniff import Size

_T = TypeVar("_T")
#: The memory of a process: Python, the largest image that is decoded (89 megapixels of 6 bytes), and as much again.
MEMORY_BYTES = 1_536 * 1024 * 1024
#: The CPU seconds of one job. The largest image takes 5 s on a slow CPU; a document may have many pages.
CPU_S = {"image": 20, "audio": 20, "document": 60, "file": 20}
#: The factor from CPU time to the timeout, for a process that does not use the CPU or must wait for it.
PATIENCE = 10
#: Images have megabytes. With 64 kB at a time, there would be a hundred switches between the processes.
PIPE_BYTES = 1024 * 1024
#: The child imports the same modules as this process, and none from the working directory.
_PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from pipeline.media.decode import main; main(int(sys.argv[1]))"
#: Reuses the memory of one image for the next, which saves a tenth of the CPU time.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "268435456"}
#: The child receives only the variables that locate libraries. The others may contain keys.
_INHERITED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP")


class DecoderEndedError(Exception):
    """The process has ended. `code` is its exit code, or minus the number of the signal that ended it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the process that decodes media ended with exit code {code}")
        self.code = code


class DecoderProcess:
    """One process. Its methods block and are called by one thread at a time, `kill` by any."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - only our own arguments
            [sys.executable, "-I", "-c", _PROGRAM, str(MEMORY_BYTES), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=PIPE_BYTES,
            stderr=subprocess.DEVNULL,
            env={**_MALLOC, **{name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}},
            start_new_session=True,  # Ctrl-C is for the run to handle
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs, self._results = self._process.stdin, self._process.stdout

    def decode(self, data: bytes, job: DecodeJob) -> DecodeResult:
        """Return the result of the job. Raises MediaError for bad data, DecoderEndedError if the process has ended."""
        head = {**asdict(job), "bytes": len(data), "cpu_s": CPU_S[job.kind]}
        try:
            self._jobs.write(codec.dumps(head) + b"\n")
            self._jobs.write(data)
            self._jobs.flush()
            reply = codec.loads(self._results.readline())
            if "error" not in reply:
                images = tuple(self._read_image(one, data) for one in reply["pictures"])
                return DecodeResult(images, reply["seconds"], reply["pages"])
        except (OSError, ValueError, LookupError, TypeError):
            raise DecoderEndedError(self.reap()) from None
        raise MediaError(reply["error"])

    def _read_image(self, reply: Mapping[str, Any], data: bytes) -> EncodedImage:
        if (size_bytes := reply["bytes"]) is not None:
            data = self._results.read(size_bytes)
            if len(data) != size_bytes:
                raise EOFError
        return EncodedImage(data, reply["mime"], Size(**reply["size"]))

    def kill(self) -> None:
        """Kill the process, whatever it does. May be called twice."""
        self._process.kill()

    def reap(self) -> int:
        """End the process, release its resources, and return its exit code. May be called twice."""
        with suppress(subprocess.TimeoutExpired):
            # A process that has closed its pipe is about to end by itself, and its code shows why.
            self._process.wait(1)
        self.kill()
        for pipe in (self._jobs, self._results):
            with suppress(OSError, ValueError):
                pipe.close()
        return self._process.wait()


class DecoderPool:
    """At most `size` decoder processes, started when they are needed."""

    def __init__(self, size: int) -> None:
        self._size = size
        # Mutable state: idle processes, all processes, the free slots, the threads, and whether it is closed.
        self._idle: list[DecoderProcess] = []
        self._all: set[DecoderProcess] = set()
        self._turns = asyncio.Semaphore(size)
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    async def decode(self, data: bytes, job: DecodeJob) -> DecodeResult:
        """Decode the bytes. Raises MediaError, also if this takes too much time or memory."""
        async with self._turns:
            process = self._idle.pop() if self._idle else await self.run_in_thread(self._start_process)
            try:
                async with asyncio.timeout(PATIENCE * CPU_S[job.kind]):
                    result = await self.run_in_thread(process.decode, data, job)
            except MediaError:
                self._idle.append(process)
                raise
            except DecoderEndedError as error:
                self._all.discard(process)
                if error.code > 0:  # no decoder exits like this: the process could not start
                    raise
                raise MediaError(_describe_signal(job, -error.code)) from None
            except BaseException as error:
                process.kill()  # its thread notices this and cleans up
                if isinstance(error, TimeoutError):
                    raise MediaError(f"{job.name} cannot be decoded: it takes too long") from None
                raise
            self._idle.append(process)
            return result

    async def run_in_thread(self, call: Callable[..., _T], *args: Any) -> _T:
        """Return the result of `call`, run in one of a few threads."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._size, "labelpipe-media")
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    def close(self) -> None:
        """End all processes and threads. May be called twice."""
        self._closed = True
        processes = list(self._all)
        for process in processes:
            process.kill()
        for process in processes:
            process.reap()
        self._all.clear()
        self._idle.clear()
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    def _start_process(self) -> DecoderProcess:
        process = DecoderProcess()
        self._all.add(process)
        if self._closed:  # closed during the start: nothing else would end it
            process.kill()
            process.reap()
        return process


def _describe_signal(job: DecodeJob, number: int) -> str:
    if number == getattr(signal, "SIGXCPU", None):
        return f"{job.name} cannot be decoded: it takes more than {CPU_S[job.kind]} s of CPU"
    reason = (
        f"the decoder broke off (signal {number}): it is damaged, or takes more than {MEMORY_BYTES // 1024**2:,} MB"
    )
    return f"{job.name} cannot be decoded: {reason}"
