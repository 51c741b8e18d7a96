"""`modelrepo tenants`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli.output import table
from modelrepo_cli.verbs import Call, VerbGroup, verb

if TYPE_CHECKING:
    from modelrepo_runtime.queue.order_settings import Tenant

ANY = "any"


@click.group(cls=VerbGroup)
def command() -> None:
    """Show and set the shares that tenants have of a tier."""


@verb("queue", "token", name="list")
def list_tenants(call: Call) -> None:
    """List the tenants that have submitted jobs or were set."""
    with call.job_queue() as queue:
        tenants = queue.tenants()
    rows = [(tenant.name, f"{tenant.weight:g}", _burst(tenant)) for tenant in tenants]
    call.output.show({"tenants": tenants}, table(("TENANT", "WEIGHT", "BURST"), rows))


@verb("queue", "token", name="set")
@click.argument("name")
@click.option("--weight", type=float, metavar="NUMBER", help="Its share beside those of the other tenants of a tier.")
@click.option("--burst", metavar=f"JOBS|{ANY}", help="How many jobs it may be ahead before the rest stands back.")
def set_tenant(call: Call, name: str, weight: float | None, burst: str | None) -> None:
    """Set a tenant's share; it holds for jobs that are submitted from now on."""
    if weight is None and burst is None:
        raise InvalidInput(f"nothing to set on tenant {name!r}: say --weight, --burst or both")
    with call.job_queue() as queue:
        tenant = queue.set_tenant(name, weight=weight, burst_jobs=_jobs(burst), any_burst=burst == ANY)
    call.output.show(tenant, f"{tenant.name}: weight {tenant.weight:g}, burst {_burst(tenant)}")


def _jobs(burst: str | None) -> float | None:
    if burst is None or burst == ANY:
        return None
    try:
        return float(burst)
    except ValueError:
        raise InvalidInput(f"cannot read --burst {burst!r}: give a number of jobs, or {ANY!r}") from None


def _burst(tenant: Tenant) -> str:
    return ANY if tenant.burst_jobs is None else f"{tenant.burst_jobs:g} jobs"


for _verb in (list_tenants, set_tenant):
    command.add_command(_verb)
