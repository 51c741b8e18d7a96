"""The routes for boxes and operators: each call of the JobQueue port, and what a worker asks beyond it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from fastapi import Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from modelrepo.errors import InvalidInput, ModelRepoError, NewerFormat
from modelrepo.repository import Repository
from modelrepo_runtime.gateway.access import Caller, authenticate
from modelrepo_runtime.gateway.answers import on_error, on_http_error
from modelrepo_runtime.gateway.parts import Parts
from modelrepo_runtime.gateway.refusals import NotAllowed
from modelrepo_runtime.gateway.targets import Targets
from modelrepo_runtime.gateway.worker_api import telling
from modelrepo_runtime.gateway.worker_api.beats import Beats
from modelrepo_runtime.gateway.worker_api.bytes_api import BytesApi
from modelrepo_runtime.gateway.worker_api.polls import Polls
from modelrepo_runtime.gateway.worker_api.standing import Standing
from modelrepo_runtime.gateway.worker_api.waking import Listeners, Waking
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.queue.desired import Look
from modelrepo_runtime.queue.http.calls import (
    WORKER_CALLS,
    Call,
    Listened,
    ModelStanding,
    Welcome,
    calls,
    read_arguments,
    to_bytes,
)
from modelrepo_runtime.queue.http.wire import Misread, read, write
from modelrepo_runtime.queue.port import LONGEST_POLL_S, BeatCall, ClaimCall, WorkerInfo
from modelrepo_runtime.queue.tokens import Role
from modelrepo_runtime.remote.failures import PROTOCOL, PROTOCOL_HEADER
from modelrepo_runtime.timing import Timing

Handler: TypeAlias = Callable[[Request, Caller, dict[str, Json]], Awaitable[Json]]

LONGEST_LISTEN_S = 2.0
"""What waiting costs who listens: one request in so many seconds."""
ONE_CLUSTER = "local"


@dataclass(frozen=True, slots=True)
class _Route:
    """One path, what answers it, and whose tokens open it."""

    path: str
    handle: Handler
    role: Role


_WELCOME = "/v1/worker/welcome"
_REPOSITORY = "/v1/worker/repository/"


async def _no_document(*_: object) -> Json:
    raise HTTPException(404)


_READS_BYTES = _Route(f"{_REPOSITORY}{{key}}", _no_document, Role.WORKER)


class WorkerApi:
    """The application below /v1/worker and /v1/fleet, with waiting polls, beats to be told, and targets.

    Plain ASGI, and a call is found by its whole path: it is asked thousands of times a second.
    """

    def __init__(self, parts: Parts, repository: Repository, timing: Timing) -> None:
        self._parts, self._queue, self._repository, self._timing = parts, parts.queue, repository, timing
        run = parts.queue_calls.run
        self._waking = Waking(self._queue, lambda model: self.polls.wake(model))
        self.polls = Polls(lambda batch: run(self._queue.claim_all, batch), self._waking.listen)
        self._beats = Beats(lambda batch: run(self._queue.beat_all, batch))
        self._listeners = Listeners(self._queue, timing.queue_poll_s)
        local = repository.store.ability.local
        poll_s = timing.active_poll_local_s if local else timing.active_poll_bucket_s
        self.targets = Targets(repository, self._queue, poll_s)
        self._watching: dict[str, frozenset[str]] = {}
        self._standing = Standing(self._queue, timing)
        self._bytes = BytesApi(parts, repository)
        self._waits = parts.metrics.waits.labels("claim")
        self._routes = self._table()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what ends in half an answer is raised."""
        request = Request(scope, receive, send)
        try:
            response = await self._answer(request)
        except ModelRepoError as error:
            response = await on_error(request, error)
        except HTTPException as error:
            response = await on_http_error(request, error)
        await response(scope, receive, send)

    def _table(self) -> Mapping[str, _Route]:
        special: dict[str, Handler] = {
            "hello": self._hello,
            "claim": self._claim,
            "beat": self._beat,
            "finish": self._finish,
        }
        found: dict[str, _Route] = {}
        for call in calls().values():
            role = Role.WORKER if call.name in WORKER_CALLS else Role.OPERATE
            found[call.path] = _Route(call.path, special.get(call.name) or partial(self._pass_on, call), role)
        for path, handle, role in (
            (_WELCOME, self._welcome, Role.WORKER),
            ("/v1/worker/targets", self._tell_targets, Role.WORKER),
            ("/v1/worker/standing", self._tell_standing, Role.WORKER),
            ("/v1/fleet/listen", self._listen, Role.OPERATE),
            ("/v1/fleet/listen-no-more", self._listen_no_more, Role.OPERATE),
            ("/v1/worker/repository/look", self._bytes.look, Role.WORKER),
            ("/v1/worker/repository/list", self._bytes.list, Role.WORKER),
            ("/v1/worker/objects", self._bytes.objects, Role.WORKER),
            ("/v1/worker/files", self._bytes.files, Role.WORKER),
        ):
            found[path] = _Route(path, handle, role)
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run what is behind the routes."""
        loop = asyncio.get_running_loop()

        def changed(model: str) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._target_changed, model)

        self._parts.at_stop.append(self.polls.stop_waiting)
        self.targets.on_change(changed)
        self.targets.start()
        try:
            yield
        finally:
            await self.polls.close()
            await self._beats.close()
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._waking.close()
        self._listeners.close()
        self.targets.close()

    # Every request.

    async def _answer(self, request: Request) -> Response:
        path: str = request.scope["path"]  # not that of its URL, of which the client writes the host
        route = self._routes.get(path)
        if route is None or request.method != ("GET" if path == _WELCOME else "POST"):
            if request.method == "GET" and path.startswith(_REPOSITORY):
                request.scope["route"] = _READS_BYTES
                caller = await self._caller(request, Role.WORKER)
                return await self._bytes.read(request, path.removeprefix(_REPOSITORY), caller)
            raise HTTPException(404 if route is None else 405)
        request.scope["route"] = route  # what the request is counted under
        caller = await self._caller(request, route.role)
        document = await route.handle(request, caller, await _body(request))
        return Response(to_bytes(document, "the answer"), media_type="application/json")

    async def _caller(self, request: Request, role: Role) -> Caller:
        _check_protocol(request.headers.get(PROTOCOL_HEADER))
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        is_token = scheme.lower() == "bearer" and text.strip()
        caller = await authenticate(self._parts.tokens, request, text.strip() if is_token else None)
        if caller.grant.role not in (role, Role.OPERATE):
            raise NotAllowed(f"token {caller.name} has the role {caller.grant.role}; this is for {role}")
        return caller

    # The port's calls.

    async def _pass_on(self, call: Call, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        arguments = read_arguments(call, body)
        if isinstance(arguments.get("model"), str):
            caller.check_model(arguments["model"])
        telling.asked(arguments)
        method: Callable[..., Any] = getattr(self._queue, call.name)
        answer = await self._parts.queue_calls.run(partial(_invoke, method, arguments))
        telling.done(call.name, arguments)
        return {"answer": write(call.answer, answer)}

    async def _hello(self, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        info: WorkerInfo = read_arguments(calls()["hello"], body)["info"]
        info = replace(info, cluster=caller.grant.cluster or info.cluster)
        session = await self._parts.queue_calls.run(self._queue.hello, info)
        return {"answer": write(type(session), session), "welcome": write(Welcome, self._welcome_of(caller))}

    async def _claim(self, request: Request, caller: Caller, body: dict[str, Json]) -> Json:
        given = read_arguments(calls()["claim"], body)
        call = ClaimCall(given["session"], given["seq"], given["offers"])
        if call.seq < 0:
            raise InvalidInput(f"cannot claim with sequence number {call.seq}: it must not be negative")
        for offer in call.offers:
            caller.check_model(offer.model)
        known = read(dict[str, int], body.get("known", {}), "claim.known")
        wait_s = min(LONGEST_POLL_S, read(float, body.get("wait_s", 0.0), "claim.wait_s"))
        self.targets.ask(known)
        if wait_s > 0 and self._newer(caller, known):
            wait_s = 0.0
        self._watching[call.session.id] = frozenset(known)
        gone = asyncio.ensure_future(_gone(request)) if wait_s > 0 else None
        try:
            with self._waits.track_inprogress():
                claims = await self.polls.claim(call, wait_s, caller.grant.cluster, gone)
        finally:
            if gone is not None:
                gone.cancel()
            self._watching.pop(call.session.id, None)
        telling.claimed(claims)
        return self._with_targets(caller, known, {"answer": write(calls()["claim"].answer, claims)})

    async def _beat(self, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        given = read_arguments(calls()["beat"], body)
        known = read(dict[str, int], body.get("known", {}), "beat.known")
        reply = await self._beats.beat(BeatCall(given["session"], given["held"], given["slots"]))
        return self._with_targets(caller, known, {"answer": write(type(reply), reply)})

    async def _finish(self, request: Request, caller: Caller, body: dict[str, Json]) -> Json:
        call = calls()["finish"]
        then = read_arguments(call, body).get("then")
        if then is not None:
            caller.check_model(then.model)
        return await self._pass_on(call, request, caller, body)

    # Beyond the port.

    async def _welcome(self, _: Request, caller: Caller, __: dict[str, Json]) -> Json:
        return write(Welcome, self._welcome_of(caller))

    def _welcome_of(self, caller: Caller) -> Welcome:
        grant = caller.grant
        return Welcome(grant.cluster or ONE_CLUSTER, grant.models, self._repository.url, self._timing)

    async def _tell_targets(self, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        models = read(tuple[str, ...], body.get("models"), "targets.models")
        known = read(dict[str, int], body.get("known", {}), "targets.known")
        if body.get("active"):
            names = await self._parts.store_calls.run(self.targets.models)
            return {"models": [name for name in names if _may(caller, name)]}
        await self._parts.store_calls.run(self.targets.look, models)
        return self._with_targets(caller, {model: known.get(model, 0) for model in models}, {})

    async def _tell_standing(self, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        models = read(tuple[str, ...], body.get("models"), "standing.models")
        found = await self._parts.queue_calls.run(self._standing.of, models)
        return write(dict[str, ModelStanding], {model: found[model] for model in models if _may(caller, model)})

    async def _listen(self, _: Request, __: Caller, body: dict[str, Json]) -> Json:
        models = read(tuple[str, ...], body.get("models"), "listen.models")
        jobs = read(tuple[str, ...], body.get("jobs"), "listen.jobs")
        timeout_s = min(LONGEST_LISTEN_S, read(float, body.get("timeout_s"), "listen.timeout_s"))
        return write(Listened, await self._listeners.listen(body.get("listener"), models, jobs, timeout_s))

    async def _listen_no_more(self, _: Request, __: Caller, body: dict[str, Json]) -> Json:
        await self._listeners.forget(read(str, body.get("listener"), "listen-no-more.listener"))
        return {}

    def _target_changed(self, model: str) -> None:
        """Answer polls of boxes that serve a model: the answer carries its new target."""
        watching = self._watching
        self.polls.end_all(lambda poll: model in watching.get(poll.call.session.id, ()))

    def _newer(self, caller: Caller, known: Mapping[str, int]) -> tuple[Look, ...]:
        return self.targets.newer({model: seq for model, seq in known.items() if _may(caller, model)})

    def _with_targets(self, caller: Caller, known: Mapping[str, int], document: dict[str, Json]) -> Json:
        newer = self._newer(caller, known)
        return {**document, "targets": write(tuple[Look, ...], newer)} if newer else document


def _may(caller: Caller, model: str) -> bool:
    return not caller.grant.models or model in caller.grant.models


def _invoke(method: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    return method(**arguments)


def _check_protocol(told: str | None) -> None:
    """Raises: NewerFormat unless the peer speaks our protocol or the one before."""
    if told in (str(PROTOCOL), str(PROTOCOL - 1)):
        return
    spoken = f"protocol {told}" if told else "no protocol"
    raise NewerFormat(
        f"cannot answer a peer of {spoken}: this gateway speaks {PROTOCOL} and {PROTOCOL - 1}; upgrade gateways first, "
        "then workers"
    )


async def _body(request: Request) -> dict[str, Json]:
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


async def _gone(request: Request) -> None:
    """Return once the client has closed its connection; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
