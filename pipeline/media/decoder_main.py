"""The process that takes media apart: jobs on stdin, their results on stdout, one after another.

It has a bound of memory for its life and of CPU for each job, held by the system: a decoder that does not come back
is ended in the middle of its own code. Each message is a line of JSON and the bytes that the line names.
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import BinaryIO

from pipeline import codec
from pipeline.errors import MediaError
from pipeline.media.decode import DecodeJob, DecodeResult, decode


def main(memory_bytes: int) -> None:
    """Work until stdin ends."""
    jobs, results = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a decoder prints, in C too, must not get between the messages.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _bound_memory(memory_bytes)
    while line := jobs.readline():
        job = codec.loads(line)
        data = jobs.read(job.pop("bytes"))
        _bound_cpu(job.pop("cpu_s"))
        job["bound"] = tuple(job["bound"])
        _run_job(results, data, DecodeJob(**job))


def _run_job(results: BinaryIO, data: bytes, job: DecodeJob) -> None:
    try:
        result = decode(data, job)
    except MediaError as error:
        _send(results, {"error": str(error)}, ())
    except MemoryError:
        _send(results, {"error": f"{job.name} cannot be decoded: it takes too much memory"}, ())
    else:
        _send(results, _describe(result, data), [one.data for one in result.images if one.data is not data])


def _describe(result: DecodeResult, data: bytes) -> dict[str, object]:
    images = [
        {"mime": one.mime, "size": asdict(one.size), "bytes": None if one.data is data else len(one.data)}
        for one in result.images
    ]
    return {"pictures": images, "seconds": result.seconds, "pages": result.pages}


def _send(results: BinaryIO, message: dict[str, object], blobs: Sequence[bytes]) -> None:
    results.write(codec.dumps(message) + b"\n")
    results.writelines(blobs)
    results.flush()


def _bound_memory(most_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the wait for an answer is the bound there
        return
    for name, most in (("RLIMIT_AS", most_bytes), ("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0)):
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        with suppress(ValueError, OSError):  # a system that has no such limit
            resource.setrlimit(kind, (most if hard < 0 else min(most, hard), hard))


def _bound_cpu(seconds: int) -> None:
    """So much CPU from now on; then the system ends the process."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit_s = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s if hard == resource.RLIM_INFINITY else min(limit_s, hard), hard))
