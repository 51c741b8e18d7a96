"""Puts a gateway together: `assemble` makes its parts, `create_app` the application over them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from modelrepo.errors import ModelRepoError
from modelrepo.repository import Repository
from modelrepo_runtime.client import Client
from modelrepo_runtime.gateway import files_api, jobs_api, models_api, probes_api
from modelrepo_runtime.gateway.addresses import AddressRules
from modelrepo_runtime.gateway.answers import MACHINES, on_error, on_http_error, on_invalid_request
from modelrepo_runtime.gateway.calls import Calls
from modelrepo_runtime.gateway.edge import Edge
from modelrepo_runtime.gateway.fetching import Fetcher, FetchLimits
from modelrepo_runtime.gateway.fleet_metrics import FleetMetrics
from modelrepo_runtime.gateway.metrics import Metrics
from modelrepo_runtime.gateway.news import News
from modelrepo_runtime.gateway.parts import Parts
from modelrepo_runtime.gateway.room import Room
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.gateway.showing import place
from modelrepo_runtime.gateway.signing import UrlSigner, shared_secret
from modelrepo_runtime.gateway.token_book import TokenBook
from modelrepo_runtime.gateway.upkeep import Upkeep
from modelrepo_runtime.gateway.uploads import Uploads
from modelrepo_runtime.gateway.webhooks import DeliveryLoop, Sender
from modelrepo_runtime.gateway.worker_api.routes import WorkerApi
from modelrepo_runtime.jobs import Job
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.tokens import TokenStore, token_store
from modelrepo_runtime.timing import Timing

ABOUT = """\
Submit jobs to the models of a fleet, follow them, and fetch what they made. Send a token of `modelrepo token create` as
`Authorization: Bearer ..`. Every answer that is no success is `{"error": {code, message, retryable}}`. Within `/v1`
things are only ever added.
"""


def assemble(
    settings: GatewaySettings,
    queue: JobQueue,
    repository: Repository | str,
    files: JobStore,
    *,
    tokens: TokenStore | None = None,
    rules: AddressRules | None = None,
    tls: ssl.SSLContext | None = None,
    timing: Timing | None = None,
) -> Parts:
    """Make the parts of a gateway; threads begin with the application. `tls` is what tenants' URLs are fetched with.
    The times are the queue's own unless given.

    Raises: InvalidInput, Unreachable.
    """
    metrics = Metrics()
    rules = rules or AddressRules(settings.allow_url_hosts)
    fetcher = Fetcher(rules, FetchLimits(size_bytes=settings.file_bytes), tls)
    timing = timing or getattr(queue, "timing", None) or Timing()
    repository = repository if isinstance(repository, Repository) else Repository.open(repository)
    local = repository.store.ability.local
    calls = Calls("queue", settings.queue_threads, settings.most_calls_waiting, metrics)
    store = tokens if tokens is not None else token_store(queue)
    secret = shared_secret(files.store)
    return Parts(
        settings=settings,
        queue=queue,
        files=files,
        client=Client(
            repository,
            queue,
            files,
            timing=timing if local else replace(timing, active_poll_local_s=timing.active_poll_bucket_s),
            fetch=fetcher.fetch,
        ),
        rules=rules,
        signer=UrlSigner(secret),
        uploads=Uploads(secret),
        queue_calls=calls,
        store_calls=Calls("stores", settings.store_threads, settings.most_calls_waiting, metrics),
        tokens=TokenBook(
            store,
            calls,
            life_s=settings.token_cache_s,
            open_to_all=settings.open_to_all,
        ),
        news=News(queue),
        metrics=metrics,
        timing=timing,
        room=Room(lambda tenant, most: calls.run(store.waiting, tenant, most)),
    )


class GatewayApp(FastAPI):
    """The public API; what boxes and operators call goes past it, since thousands ask all the time."""

    machines: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"].startswith(MACHINES):
            scope["app"] = self
            await self.machines(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(parts: Parts) -> FastAPI:
    """Return the application; it ends the threads of its parts, but leaves queue and stores open."""
    workers = WorkerApi(parts, parts.client.repository, parts.timing)
    edge = Edge(parts.settings, parts.metrics)
    upkeep = Upkeep(parts.queue, parts.files, parts.timing)
    webhooks = DeliveryLoop(
        parts.queue,
        Sender(parts.rules),
        places=partial(_places, parts),
        ask=parts.queue_calls.run,
        told=lambda _, sent: parts.metrics.webhook_tries.labels(sent.outcome).inc(),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts.news.start()
        upkeep.start()
        sending = asyncio.create_task(webhooks.run()) if parts.settings.send_webhooks else None
        watching = asyncio.create_task(parts.tokens.watch(), name="tokens")
        try:
            async with workers.running():
                yield
        finally:
            parts.news.stop()
            watching.cancel()
            if sending is not None:
                await webhooks.stop()
                await sending
            await asyncio.to_thread(upkeep.stop)
            parts.queue_calls.close()
            parts.store_calls.close()
            parts.news.join(timeout_s=5.0)

    app = GatewayApp(
        title="modelrepo",
        version=version("modelrepo-toolkit"),
        description=ABOUT,
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.parts = parts
    app.state.fleet_metrics = FleetMetrics(parts.queue)
    app.add_exception_handler(ModelRepoError, on_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(HTTPException, on_http_error)
    for api in (jobs_api, files_api, models_api, probes_api):
        app.include_router(api.router)
    app.add_middleware(edge.around)
    app.machines = edge.around(workers)
    return app


def _places(parts: Parts, job: Job) -> dict[str, tuple[str | None, float | None]]:
    base_url = parts.settings.public_url
    return {output.key: place(parts, output.key, base_url) for output in job.outputs} if base_url else {}
