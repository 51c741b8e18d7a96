"""`modelrepo tiers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli import parameters
from modelrepo_cli.output import span, table
from modelrepo_cli.verbs import Call, VerbGroup, verb

if TYPE_CHECKING:
    from modelrepo_runtime.queue.port import Tier


@click.group(cls=VerbGroup)
def command() -> None:
    """Show and set tiers and their longest acceptable waits."""


@verb("queue", "token", name="list")
def list_tiers(call: Call) -> None:
    """List all tiers, the strictest first."""
    with call.job_queue() as queue:
        tiers = queue.tiers()
    rows = [(tier.name, span(tier.slo_s), f"{tier.allowed_miss:.0%}", _notes(tier)) for tier in tiers]
    call.output.show({"tiers": tiers}, table(("TIER", "SLO", "ALLOWED MISS", ""), rows))


@verb("queue", "token", name="set")
@click.argument("name")
@click.option("--slo", "slo_s", type=parameters.DURATION, metavar="TIME", help="The longest acceptable wait.")
@click.option("--allowed-miss", type=parameters.SHARE, metavar="SHARE", help="The part of jobs that may wait longer.")
@click.option(
    "--refuse-late/--no-refuse-late",
    default=None,
    help="Refuse jobs that would start later than the tier may wait, with the figure.",
)
def set_tier(call: Call, name: str, slo_s: float | None, allowed_miss: float | None, refuse_late: bool | None) -> None:
    """Add a tier or change one; jobs that wait are ranked by it at once."""
    if slo_s is None and allowed_miss is None and refuse_late is None:
        raise InvalidInput(f"nothing to set on tier {name!r}: say --slo, --allowed-miss or --refuse-late")
    with call.job_queue() as queue:
        tier = queue.set_tier(name, slo_s=slo_s, allowed_miss=allowed_miss, refuse_late=refuse_late)
    late = "; late jobs are refused" if tier.refuse_late else ""
    call.output.show(tier, f"{tier.name}: SLO {span(tier.slo_s)}, allowed miss {tier.allowed_miss:.0%}{late}")


@verb("queue", "token", name="default")
@click.argument("name")
def default(call: Call, name: str) -> None:
    """Choose the tier of jobs that name none."""
    with call.job_queue() as queue:
        queue.set_default_tier(name)
    call.output.show({"default": name}, f"jobs that name no tier are {name}")


def _notes(tier: Tier) -> str:
    notes = ("default" if tier.default else "", "late jobs are refused" if tier.refuse_late else "")
    return ", ".join(note for note in notes if note)


for _verb in (list_tiers, set_tier, default):
    command.add_command(_verb)
