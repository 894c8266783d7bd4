"""Replaces the attachments in a request with the media that are sent.

A few threads read files, and a few processes decode and scale them. Their bytes are in memory from just before the
record's first call until its outcome, and never more of them at once than allowed.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from pipeline.errors import MediaError
from pipeline.media.content import LoadedAttachment, MediaOptions, build_attachment, plan_decoding, url_attachment
from pipeline.media.decoder_pool import DecoderPool
from pipeline.media.local_files import MediaFolder
from pipeline.media.semaphore import WeightedSemaphore
from pipeline.media.sources import MediaFetcher, decode_data_url, display_path, display_source, scheme_of
from pipeline.media.tokens import TokenCost
from pipeline.records import JSON, Attachment, Request

#: More than eight processes would only take turns.
THREADS = min(8, os.cpu_count() or 1)
#: The memory for decoding, in addition to what is loaded: a large image is decoded alone.
WORK_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Pending:
    """An attachment that may be loaded. `size_bytes` is the most memory that it can take.

    `read` returns its bytes, in a thread. Without it, they are fetched, or passed on as an address (`is_url`).
    """

    attachment: Attachment
    name: str
    size_bytes: int
    read: Callable[[], bytes] | None = None
    is_url: bool = False


class MediaLoader:
    """Loads the attachments of requests. Threads and processes start with the first one; `close` ends them."""

    def __init__(self, options: MediaOptions, fetcher: MediaFetcher | None = None) -> None:
        self._options = options
        self._fetcher = fetcher
        self._folder = MediaFolder(options.root)
        # Mutable state: the memory for media and for decoding, the slots for reading, and the decoders.
        self._memory = WeightedSemaphore(options.hold_bytes)
        self._decode_memory = WeightedSemaphore(WORK_BYTES)
        self._read_slots = asyncio.Semaphore(2 * THREADS)
        self._pool = DecoderPool(THREADS)

    @asynccontextmanager
    async def attach(self, request: Request) -> AsyncIterator[Request]:
        """Yield the request that is sent, valid within the block. Raises MediaError, or what the block raises."""
        if not request.attachments:
            yield request
            return
        pending = await self._pool.run_in_thread(lambda: [self._plan(one) for one in request.attachments])
        # The memory of all attachments is acquired at once, so that no two records wait for each other's rest.
        async with self._memory.acquire(sum(one.size_bytes for one in pending)) as resize:
            loaded = [await self._load(one) for one in pending]
            resize(sum(one.size_bytes for one in loaded))
            yield _fill(request, loaded)

    async def close(self) -> None:
        """End the decoders and the connections. May be called twice."""
        self._pool.close()
        if self._fetcher is not None:
            await self._fetcher.close()

    def _plan(self, attachment: Attachment) -> _Pending:
        """Return what the attachment is, before any of it is read. Raises MediaError."""
        source, most = attachment.source, self._options.max_bytes
        scheme = scheme_of(source)
        if scheme is None:
            file = self._folder.find(source, most)
            return _Pending(attachment, display_path(source), file.size_bytes, partial(self._folder.read, file, most))
        if scheme == "data":
            return _Pending(attachment, display_source(source), len(source), partial(decode_data_url, source, most))
        is_url = self._options.urls == "pass"
        self._refuse_address(attachment, is_url=is_url)
        return _Pending(attachment, display_source(source), 0 if is_url else most, is_url=is_url)

    def _refuse_address(self, attachment: Attachment, *, is_url: bool) -> None:
        name = display_source(attachment.source)
        if self._options.urls == "refuse" or self._fetcher is None:
            raise MediaError(f"{name} is an address, and task.media.urls refuses them")
        if is_url and attachment.kind != "image":
            raise MediaError(f'{name} cannot be passed on: for {attachment.kind}() set task.media.urls = "fetch"')
        self._fetcher.check(attachment.source)

    async def _load(self, pending: _Pending) -> LoadedAttachment:
        if pending.is_url:
            return url_attachment(pending.attachment, self._options)
        if pending.read is None:
            assert self._fetcher is not None
            data = await self._fetcher.load(pending.attachment.source, self._options.max_bytes)
            return await self._decode(data, pending)
        # Only files that can soon be decoded are read, so that the others wait on the disk and not in memory.
        async with self._read_slots:
            return await self._decode(await self._pool.run_in_thread(pending.read), pending)

    async def _decode(self, data: bytes, pending: _Pending) -> LoadedAttachment:
        job = plan_decoding(data, pending.attachment, pending.name, self._options)
        # A job that is being decoded never waits for `_memory`, so holding that while waiting here is no deadlock.
        async with self._decode_memory.acquire(job.work_bytes):
            result = await self._pool.decode(data, job)
        return build_attachment(result, data, pending.attachment, job, self._options)


def _fill(request: Request, loaded: Sequence[LoadedAttachment]) -> Request:
    """Return the request with the parts in their places, and their cost."""
    cost = sum((one.cost for one in loaded), TokenCost())
    return replace(
        request,
        messages=tuple(_with_parts(message, loaded) for message in request.messages),
        size_tokens=request.size_tokens + cost.tokens,
        media_tokens=cost.most,
    )


def _with_parts(message: Mapping[str, JSON], loaded: Sequence[LoadedAttachment]) -> Mapping[str, JSON]:
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
