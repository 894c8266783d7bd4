"""The endpoint alone, until it is told to stop."""

import asyncio
import signal
from collections.abc import Callable

from pipeline.rehearsal.books import Totals
from pipeline.rehearsal.options import RehearsalOptions
from pipeline.rehearsal.server import Rehearsal

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(options: RehearsalOptions, on_ready: Callable[[Rehearsal], None] | None = None) -> Totals:
    """Serve until SIGINT or SIGTERM; what happened meanwhile. `on_ready` is called once it listens.

    For the main thread of a process; the signal handlers that were there are put back.
    """
    found = {one: signal.getsignal(one) for one in _SIGNALS}
    try:
        return asyncio.run(_serve(options, on_ready))
    finally:
        for one, handler in found.items():
            signal.signal(one, handler)


async def _serve(options: RehearsalOptions, on_ready: Callable[[Rehearsal], None] | None) -> Totals:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with Rehearsal(options) as endpoint:
        for one in _SIGNALS:
            loop.add_signal_handler(one, stop.set)
        try:
            if on_ready:
                on_ready(endpoint)
            await stop.wait()
        finally:
            for one in _SIGNALS:
                loop.remove_signal_handler(one)
    return endpoint.books.totals()
