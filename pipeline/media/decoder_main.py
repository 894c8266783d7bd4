"""The process that takes media apart: orders on stdin, what came of them on stdout, one after another.

It has a bound of memory for its life and of CPU for each order, held by the system: a decoder that does not come back
is ended in the middle of its own code. Each message is a line of JSON and the bytes that the line names.
"""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import BinaryIO

from pipeline import codec
from pipeline.errors import MediaError
from pipeline.media.decode import Decoded, Order, decode


def main(memory_bytes: int) -> None:
    """Work until stdin ends."""
    orders, results = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a decoder prints, in C too, must not get between the messages.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _bound_memory(memory_bytes)
    while line := orders.readline():
        order = codec.loads(line)
        data = orders.read(order.pop("bytes"))
        _bound_cpu(order.pop("cpu_s"))
        order["bound"] = tuple(order["bound"])
        _answer(results, data, Order(**order))


def _answer(results: BinaryIO, data: bytes, order: Order) -> None:
    try:
        decoded = decode(data, order)
    except MediaError as error:
        _send(results, {"error": str(error)}, ())
    except MemoryError:
        _send(results, {"error": f"{order.name} cannot be decoded: it takes too much memory"}, ())
    else:
        _send(results, _plain(decoded, data), [one.data for one in decoded.pictures if one.data is not data])


def _plain(decoded: Decoded, data: bytes) -> dict[str, object]:
    pictures = [
        {"mime": one.mime, "size": asdict(one.size), "bytes": None if one.data is data else len(one.data)}
        for one in decoded.pictures
    ]
    return {"pictures": pictures, "seconds": decoded.seconds, "pages": decoded.pages}


def _send(results: BinaryIO, message: dict[str, object], blobs: Sequence[bytes]) -> None:
    results.write(codec.dumps(message) + b"\n")
    results.writelines(blobs)
    results.flush()


def _bound_memory(most_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the wait for an answer is the bound there
        return
    for what, most in (("RLIMIT_AS", most_bytes), ("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0)):
        _lower(resource, what, most)


def _bound_cpu(seconds: int) -> None:
    """So much CPU from now on; then the system ends the process."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    wanted = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _lower(resource: object, name: str, most: int) -> None:
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]  # type: ignore[attr-defined]
    try:
        resource.setrlimit(kind, (most if hard < 0 else min(most, hard), hard))  # type: ignore[attr-defined]
    except (ValueError, OSError):  # a system that has no such limit
        return
