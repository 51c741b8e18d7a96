"""Who asks, and what they may: tokens are looked up here, and nowhere else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from modelrepo.errors import JobNotFound, Unreachable
from modelrepo_runtime.gateway.calls import Calls
from modelrepo_runtime.gateway.logs import note
from modelrepo_runtime.gateway.refusals import NotAllowed, Unauthenticated
from modelrepo_runtime.jobs import Job
from modelrepo_runtime.queue.tokens import Grant, Role, Token, TokenStore, opens, read_token

DEFAULT_TENANT = "default"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_MOST_CACHED = 20_000

bearer = HTTPBearer(auto_error=False, description="A token of `modelrepo token create`.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever makes a request."""

    name: str
    grant: Grant

    @property
    def sees_all(self) -> bool:
        """True for whom no tenant is another's."""
        return self.grant.tenant is None

    def tenant_of(self, wanted: str | None) -> str:
        """Return the tenant that a submission is for. Raises: NotAllowed."""
        own = self.grant.tenant
        if own is not None and wanted not in (None, own):
            raise NotAllowed(f"token {self.name} submits for tenant {own!r} only; leave `tenant` out")
        return own or wanted or DEFAULT_TENANT

    def check_model(self, model: str) -> None:
        """Raises: NotAllowed where the token is not for this model."""
        if self.grant.models and model not in self.grant.models:
            raise NotAllowed(f"token {self.name} is for {', '.join(self.grant.models)}, not for model {model!r}")

    def check_tier(self, tier: str | None, default: str) -> None:
        """Raises: NotAllowed where the token is not for this tier, or for the default one where none is named."""
        if self.grant.tiers and (tier or default) not in self.grant.tiers:
            tiers = ", ".join(self.grant.tiers)
            raise NotAllowed(f"token {self.name} is for tiers {tiers}, not for {tier or default!r}")

    def own(self, job: Job) -> Job:
        """Return a job of the caller's tenant. Raises: JobNotFound for another's, as for one that is not there."""
        if self.grant.tenant not in (None, job.tenant):
            raise JobNotFound(f"no job {job.id}")
        return job


EVERYBODY = Caller("nobody", Grant(Role.OPERATE))
"""Who asks a gateway that has no tokens, on its own box."""


class TokenBook:
    """Tokens as the gateway knows them: each is looked up once in a while, so that a claim costs no query."""

    def __init__(
        self,
        store: TokenStore,
        calls: Calls,
        *,
        life_s: float,
        open_to_all: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._calls, self._life_s, self._clock = store, calls, life_s, clock
        self._open_to_all = open_to_all
        self._known: dict[str, tuple[Token | None, float]] = {}
        self._looking: dict[str, asyncio.Future[Token | None]] = {}
        self._some: tuple[bool, float] = (False, float("-inf"))

    async def find(self, text: str) -> Token | None:
        """Return the live token that this is, None where it is none. Raises: Unreachable."""
        parts = read_token(text)
        if parts is None:
            return None
        token_id, secret = parts
        token = await self._look_up(token_id)
        return token if opens(token, secret) else None

    async def is_open(self) -> bool:
        """Say whether nobody needs a token: on a gateway for its own box, until there is one. Raises: Unreachable."""
        if not self._open_to_all:
            return False
        some, until = self._some
        if self._clock() >= until:
            some = some or bool(await self._calls.run(self._store.all))
            self._some = (some, self._clock() + self._life_s)
        return not some

    async def _look_up(self, token_id: str) -> Token | None:
        known, until = self._known.get(token_id, (None, float("-inf")))
        if self._clock() < until:
            return known
        looking = self._looking.get(token_id)
        if looking is None:  # of thousands that come with one token at once, one looks it up
            looking = self._looking[token_id] = asyncio.ensure_future(self._find(token_id, known, until))
            looking.add_done_callback(lambda _: self._looking.pop(token_id, None))
        return await asyncio.shield(looking)

    async def _find(self, token_id: str, known: Token | None, until: float) -> Token | None:
        try:
            known = await self._calls.run(self._store.find, token_id)
        except Unreachable:
            if known is None or self._clock() > until + 3600.0:
                raise
            return known  # an outage of the database is no reason to turn away those who were known
        if len(self._known) >= _MOST_CACHED:
            self._known.clear()
        self._known[token_id] = (known, self._clock() + self._life_s)
        return known


async def authenticate(book: TokenBook, request: Request, text: str | None) -> Caller:
    """Return whose token `text` is. Raises: Unauthenticated, Unreachable; NotAllowed for a page in a browser."""
    if text is None:
        if not await book.is_open():
            raise Unauthenticated("a token is needed: send `Authorization: Bearer ..`, from `modelrepo token create`")
        if (request.url.hostname or "") not in LOOPBACK or "origin" in request.headers:
            raise NotAllowed("without tokens the gateway answers programs of its own box only; make a token")
        return EVERYBODY
    token = await book.find(text)
    if token is None:
        raise Unauthenticated("the token is unknown, expired or revoked; ask your operator for another")
    note(token=token.name, tenant=token.grant.tenant)
    return Caller(token.name, token.grant)


def allow(*roles: Role) -> Callable[..., Awaitable[Caller]]:
    """Return a dependency that lets callers of these roles in, and operators always."""

    async def dependency(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
    ) -> Caller:
        text = credentials.credentials if credentials is not None else None
        caller = await authenticate(request.app.state.parts.tokens, request, text)
        if caller.grant.role not in (*roles, Role.OPERATE):
            raise NotAllowed(f"token {caller.name} has the role {caller.grant.role}; this is for {', '.join(roles)}")
        return caller

    return dependency


submitter, worker, operator = allow(Role.SUBMIT), allow(Role.WORKER), allow(Role.OPERATE)
Submitter = Annotated[Caller, Depends(submitter)]
WorkerCaller = Annotated[Caller, Depends(worker)]
Operator = Annotated[Caller, Depends(operator)]
