"""Requests of boxes and operators as they come: the routes that answer them, their bodies, and clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from fastapi import Request
from starlette.requests import ClientDisconnect

from modelrepo.errors import NewerFormat
from modelrepo_runtime.gateway.access import Caller
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.queue.http.wire import Misread
from modelrepo_runtime.queue.tokens import Role
from modelrepo_runtime.remote.failures import PROTOCOL

Handler: TypeAlias = Callable[[Request, Caller, dict[str, Json]], Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path, what answers it, and whose tokens open it."""

    path: str
    handle: Handler
    role: Role


def check_protocol(told: str | None) -> None:
    """Raises: NewerFormat unless the peer speaks our protocol or the one before."""
    if told in (str(PROTOCOL), str(PROTOCOL - 1)):
        return
    spoken = f"protocol {told}" if told else "no protocol"
    raise NewerFormat(
        f"cannot answer a peer of {spoken}: this gateway speaks {PROTOCOL} and {PROTOCOL - 1}; upgrade gateways first, "
        "then workers"
    )


async def body_of(request: Request) -> dict[str, Json]:
    """Return the object that a body is; an empty one where there is none. Raises: Misread."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    data = b"".join(parts)
    if not data:
        return {}
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Misread(f"cannot read {request.scope['path']}: its body is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise Misread(f"cannot read {request.scope['path']}: its body is no object")
    return document


@contextmanager
def going(request: Request, lapsed: asyncio.Future[None]) -> Iterator[asyncio.Future[None]]:
    """Watch a client whose body was read: done once it has closed its connection, or `lapsed` is done."""
    gone = asyncio.get_running_loop().create_future()

    def tell(_: object) -> None:
        if not gone.done():
            gone.set_result(None)

    listening = asyncio.ensure_future(_closed(request))
    listening.add_done_callback(tell)
    lapsed.add_done_callback(tell)
    try:
        yield gone
    finally:
        listening.cancel()


async def _closed(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
