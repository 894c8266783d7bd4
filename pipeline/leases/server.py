"""Serves the lease service over HTTP, to shards that have the token."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from aiohttp import web

from pipeline.errors import InputError, SetupError, StoreError
from pipeline.leases.messages import Grant, Job, LeaseRequest, parse_request, to_bytes
from pipeline.leases.owners import ShardOwners
from pipeline.leases.service import LeaseService

#: The largest request. A shard at 1,000 calls per second sends less, even after a minute of waiting.
BODY_BYTES_MOST = 4_000_000
#: Seconds that a server that ends waits for exchanges in progress.
STOP_S = 2.0
SWEEP_S = 1.0


@asynccontextmanager
async def lease_server(
    service: LeaseService, owners: ShardOwners, job: Job, *, host: str, port: int, token: str
) -> AsyncIterator[str]:
    """Serve while the block lasts. Yields the address. Port 0 chooses a free port. Raises SetupError.

    If the service fails, the block is canceled with its error.
    """

    async def describe_job(request: web.Request) -> web.Response:
        return _refuse_token(request, token) or web.Response(
            body=to_bytes(replace(job, shards=service.shards)), content_type="application/json"
        )

    async def granted(request: LeaseRequest) -> Grant:
        owners.refuse(request)
        return await service.lease(request)

    async def claimed(request: LeaseRequest) -> Job:
        if not 1 <= request.shard <= request.shards or service.shards not in (0, request.shards):
            raise InputError(f"shard {request.shard}/{request.shards}: this run has {service.shards or 'no'} shards")
        fence = await owners.take(request.shard, request.session)
        return replace(
            job, shards=service.shards, fence=fence, spent=await service.spent_before_takeover(request.shard)
        )

    async def respond(answer: Callable[[LeaseRequest], Awaitable[Grant | Job]], request: web.Request) -> web.Response:
        if refused := _refuse_token(request, token):
            return refused
        try:
            words = await answer(parse_request(await request.read()))
        except InputError as error:
            return web.Response(status=409, text=str(error))
        except StoreError as error:
            return web.Response(status=503, text=str(error))
        return web.Response(body=to_bytes(words), content_type="application/json")

    app = web.Application(client_max_size=BODY_BYTES_MOST)
    app.router.add_get("/job", describe_job)
    app.router.add_post("/lease", partial(respond, granted))
    app.router.add_post("/claim", partial(respond, claimed))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise SetupError(f"cannot listen on {host}:{port} ({error}); choose another address") from error
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(service.work(), name="granting"),
                group.create_task(_sweep(service), name="sweep"),
            ]
            yield f"http://{host}:{runner.addresses[0][1]}"
            for task in tasks:
                task.cancel()
    finally:
        await runner.cleanup()


async def _sweep(service: LeaseService) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        service.take_back_expired()


def _refuse_token(request: web.Request, token: str) -> web.Response | None:
    header = request.headers.get("Authorization", "")
    if hmac.compare_digest(header.encode(errors="surrogateescape"), f"Bearer {token}".encode()):
        return None
    return web.Response(status=401, text="the token is missing or wrong")
