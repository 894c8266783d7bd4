"""A page that is served inside the process, in a loop of its own, while the test's thread looks at it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline import areview_page


class Served:
    """The page at `address`; `facts` is what came of it, once it has ended."""

    def __init__(self, address: str, thread: threading.Thread | None = None) -> None:
        self.address = address
        self.facts: Any = None
        self._thread = thread

    def end(self) -> None:
        """End the review as its button does, and wait until the server has ended."""
        assert self.ask("end", {})[0] == 200
        assert self._thread is not None
        self._thread.join()

    def ask(self, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON (or bytes) of a request."""
        place = urlsplit(self.address)
        connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=30)
        try:
            data = None if body is None else json.dumps(body)
            target = path if path.startswith("/") else f"{place.path}{path}"
            connection.request(method or ("GET" if body is None else "POST"), target, data, headers)
            reply = connection.getresponse()
            found = reply.read()
            is_json = reply.getheader("Content-Type") == "application/json"
            return reply.status, json.loads(found) if is_json else found
        finally:
            connection.close()

    def record(self, at: int) -> Any:
        """What the page gets of a record."""
        return self.ask(f"record?at={at}")[1]

    def say(self, at: int, topic: int | None = None, **more: Any) -> Any:
        """Answer a record with the topic at this place; what the page gets."""
        fields = {} if topic is None else {"topic": topic}
        body = {"at": at, "mark": self.record(at)["mark"], "fields": fields, **more}
        status, told = self.ask("answer", body)
        assert status == 200, told
        return told


@contextmanager
def served(run: Path, **options: Any) -> Iterator[Served]:
    """The page of a run while the block lasts; then it is cancelled, as by Ctrl-C."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    addresses: list[str] = []
    done: list[Any] = []

    def tell(address: str) -> None:
        addresses.append(address)
        ready.set()

    async def serve() -> None:
        done.append(await areview_page(run, ready=tell, **{"by": "ann", **options}))

    task = loop.create_task(serve())
    task.add_done_callback(lambda _: ready.set())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.gather(task, return_exceptions=True)))
    thread.start()
    ready.wait()
    try:
        if not addresses:
            task.result()
        found = Served(addresses[0], thread)
        yield found
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
    if done:
        found.facts = done[0]
