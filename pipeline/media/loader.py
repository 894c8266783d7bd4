"""From the request that is asked to the one that is sent: each attachment's place is taken by what it shows.

Files are read in a few threads, decoded and scaled in a few processes. Their bytes are held from just before the
record's first call until its outcome, and no more of them at once than was allowed.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from pipeline.errors import MediaError
from pipeline.media.content import Loaded, MediaOptions, by_address, loaded_of, order_of
from pipeline.media.decoder_pool import Workshop
from pipeline.media.local_files import Found, Root
from pipeline.media.semaphore import Held
from pipeline.media.sources import Web, data_of, named, scheme_of, shown
from pipeline.media.tokens import Cost
from pipeline.records import JSON, Attachment, Request

#: Processes beyond eight would only take turns.
THREADS = min(8, os.cpu_count() or 1)
#: What decoding may take at once, beside what is held: a large picture goes alone.
WORK_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An attachment that may be loaded: `bytes` is what that can take at the most."""

    attachment: Attachment
    name: str
    bytes: int
    found: Found | None = None
    passed: bool = False


class MediaLoader:
    """Loads what requests show. Threads and processes begin with the first one; `close` ends them."""

    def __init__(self, options: MediaOptions, web: Web | None = None) -> None:
        self._options = options
        self._web = web
        self._root = Root(options.root)
        # All state that changes: what is held, what is being decoded, whose turn it is, and who decodes.
        self._held = Held(options.hold_bytes)
        self._work = Held(WORK_BYTES)
        self._turns = asyncio.Semaphore(2 * THREADS)
        self._workshop = Workshop(THREADS)

    @property
    def bytes_in_use(self) -> int:
        """What is held now."""
        return self._held.used

    @asynccontextmanager
    async def attach(self, request: Request) -> AsyncIterator[Request]:
        """The request that is sent, for as long as the block lasts. Raises MediaError, or what the block raises."""
        if not request.attachments:
            yield request
            return
        wanted = await self._workshop.in_thread(self._look, request.attachments)
        # All of a record's bytes are taken at once, so that no two records wait for each other's rest.
        async with self._held.take(sum(one.bytes for one in wanted)) as holding:
            loaded = [await self._load(one) for one in wanted]
            holding.becomes(sum(one.bytes for one in loaded))
            yield _filled(request, loaded)

    async def close(self) -> None:
        """End what decodes, and the connections; may be called twice."""
        self._workshop.close()
        if self._web is not None:
            await self._web.close()

    def _look(self, attachments: Sequence[Attachment]) -> list[_Wanted]:
        """What each attachment is, before any of it is read. Raises MediaError."""
        return [self._look_at(one) for one in attachments]

    def _look_at(self, attachment: Attachment) -> _Wanted:
        source, most = attachment.source, self._options.max_bytes
        scheme = scheme_of(source)
        if scheme is None:
            found = self._root.find(source, most)
            return _Wanted(attachment, named(source), found.size_bytes, found)
        if scheme == "data":
            return _Wanted(attachment, shown(source), len(source))
        passed = self._options.urls == "pass"
        self._refuse_address(attachment, passed=passed)
        return _Wanted(attachment, shown(source), 0 if passed else most, passed=passed)

    def _refuse_address(self, attachment: Attachment, *, passed: bool) -> None:
        told = shown(attachment.source)
        if self._options.urls == "refuse" or self._web is None:
            raise MediaError(f"{told} is an address, and task.media.urls refuses them")
        if passed and attachment.kind != "image":
            raise MediaError(f'{told} cannot be passed on: for {attachment.kind}() set task.media.urls = "fetch"')
        self._web.check(attachment.source)

    async def _load(self, wanted: _Wanted) -> Loaded:
        attachment, most = wanted.attachment, self._options.max_bytes
        if wanted.passed:
            return by_address(attachment, self._options)
        if wanted.found is None and scheme_of(attachment.source) != "data":
            assert self._web is not None
            return await self._shaped(await self._web.load(attachment.source, most), wanted)
        # No more files are read than can be decoded soon: what waits for a thread waits on the disk, not in memory.
        async with self._turns:
            if wanted.found is not None:
                data = await self._workshop.in_thread(self._root.read, wanted.found, most)
            else:
                data = await self._workshop.in_thread(data_of, attachment.source, most)
            return await self._shaped(data, wanted)

    async def _shaped(self, data: bytes, wanted: _Wanted) -> Loaded:
        order = order_of(data, wanted.attachment, wanted.name, self._options)
        # Nobody who is at work waits for bytes, so those who hold bytes may wait for work.
        async with self._work.take(order.work_bytes):
            decoded = await self._workshop.decode(data, order)
        return loaded_of(decoded, data, wanted.attachment, order, self._options)


def _filled(request: Request, loaded: Sequence[Loaded]) -> Request:
    """The request with the parts in their places, and what they cost."""
    cost = sum((one.cost for one in loaded), Cost())
    return replace(
        request,
        messages=tuple(_with_parts(message, loaded) for message in request.messages),
        size_tokens=request.size_tokens + cost.tokens,
        media_tokens=cost.most,
    )


def _with_parts(message: Mapping[str, JSON], loaded: Sequence[Loaded]) -> Mapping[str, JSON]:
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return message
    parts: list[JSON] = []
    for part in content:
        if part.get("type") == "attachment":
            parts += loaded[part["index"]].parts
        else:
            parts.append(part)
    return {**message, "content": parts}
