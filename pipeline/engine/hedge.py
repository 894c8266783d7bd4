"""A second call where the first takes long: at the end of the input nobody waits for one slow answer."""

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.errors import StoppedError
from pipeline.limits import Permit
from pipeline.records import Response
from pipeline.stats import Stats

#: Latencies that must be known before a call can be said to take long.
HEDGE_KNOWN = 20
#: Until then it is looked again this often.
HEDGE_LOOK_S = 1.0

#: One call with a permit.
OneCall = Callable[[Permit], Awaitable[Response]]
#: A permit for one more call of the same request.
Acquire = Callable[[], Awaitable[Permit]]


class Hedge:
    """Waits for calls, and asks a second time where one takes longer than the `percent` percentile of all."""

    def __init__(self, stats: Stats, tail: asyncio.Event) -> None:
        self._stats = stats
        self._tail = tail

    async def answer(self, percent: float, permit: Permit, call: OneCall, acquire: Acquire) -> Response:
        """The answer of the call; at the end of the input, of a second one where the first takes long."""
        first = asyncio.create_task(_response(call, permit), name="call")
        try:
            await self._while_usual(first, percent)
            return first.result() if first.done() else await self._second(first, call, acquire)
        finally:
            first.cancel()
            await asyncio.wait({first})

    async def _while_usual(self, first: asyncio.Task[Response], percent: float) -> None:
        """Wait for the call; no longer than is usual, once the input has ended."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        tail = asyncio.ensure_future(self._tail.wait())
        try:
            await asyncio.wait({first, tail}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tail.cancel()
        while not first.done():
            # What is usual is known better with each answer of the others.
            usual_s = self._stats.latencies.percentile_s(percent)
            known = self._stats.latencies.count >= HEDGE_KNOWN and usual_s is not None
            left_s = (usual_s or 0.0) - (loop.time() - began_at) if known else HEDGE_LOOK_S
            if left_s < 0.001:  # less than a timer can tell
                return
            await asyncio.wait({first}, timeout=left_s)

    async def _second(self, first: asyncio.Task[Response], call: OneCall, acquire: Acquire) -> Response:
        """Ask a second time: the first answer wins, the other call is cancelled and counted."""
        permit = await _second_permit(first, acquire)
        if permit is None:
            return await first
        self._stats.record_retry("hedge")
        second = asyncio.create_task(_response(call, permit), name="hedge")
        try:
            await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
            winner, other = (first, second) if first.done() else (second, first)
            if winner.exception() is not None:
                await asyncio.wait({other})  # it may have answered at the same moment
                winner = other
            return winner.result()
        finally:
            second.cancel()
            try:
                await asyncio.wait({second})
            finally:
                permit.close()


async def _response(call: OneCall, permit: Permit) -> Response:
    return await call(permit)


async def _permit(acquire: Acquire) -> Permit:
    return await acquire()


async def _second_permit(first: asyncio.Task[Response], acquire: Acquire) -> Permit | None:
    """A permit beside that of the first call; None when that one ended sooner, or nothing is let through any more.

    Never waited for alone: the first call keeps its place until here, so where all places are such calls' the door
    would open to nobody.
    """
    wanted = asyncio.create_task(_permit(acquire), name="hedge")
    taken = False
    try:
        await asyncio.wait({first, wanted}, return_when=asyncio.FIRST_COMPLETED)
        taken = not first.done()
    finally:
        if not wanted.done():
            wanted.cancel()
            await asyncio.wait({wanted})
        permit = _permit_in(wanted)
        # A cancel may come in the moment in which the permit does: then nobody else would give it back.
        if permit is not None and not taken:
            permit.release()
            permit.close()
    return permit if taken else None


def _permit_in(wanted: asyncio.Task[Permit]) -> Permit | None:
    """The permit that came; None where none did, since nothing is let through any more."""
    if wanted.cancelled() or isinstance(wanted.exception(), StoppedError):
        return None
    return wanted.result()
