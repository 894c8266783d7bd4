"""Processes that take media apart, a job at a time; one that does not come back is ended, and replaced.

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
from pipeline.media.decode import DecodeJob, DecodeResult
from pipeline.media.images import EncodedImage
from pipeline.media.sniff import Size

_T = TypeVar("_T")
#: What a process may take: Python, the largest picture that is decoded (89 megapixels of 6 bytes), and as much again.
MEMORY_BYTES = 1_536 * 1024 * 1024
#: What one job may take of the CPU. The largest picture takes 5 s of a slow one; a document may have many pages.
CPU_S = {"image": 20, "audio": 20, "document": 60, "file": 20}
#: For a process that does not use the CPU at all, or has to wait for it: so many times as long.
PATIENCE = 10
#: Pictures have megabytes; 64 kB at a time would be a hundred switches from one process to the other.
PIPE_BYTES = 1024 * 1024
#: In the child: the modules are those of this process, and none that lies in the working directory.
_PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from pipeline.media.decode import main; main(int(sys.argv[1]))"
#: What one picture took is used for the next: a tenth of the CPU.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "268435456"}
#: The environment, which may hold keys, stays here but for what finds libraries.
_INHERITED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP")


class DecoderEndedError(Exception):
    """The process has ended: `code` is its exit code, or less than 0 the signal that ended it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the process that decodes media ended with exit code {code}")
        self.code = code


class DecoderProcess:
    """One process. Its methods block, and are called by one thread at a time; `kill` by any."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own words
            [sys.executable, "-I", "-c", _PROGRAM, str(MEMORY_BYTES), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=PIPE_BYTES,
            stderr=subprocess.DEVNULL,
            env={**_MALLOC, **{name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}},
            start_new_session=True,  # a Ctrl-C is the run's affair
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs, self._results = self._process.stdin, self._process.stdout

    def decode(self, data: bytes, job: DecodeJob) -> DecodeResult:
        """The result of the job. Raises MediaError for bad data, and DecoderEndedError where the process has ended."""
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
        """End the process, whatever it is at; may be called twice."""
        self._process.kill()

    def reap(self) -> int:
        """End the process and let go of it; gives its exit code. May be called twice."""
        with suppress(subprocess.TimeoutExpired):
            # One that has closed its pipe is about to end by itself, and the code says why.
            self._process.wait(1)
        self.kill()
        for pipe in (self._jobs, self._results):
            with suppress(OSError, ValueError):
                pipe.close()
        return self._process.wait()


class DecoderPool:
    """At most `size` decoder processes, made when they are needed."""

    def __init__(self, size: int) -> None:
        self._size = size
        # All state that changes: idle processes, all processes, whose turn it is, the threads, the end.
        self._idle: list[DecoderProcess] = []
        self._all: set[DecoderProcess] = set()
        self._turns = asyncio.Semaphore(size)
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    async def decode(self, data: bytes, job: DecodeJob) -> DecodeResult:
        """What the bytes show. Raises MediaError, also where it takes more time or memory than it may."""
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
                if error.code > 0:  # no decoder does that: it could not begin
                    raise
                raise MediaError(_describe_signal(job, -error.code)) from None
            except BaseException as error:
                process.kill()  # its thread sees that, and lets go of it
                if isinstance(error, TimeoutError):
                    raise MediaError(f"{job.name} cannot be decoded: it takes too long") from None
                raise
            self._idle.append(process)
            return result

    async def run_in_thread(self, call: Callable[..., _T], *args: Any) -> _T:
        """What `call` gives, in one of a few threads."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._size, "labelpipe-media")
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    def close(self) -> None:
        """End everything; may be called twice."""
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
        if self._closed:  # while it was made: nobody else would end it
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
