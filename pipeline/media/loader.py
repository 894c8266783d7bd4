"""From the request that is asked to the one that is sent: each attachment's place is taken by what it shows.

Files are read in a few threads, decoded and scaled in a few processes. Their bytes are held from just before the
record's first call until its outcome, and no more of them at once than was allowed.
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

#: Processes beyond eight would only take turns.
THREADS = min(8, os.cpu_count() or 1)
#: What decoding may take at once, beside what is held: a large picture goes alone.
WORK_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Pending:
    """An attachment that may be loaded: `size_bytes` is what that can take at the most.

    `read` gives its bytes, in a thread; without it they are fetched, or passed on as an address (`is_url`).
    """

    attachment: Attachment
    name: str
    size_bytes: int
    read: Callable[[], bytes] | None = None
    is_url: bool = False


class MediaLoader:
    """Loads what requests show. Threads and processes begin with the first one; `close` ends them."""

    def __init__(self, options: MediaOptions, fetcher: MediaFetcher | None = None) -> None:
        self._options = options
        self._fetcher = fetcher
        self._folder = MediaFolder(options.root)
        # All state that changes: what is held, what is being decoded, whose turn it is, and who decodes.
        self._memory = WeightedSemaphore(options.hold_bytes)
        self._decode_memory = WeightedSemaphore(WORK_BYTES)
        self._read_slots = asyncio.Semaphore(2 * THREADS)
        self._pool = DecoderPool(THREADS)

    @asynccontextmanager
    async def attach(self, request: Request) -> AsyncIterator[Request]:
        """The request that is sent, for as long as the block lasts. Raises MediaError, or what the block raises."""
        if not request.attachments:
            yield request
            return
        pending = await self._pool.run_in_thread(lambda: [self._plan(one) for one in request.attachments])
        # All of a record's bytes are taken at once, so that no two records wait for each other's rest.
        async with self._memory.acquire(sum(one.size_bytes for one in pending)) as resize:
            loaded = [await self._load(one) for one in pending]
            resize(sum(one.size_bytes for one in loaded))
            yield _fill(request, loaded)

    async def close(self) -> None:
        """End what decodes, and the connections; may be called twice."""
        self._pool.close()
        if self._fetcher is not None:
            await self._fetcher.close()

    def _plan(self, attachment: Attachment) -> _Pending:
        """What the attachment is, before any of it is read. Raises MediaError."""
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
        # No more files are read than can be decoded soon: what waits for a thread waits on the disk, not in memory.
        async with self._read_slots:
            return await self._decode(await self._pool.run_in_thread(pending.read), pending)

    async def _decode(self, data: bytes, pending: _Pending) -> LoadedAttachment:
        job = plan_decoding(data, pending.attachment, pending.name, self._options)
        # Nobody who is at work waits for bytes, so those who hold bytes may wait for work.
        async with self._decode_memory.acquire(job.work_bytes):
            result = await self._pool.decode(data, job)
        return build_attachment(result, data, pending.attachment, job, self._options)


def _fill(request: Request, loaded: Sequence[LoadedAttachment]) -> Request:
    """The request with the parts in their places, and what they cost."""
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
