"""The process that decodes hostile bytes: it reads headers to their ends, scales images, and draws pages.

Jobs arrive on stdin, and their results go to stdout, one after another. The operating system limits the memory of the
process and the CPU time of each job, so a decoder that does not return is killed in the middle of its own code. Each
message is a line of JSON and the bytes that the line announces.
"""

import math
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import BinaryIO

from pipeline import codec
from pipeline.errors import MediaError
from pipeline.media.audio import duration_s
from pipeline.media.images import EncodedImage, fit_image
from pipeline.media.pdf import count_pages, render_pages
from pipeline.media.sniff import Size, validate_image

_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_BYTES_A_PAGE = 50_000  #: For documents whose pages cannot be counted here.


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """What to do with some bytes.

    `kind` is image, audio, document (its pages as images), or file (a document as it is). `bound` is the size that an
    image, or each page, is scaled down to. `draws`: the package that decodes it is installed. `work_bytes` is the
    memory that this takes. `pages` is how many are wanted (None: all); `most_pages` and `dpi` are from MediaOptions.
    """

    kind: str
    mime: str
    name: str
    draws: bool = True
    work_bytes: int = 0
    bound: tuple[int, int] = (1, 1)
    dpi: int = 110
    most_pages: int = 1
    pages: int | None = None


@dataclass(frozen=True, slots=True)
class DecodeResult:
    """The result of a job: images, the length of audio, or the number of pages."""

    images: tuple[EncodedImage, ...] = ()
    seconds: float = 0.0
    pages: int = 0


def decode(data: bytes, job: DecodeJob) -> DecodeResult:
    """Decode the bytes. Raises MediaError."""
    return _KINDS[job.kind](data, job)


def _image(data: bytes, job: DecodeJob) -> DecodeResult:
    size = validate_image(data, job.mime, job.name)
    if not job.draws:
        return DecodeResult((EncodedImage(data, job.mime, size),))
    return DecodeResult((fit_image(data, job.mime, size, Size(*job.bound), job.name),))


def _pages(data: bytes, job: DecodeJob) -> DecodeResult:
    bound = Size(*job.bound)
    images = render_pages(data, job.name, dpi=job.dpi, bound=bound, most=job.most_pages, pages=job.pages)
    if not images:
        raise MediaError(f"{job.name} has no page to show")
    return DecodeResult(tuple(images))


def _file(data: bytes, job: DecodeJob) -> DecodeResult:
    if job.draws:
        return DecodeResult(pages=count_pages(data, job.name))
    return DecodeResult(pages=max(1, len(_PAGE.findall(data)), math.ceil(len(data) / _BYTES_A_PAGE)))


_KINDS: Mapping[str, Callable[[bytes, DecodeJob], DecodeResult]] = {
    "image": _image,
    "audio": lambda data, job: DecodeResult(seconds=duration_s(data, job.mime, job.name)),
    "document": _pages,
    "file": _file,
}


def main(memory_bytes: int) -> None:
    """Run jobs until stdin ends."""
    jobs, results = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a decoder prints, even in C, must not get between the messages.
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
    except ImportError:  # on Windows, the timeout of the answer is the only limit
        return
    for name, most in (("RLIMIT_AS", most_bytes), ("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0)):
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        with suppress(ValueError, OSError):  # the system does not have this limit
            resource.setrlimit(kind, (most if hard < 0 else min(most, hard), hard))


def _bound_cpu(seconds: int) -> None:
    """Allow this much CPU time from now on. Beyond it, the system ends the process."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit_s = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s if hard == resource.RLIM_INFINITY else min(limit_s, hard), hard))
