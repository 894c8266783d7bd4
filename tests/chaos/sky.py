"""Endpoints whose weather changes: outages of several kinds, refusals by order, headers that lie; in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web
from end_to_end.served import PATIENCE_S, Endpoint

from pipeline.rehearsal import Rehearsal, RehearsalOptions
from pipeline.rehearsal.call_log import CallEnding
from pipeline.rehearsal.faults import CONNECTION_FAULTS, REPLY_FAULTS
from pipeline.rehearsal.replies import ErrorReply, Reply
from pipeline.rehearsal.request_parser import RequestParser

#: Kinds of outages. "refused": nobody listens, and who is connected is cut off.
FOUL = ("503", "502_html", "html", "529", "hang", "reset", "refused")

#: Headers that replace those of an answer.
Lie = Callable[[], Mapping[str, str]]


class _Auditor(Endpoint):
    """Reads the counts at their source: over the wire nobody is there in some weather."""

    def __init__(self, sky: Sky, path: Path) -> None:
        super().__init__(sky.port, path)
        self._sky = sky

    def calls(self) -> int:
        return self._sky.books.calls

    def in_flight(self) -> int:
        return self._sky.books.in_flight


class Sky(Rehearsal):
    """A rehearsal endpoint with a `mood`: "fair", a kind of outage, or "429" for all. Its books hold every call.

    `lie` gives headers for each answer, `refusal` those of each 429 by mood. `met` counts the calls by mood.
    """

    def __init__(self, options: RehearsalOptions) -> None:
        super().__init__(options)
        assert options.books_path is not None
        self._reader = RequestParser(options)
        self._books_path = Path(options.books_path)
        # All that changes: set by the tests from their own thread.
        self.mood = "fair"
        self.lie: Lie = dict
        self.refusal: Lie = dict
        self.met: Counter[str] = Counter()
        self._turns: list[tuple[int, Callable[[], None]]] = []

    @property
    def endpoint(self) -> Endpoint:
        """The same, as its clients and its auditors see it."""
        return _Auditor(self, self._books_path)

    def turn_at(self, call: int, mood: str = "fair", *, lie: Lie = dict, refusal: Lie = dict) -> None:
        """Be so from this call on, counted over all."""

        def turn() -> None:
            self.mood, self.lie, self.refusal = mood, lie, refusal

        self._turns.append((call, turn))

    async def change(self, mood: str) -> None:
        """Let the weather be so from now on."""
        before, self.mood = self.mood, mood
        if mood == "refused" and before != "refused":
            await self._shut()
        elif before == "refused" and mood != "refused":
            await self._open_again()

    async def _shut(self) -> None:
        assert self._runner is not None
        for site in list(self._runner.sites):
            await site.stop()

    async def _open_again(self) -> None:
        assert self._runner is not None
        await web.TCPSite(self._runner, self.options.host, self.port, backlog=2048).start()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "POST":
            return await super()._handle(request)
        while self._turns and self.books.calls + 1 >= self._turns[0][0]:
            self._turns.pop(0)[1]()
        self.met[self.mood] += 1
        answer = await (super()._handle(request) if self.mood == "fair" else self._foul(request, self.mood))
        answer.headers.update(self.lie())
        return answer

    async def _foul(self, request: web.BaseRequest, mood: str) -> web.StreamResponse:
        self.books.arrive()
        try:
            name, _ = self._reader.read(await request.read())
            entry = None if name is None else self.books.entry(name)
            if mood == "429":
                told = ErrorReply(429, "Rate limit reached.", "requests", None, "rate_limit_exceeded").reply()
                self.books.close_call(entry, CallEnding("refused", 429))
                answer = self._send(told)
                answer.headers.update(self.refusal())
                return answer
            wire = "reset" if mood == "refused" else mood
            self.books.close_call(
                entry, CallEnding(f"sky {mood}", 0 if wire in CONNECTION_FAULTS else REPLY_FAULTS[mood].status)
            )
            if wire in CONNECTION_FAULTS:
                return await self._fail(request, Reply(0, b"", wire=wire))
            return self._send(REPLY_FAULTS[mood])
        finally:
            self.books.leave()


class Skies:
    """A thread in which skies are served."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="skies", daemon=True)
        self._opened: list[Sky] = []

    def open(self, **options: Any) -> Sky:
        """A new one, in fair weather."""
        path = self._folder / f"sky{next(self._numbers)}.jsonl"
        sky = Sky(RehearsalOptions(**{"latency_ms": 20.0, "latency_jitter": 0.5, "books_path": path, **options}))
        self.do(sky.start())
        self._opened.append(sky)
        return sky

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do it in the thread's loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def settle(self) -> None:
        """Let what was cancelled come to its end."""
        self.do(asyncio.sleep(0.05))

    @contextlib.contextmanager
    def weather(
        self,
        sky: Sky,
        rng: random.Random,
        kinds: Sequence[str] = FOUL,
        *,
        fair_s: tuple[float, float] = (0.3, 0.9),
        foul_s: tuple[float, float] = (0.2, 0.9),
    ) -> Iterator[list[str]]:
        """Fair and foul weather in turn, all kinds in a random order and then again; fair again at the end.

        Gives the kinds that have been, as they come.
        """
        seen: list[str] = []

        async def change() -> None:
            while True:
                for kind in rng.sample(list(kinds), len(kinds)):
                    await asyncio.sleep(rng.uniform(*fair_s))
                    seen.append(kind)
                    await sky.change(kind)
                    await asyncio.sleep(rng.uniform(*foul_s))
                    await sky.change("fair")

        changing = asyncio.run_coroutine_threadsafe(change(), self.loop)
        try:
            yield seen
        finally:
            changing.cancel()
            self.do(sky.change("fair"))

    def __enter__(self) -> Skies:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sky in self._opened:
            self.do(sky.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)
        self.loop.close()
