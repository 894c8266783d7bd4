"""Runs blocking work in threads that do not keep the process from exiting."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


async def in_daemon(work: Callable[[], _T]) -> _T:
    """Return or raise what `work` returns or raises, from a thread that nobody waits for at exit.

    A pipe, a network, a database, or a collector may stay silent forever. A thread of the loop's own pool that waits
    for it would be joined when the process ends. A cancel leaves the thread running.
    """
    done: Future[_T] = Future()
    done.set_running_or_notify_cancel()

    def target() -> None:
        try:
            result = work()
        except BaseException as error:  # the caller raises it
            done.set_exception(error)
        else:
            done.set_result(result)

    threading.Thread(target=target, name="labelpipe-wait", daemon=True).start()
    return await asyncio.wrap_future(done)
