"""The routes for boxes and operators: each call of the JobQueue port, and what a worker asks beyond it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from modelrepo.errors import InvalidInput, ModelRepoError
from modelrepo.repository import Repository
from modelrepo_runtime.gateway.access import Caller, authenticate, no_token
from modelrepo_runtime.gateway.answers import on_error, on_http_error
from modelrepo_runtime.gateway.parts import Parts
from modelrepo_runtime.gateway.refusals import NotAllowed
from modelrepo_runtime.gateway.targets import Targets
from modelrepo_runtime.gateway.worker_api import telling
from modelrepo_runtime.gateway.worker_api.asking import Handler, Route, body_of, check_protocol, going
from modelrepo_runtime.gateway.worker_api.beats import Beats
from modelrepo_runtime.gateway.worker_api.bytes_api import BytesApi
from modelrepo_runtime.gateway.worker_api.news_api import ONE_CLUSTER, NewsApi
from modelrepo_runtime.gateway.worker_api.polls import Polls
from modelrepo_runtime.gateway.worker_api.waking import Waking
from modelrepo_runtime.jobs import Claim, Json
from modelrepo_runtime.queue.http.calls import WORKER_CALLS, Call, Welcome, calls, read_arguments, to_bytes
from modelrepo_runtime.queue.http.wire import read, write
from modelrepo_runtime.queue.port import LONGEST_POLL_S, BeatCall, ClaimCall, WorkerInfo
from modelrepo_runtime.queue.tokens import Role
from modelrepo_runtime.remote.failures import PROTOCOL_HEADER
from modelrepo_runtime.timing import Timing

_WELCOME = "/v1/worker/welcome"
_REPOSITORY = "/v1/worker/repository/"


async def _no_document(*_: object) -> Json:
    raise HTTPException(404)


_READS_BYTES = Route(f"{_REPOSITORY}{{key}}", _no_document, Role.WORKER)


class WorkerApi:
    """The application below /v1/worker and /v1/fleet, with waiting polls, beats to be told, and targets.

    Plain ASGI, and a call is found by its whole path: it is asked thousands of times a second.
    """

    def __init__(self, parts: Parts, repository: Repository, timing: Timing) -> None:
        self._parts, self._queue = parts, parts.queue
        run = parts.queue_calls.run
        self._waking = Waking(self._queue, lambda model: self.polls.wake(model))
        self.polls = Polls(lambda batch: run(self._queue.claim_all, batch), self._waking.listen)
        self._beats = Beats(lambda batch: run(self._queue.beat_all, batch))
        local = repository.store.ability.local
        poll_s = timing.active_poll_local_s if local else timing.active_poll_bucket_s
        self.targets = Targets(repository, self._queue, poll_s)
        self._watching: dict[str, frozenset[str]] = {}
        self._news = NewsApi(parts, repository, self.targets, timing)
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

    def _table(self) -> Mapping[str, Route]:
        special: dict[str, Handler] = {
            "hello": self._hello,
            "claim": self._claim,
            "beat": self._beat,
            "finish": self._finish,
        }
        found: dict[str, Route] = {}
        for call in calls().values():
            role = Role.WORKER if call.name in WORKER_CALLS else Role.OPERATE
            found[call.path] = Route(call.path, special.get(call.name) or partial(self._pass_on, call), role)
        for path, handle, role in (
            (_WELCOME, self._news.welcome, Role.WORKER),
            ("/v1/worker/targets", self._news.targets, Role.WORKER),
            ("/v1/worker/standing", self._news.standing, Role.WORKER),
            ("/v1/worker/demand", self._news.demand, Role.WORKER),
            ("/v1/fleet/listen", self._news.listen, Role.OPERATE),
            ("/v1/fleet/listen-no-more", self._news.listen_no_more, Role.OPERATE),
            ("/v1/worker/repository/look", self._bytes.look, Role.WORKER),
            ("/v1/worker/repository/list", self._bytes.list, Role.WORKER),
            ("/v1/worker/objects", self._bytes.objects, Role.WORKER),
            ("/v1/worker/files", self._bytes.files, Role.WORKER),
        ):
            found[path] = Route(path, handle, role)
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
        self._news.close()
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
        document = await route.handle(request, caller, await body_of(request))
        return Response(to_bytes(document, "the answer"), media_type="application/json")

    async def _caller(self, request: Request, role: Role) -> Caller:
        check_protocol(request.headers.get(PROTOCOL_HEADER))
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
        own = caller.grant.cluster
        if own is not None and info.cluster not in (own, ONE_CLUSTER):
            raise NotAllowed(
                f"token {caller.name} is for cluster {own!r}, and worker {info.name} says --cluster {info.cluster};"
                f" leave --cluster out, or give the box a token of `modelrepo token create --cluster {info.cluster}`"
            )
        info = replace(info, cluster=own or info.cluster)
        session = await self._parts.queue_calls.run(self._queue.hello, info)
        return {"answer": write(type(session), session), "welcome": write(Welcome, self._news.welcome_of(caller))}

    async def _claim(self, request: Request, caller: Caller, body: dict[str, Json]) -> Json:
        given = read_arguments(calls()["claim"], body)
        call = ClaimCall(given["session"], given["seq"], given["offers"])
        if call.seq < 0:
            raise InvalidInput(f"cannot claim with sequence number {call.seq}: it must not be negative")
        await self._news.check_models(caller, (offer.model for offer in call.offers))
        known = read(dict[str, int], body.get("known", {}), "claim.known")
        wait_s = min(LONGEST_POLL_S, read(float, body.get("wait_s", 0.0), "claim.wait_s"))
        if wait_s > 0 and self._news.newer(caller, known):
            wait_s = 0.0
        claims = await self._poll(request, caller, call, wait_s, frozenset(known))
        telling.claimed(claims)
        return self._news.with_targets(caller, known, {"answer": write(calls()["claim"].answer, claims)})

    async def _poll(
        self, request: Request, caller: Caller, call: ClaimCall, wait_s: float, watched: frozenset[str]
    ) -> tuple[Claim, ...]:
        """Claim, and wait for jobs as long as the client and its token are there. Raises: Unauthenticated."""
        cluster = caller.grant.cluster
        if wait_s <= 0:
            return await self.polls.claim(call, 0.0, cluster)
        self._watching[call.session.id] = watched
        try:
            with (
                self._waits.track_inprogress(),
                self._parts.tokens.waiting(caller.token_id) as lapsed,
                going(request, lapsed) as gone,
            ):
                claims = await self.polls.claim(call, wait_s, cluster, gone)
        finally:
            self._watching.pop(call.session.id, None)
        if lapsed.done() and not claims:
            raise no_token()
        return claims

    async def _beat(self, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        given = read_arguments(calls()["beat"], body)
        known = read(dict[str, int], body.get("known", {}), "beat.known")
        reply = await self._beats.beat(BeatCall(given["session"], given["held"], given["slots"]))
        return self._news.with_targets(caller, known, {"answer": write(type(reply), reply)})

    async def _finish(self, request: Request, caller: Caller, body: dict[str, Json]) -> Json:
        call = calls()["finish"]
        then = read_arguments(call, body).get("then")
        if then is not None:
            caller.check_model(then.model)
        return await self._pass_on(call, request, caller, body)

    def _target_changed(self, model: str) -> None:
        """Answer polls of boxes that serve a model: the answer carries its new target."""
        watching = self._watching
        self.polls.end_all(lambda poll: model in watching.get(poll.call.session.id, ()))


def _invoke(method: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    return method(**arguments)
