"""`modelrepo token`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli import parameters
from modelrepo_cli.output import table
from modelrepo_cli.verbs import Call, VerbGroup, verb

if TYPE_CHECKING:
    from modelrepo_runtime.queue.tokens import Token

ROLES = ("submit", "worker", "operate")


@click.group(cls=VerbGroup)
def command() -> None:
    """Make, list and revoke the tokens of a gateway."""


@verb("queue", name="create")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="Jobs of a tenant, a box, or an operator.")
@click.option("--tenant", metavar="NAME", help="submit: on whose behalf; it sees the jobs of nobody else.")
@click.option("--any-tenant", is_flag=True, help="submit: each job says on whose behalf; it sees all jobs.")
@click.option("--tiers", metavar="A,B", help="submit: only these classes of users.")
@click.option("--max-queued", type=click.IntRange(1), metavar="N", help="submit: jobs of the tenant that may wait.")
@click.option("--models", metavar="A,B", help="Only these models.")
@click.option("--cluster", metavar="NAME", help="worker: the cluster that its box belongs to.")
@click.option("--expires", "life_s", type=parameters.DURATION, metavar="TIME", help="For so long, such as 90d.")
def create(
    call: Call,
    name: str,
    role: str,
    tenant: str | None,
    any_tenant: bool,
    tiers: str | None,
    max_queued: int | None,
    models: str | None,
    cluster: str | None,
    life_s: float | None,
) -> None:
    """Make a token and print it, this once.

    The queue keeps only its hash. From the first token on, a gateway answers nobody without one.
    """
    from modelrepo_runtime.queue.tokens import Grant, Role, token_store

    if role == "submit" and (tenant is None) != any_tenant:
        raise InvalidInput(f"cannot make token {name}: say on whose behalf it submits, --tenant NAME or --any-tenant")
    if any_tenant and role != "submit":
        raise InvalidInput(f"cannot make token {name}: --any-tenant is for the role submit, this one is {role}")
    grant = Grant(Role(role), tenant, _names(tiers), _names(models), cluster, max_queued)
    with call.job_queue() as queue:
        token, text = token_store(queue).create(name, grant, life_s=life_s)
    call.output.show({**_plain(token), "token": text}, text)
    call.output.note("keep it where only its user can read it; it is not shown again")


@verb("queue", name="list")
def list_tokens(call: Call) -> None:
    """List all tokens, also those that ended; never what opens anything."""
    from modelrepo_runtime.queue.tokens import token_store

    with call.job_queue() as queue:
        tokens = [_plain(token) for token in token_store(queue).all()]
    rows = [(each["name"], each["role"], _scope(each), each["state"], each["expires_at"] or "never") for each in tokens]
    call.output.show({"tokens": tokens}, table(("NAME", "ROLE", "FOR", "STATE", "EXPIRES"), rows))


@verb("queue", name="revoke")
@click.argument("name")
def revoke(call: Call, name: str) -> None:
    """End a token; gateways know it within five seconds."""
    from modelrepo_runtime.queue.tokens import token_store

    with call.job_queue() as queue:
        token = token_store(queue).revoke(name)
    call.output.show(_plain(token), f"{name} is revoked")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def _plain(token: Token) -> dict[str, Any]:
    import time

    from modelrepo_runtime.jobs import timestamp

    grant = token.grant
    ended = "revoked" if token.revoked_at is not None else "expired"
    return {
        "name": token.name,
        "id": token.id,
        "role": grant.role.value,
        "tenant": grant.tenant,
        "tiers": list(grant.tiers),
        "models": list(grant.models),
        "cluster": grant.cluster,
        "max_queued": grant.max_queued,
        "created_at": timestamp(token.created_at),
        "expires_at": timestamp(token.expires_at),
        "revoked_at": timestamp(token.revoked_at),
        "state": "live" if token.live(time.time()) else ended,
    }


def _scope(token: dict[str, Any]) -> str:
    if token["role"] == "submit":
        scope = f"tenant {token['tenant']}" if token["tenant"] else "any tenant"
        return scope + (f", tiers {','.join(token['tiers'])}" if token["tiers"] else "")
    if token["role"] == "worker":
        return f"cluster {token['cluster'] or 'as the box says'}"
    return "everything"


for _verb in (create, list_tokens, revoke):
    command.add_command(_verb)
