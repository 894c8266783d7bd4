"""Makes a second call if the first takes long: at the end of the input nobody waits for one slow answer."""

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.errors import StoppedError
from pipeline.limits import Permit
from pipeline.records import Response
from pipeline.stats import Stats

#: Latencies that must be known before a call can count as slow.
HEDGE_KNOWN = 20
#: Until then, the interval between checks.
HEDGE_LOOK_S = 1.0

#: Makes one call with a permit.
OneCall = Callable[[Permit], Awaitable[Response]]
#: Obtains a permit for another call of the same request.
Acquire = Callable[[], Awaitable[Permit]]


class Hedge:
    """Waits for calls, and asks again if one takes longer than the `percent` percentile of all."""

    def __init__(self, stats: Stats, tail: asyncio.Event) -> None:
        self._stats = stats
        self._tail = tail

    async def answer(self, percent: float, permit: Permit, call: OneCall, acquire: Acquire) -> Response:
        """Return the call's answer or, at the end of the input, that of a second call if the first takes long."""
        first = asyncio.create_task(_response(call, permit), name="call")
        try:
            await self._while_usual(first, percent)
            return first.result() if first.done() else await self._second(first, call, acquire)
        finally:
            first.cancel()
            await asyncio.wait({first})

    async def _while_usual(self, first: asyncio.Task[Response], percent: float) -> None:
        """Wait for the call, but no longer than usual once the input has ended."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        tail = asyncio.ensure_future(self._tail.wait())
        try:
            await asyncio.wait({first, tail}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tail.cancel()
        while not first.done():
            # Each answer of other calls makes the usual time more accurate.
            usual_s = self._stats.latencies.percentile_s(percent)
            known = self._stats.latencies.count >= HEDGE_KNOWN and usual_s is not None
            left_s = (usual_s or 0.0) - (loop.time() - began_at) if known else HEDGE_LOOK_S
            if left_s < 0.001:  # below a timer's resolution
                return
            await asyncio.wait({first}, timeout=left_s)

    async def _second(self, first: asyncio.Task[Response], call: OneCall, acquire: Acquire) -> Response:
        """Make a second call: the first answer wins, and the other call is canceled and counted."""
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
    """Return a second permit; None if the first call ends sooner, or if no more calls are admitted.

    It always waits for the first call too. That one holds its place, so if such calls held all places, waiting for a
    permit alone would block forever.
    """
    wanted = asyncio.create_task(_permit(acquire), name="hedge")
    is_needed = False
    try:
        await asyncio.wait({first, wanted}, return_when=asyncio.FIRST_COMPLETED)
        is_needed = not first.done()
    finally:
        if not wanted.done():
            wanted.cancel()
            await asyncio.wait({wanted})
        permit = _permit_in(wanted)
        # A cancel may arrive at the same moment as the permit. Then nobody else would return it.
        if permit is not None and not is_needed:
            permit.release()
            permit.close()
    return permit if is_needed else None


def _permit_in(wanted: asyncio.Task[Permit]) -> Permit | None:
    """Return the permit; None if there is none because no more calls are admitted."""
    if wanted.cancelled() or isinstance(wanted.exception(), StoppedError):
        return None
    return wanted.result()
