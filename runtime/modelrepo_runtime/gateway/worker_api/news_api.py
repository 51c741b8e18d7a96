"""What a gateway tells beyond the queue's calls: targets, how models stand, and that there is news."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastapi import Request

from modelrepo.errors import ModelNotFound
from modelrepo.repository import Repository
from modelrepo_runtime.gateway.access import Caller
from modelrepo_runtime.gateway.parts import Parts
from modelrepo_runtime.gateway.targets import Targets
from modelrepo_runtime.gateway.worker_api.standing import Standing
from modelrepo_runtime.gateway.worker_api.waking import Listeners
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.queue.demand import LaneDemand
from modelrepo_runtime.queue.desired import Look
from modelrepo_runtime.queue.http.calls import Listened, ModelStanding, Welcome
from modelrepo_runtime.queue.http.wire import read, write
from modelrepo_runtime.timing import Timing

LONGEST_LISTEN_S = 2.0
"""What waiting costs who listens: one request in so many seconds."""
ONE_CLUSTER = "local"


class NewsApi:
    """What the routes do that tell of models. Names count that the repository lists: each costs a thread and a row."""

    def __init__(self, parts: Parts, repository: Repository, targets: Targets, timing: Timing) -> None:
        self._parts, self._repository, self._targets, self._timing = parts, repository, targets, timing
        self._standing = Standing(parts.queue, timing)
        self._listeners = Listeners(parts.queue, timing.queue_poll_s)

    def close(self) -> None:
        """Tell no more."""
        self._listeners.close()

    async def welcome(self, _: Request, caller: Caller, __: dict[str, Json]) -> Json:
        """Tell a box before its first session all that it has to know."""
        return write(Welcome, self.welcome_of(caller))

    def welcome_of(self, caller: Caller) -> Welcome:
        """Return the same."""
        grant = caller.grant
        return Welcome(grant.cluster or ONE_CLUSTER, grant.models, self._repository.url, self._timing)

    async def targets(self, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        """Tell the targets of models now; with `active`, name the models that have one."""
        models = read(tuple[str, ...], body.get("models"), "targets.models")
        known = read(dict[str, int], body.get("known", {}), "targets.known")
        if body.get("active"):
            names = await self._parts.store_calls.run(self._targets.models)
            return {"models": [name for name in names if caller.may_serve(name)]}
        models = await self._listed(model for model in models if caller.may_serve(model))
        await self._parts.store_calls.run(self._targets.look, models)
        return self.with_targets(caller, {model: known.get(model, 0) for model in models}, {})

    async def standing(self, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        """Say how many jobs wait for models, and how many slots serve them."""
        wanted = tuple(filter(caller.may_serve, read(tuple[str, ...], body.get("models"), "standing.models")))
        models = await self._listed(wanted)
        found = await self._parts.queue_calls.run(self._standing.of, models)
        nothing = ModelStanding(0, 0)
        return write(dict[str, ModelStanding], {model: found.get(model, nothing) for model in wanted})

    async def demand(self, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        """Say what waits for models, lane by lane."""
        wanted = filter(caller.may_serve, read(tuple[str, ...], body.get("models"), "demand.models"))
        found = await self._parts.queue_calls.run(self._standing.demand, await self._listed(wanted))
        return write(dict[str, tuple[LaneDemand, ...]], dict(found))

    async def listen(self, _: Request, __: Caller, body: dict[str, Json]) -> Json:
        """Wait a moment for news of models and jobs."""
        models = read(tuple[str, ...], body.get("models"), "listen.models")
        jobs = read(tuple[str, ...], body.get("jobs"), "listen.jobs")
        timeout_s = min(LONGEST_LISTEN_S, read(float, body.get("timeout_s"), "listen.timeout_s"))
        return write(Listened, await self._listeners.listen(body.get("listener"), models, jobs, timeout_s))

    async def listen_no_more(self, _: Request, __: Caller, body: dict[str, Json]) -> Json:
        """End a listener."""
        await self._listeners.forget(read(str, body.get("listener"), "listen-no-more.listener"))
        return {}

    async def check_models(self, caller: Caller, models: Iterable[str]) -> None:
        """Raises: NotAllowed for a model that the token is not for; ModelNotFound for one that is nowhere."""
        names = tuple(dict.fromkeys(models))
        for model in names:
            caller.check_model(model)
        if strangers := set(names) - set(await self._listed(names)):
            raise ModelNotFound(
                f"cannot serve {min(strangers)[:64]!a}: the repository has no such model; push it first"
            )

    def newer(self, caller: Caller, known: Mapping[str, int]) -> tuple[Look, ...]:
        """Return the targets of a caller's models that have a higher number than is known of them."""
        return self._targets.newer({model: seq for model, seq in known.items() if caller.may_serve(model)})

    def with_targets(self, caller: Caller, known: Mapping[str, int], document: dict[str, Json]) -> Json:
        """Return an answer, with newer targets where there are some."""
        newer = self.newer(caller, known)
        return {**document, "targets": write(tuple[Look, ...], newer)} if newer else document

    async def _listed(self, models: Iterable[str]) -> tuple[str, ...]:
        """Leave out what the repository does not list; it is asked only about names that are new here."""
        names = tuple(models)
        if all(map(self._targets.knows, names)):
            return names
        return await self._parts.store_calls.run(self._targets.listed, names)
