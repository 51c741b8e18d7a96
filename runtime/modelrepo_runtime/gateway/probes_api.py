"""`/healthz`, `/readyz`, `/metrics`, and the API's types for TypeScript."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from modelrepo.errors import ModelRepoError
from modelrepo_runtime.gateway.access import operator
from modelrepo_runtime.gateway.parts import PartsOf
from modelrepo_runtime.gateway.refusals import Overloaded
from modelrepo_runtime.gateway.schemas import faults
from modelrepo_runtime.gateway.typescript import types

router = APIRouter(tags=["probes"])
LONGEST_PROBE_S = 3.0
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "Yes.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get("/v1/types.ts", include_in_schema=False)
async def get_types(request: Request) -> Response:
    """Return the API's documents as TypeScript."""
    return Response(types(request.app.openapi()), media_type="text/plain; charset=utf-8")


@router.get("/healthz", operation_id="isAlive", response_class=Response, responses={**_TEXT}, summary="Alive?")
async def is_alive() -> Response:
    """Answer as long as the process does."""
    return Response("alive\n", media_type="text/plain")


@router.get(
    "/readyz", operation_id="isReady", response_class=Response, responses={**faults(), **_TEXT}, summary="Ready?"
)
async def is_ready(parts: PartsOf) -> Response:
    """Answer 200 while the queue answers and the gateway is not about to stop."""
    if parts.news.stopping:
        raise Overloaded("the gateway is about to stop")
    try:
        await asyncio.wait_for(parts.queue_calls.run(parts.queue.tiers), LONGEST_PROBE_S)
    except (ModelRepoError, TimeoutError) as error:
        raise Overloaded("the queue does not answer", retry_after_s=1.0) from error
    return Response("ready\n", media_type="text/plain")


@router.get(
    "/metrics",
    operation_id="getMetrics",
    response_class=Response,
    responses={**faults(), **_TEXT},
    dependencies=[Depends(operator)],
    summary="Counters for Prometheus",
)
async def get_metrics(request: Request, parts: PartsOf) -> Response:
    """Return what the gateway counts, and sees of queue and fleet; with tokens, only an operator's opens this."""
    fleet = await parts.queue_calls.run(request.app.state.fleet_metrics.text)
    own = generate_latest(parts.metrics.registry)
    return Response(own + fleet, headers={"Content-Type": CONTENT_TYPE_LATEST})
