"""Who asks, and what they may: tokens are looked up here, and nowhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from modelrepo.errors import JobNotFound
from modelrepo_runtime.gateway.logs import note
from modelrepo_runtime.gateway.refusals import NotAllowed, Unauthenticated
from modelrepo_runtime.gateway.token_book import TokenBook
from modelrepo_runtime.jobs import Job
from modelrepo_runtime.queue.tokens import Grant, Role
from modelrepo_runtime.submissions import DEFAULT_TENANT

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})

bearer = HTTPBearer(auto_error=False, description="A token of `modelrepo token create`.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever makes a request."""

    name: str
    grant: Grant
    token_id: str | None = None
    """None: of somebody who needs no token."""

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
        if not self.may_serve(model):
            raise NotAllowed(f"token {self.name} is for {', '.join(self.grant.models)}, not for model {model!r}")

    def may_serve(self, model: str) -> bool:
        """Say whether the token is for this model."""
        return not self.grant.models or model in self.grant.models

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
        raise no_token()
    note(token=token.name, tenant=token.grant.tenant)
    return Caller(token.name, token.grant, token.id)


def no_token() -> Unauthenticated:
    """Return what is answered to a token that opens nothing, or nothing any more."""
    return Unauthenticated("the token is unknown, expired or revoked; ask your operator for another")


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
