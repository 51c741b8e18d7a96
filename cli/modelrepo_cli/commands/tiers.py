"""`modelrepo tiers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
@click.option("--keep-files", "keep_files_s", type=parameters.DURATION, metavar="TIME", help="Files of its jobs [7d].")
@click.option("--keep-jobs", "keep_jobs_s", type=parameters.DURATION, metavar="TIME", help="Its ended jobs [30d].")
def set_tier(call: Call, name: str, **figures: Any) -> None:
    """Add a tier or change one; jobs that wait are ranked by it at once."""
    if all(figure is None for figure in figures.values()):
        raise InvalidInput(f"nothing to set on tier {name!r}: say --slo, --allowed-miss or another of its figures")
    with call.job_queue() as queue:
        tier = queue.set_tier(name, **figures)
    told = [f"SLO {span(tier.slo_s)}", f"allowed miss {tier.allowed_miss:.0%}", _notes(tier)]
    call.output.show(tier, f"{tier.name}: " + ", ".join(each for each in told if each))


@verb("queue", "token", name="default")
@click.argument("name")
def default(call: Call, name: str) -> None:
    """Choose the tier of jobs that name none."""
    with call.job_queue() as queue:
        queue.set_default_tier(name)
    call.output.show({"default": name}, f"jobs that name no tier are {name}")


def _notes(tier: Tier) -> str:
    notes = (
        "default" if tier.default else "",
        "late jobs are refused" if tier.refuse_late else "",
        f"files kept {span(tier.keep_files_s)}" if tier.keep_files_s is not None else "",
        f"jobs kept {span(tier.keep_jobs_s)}" if tier.keep_jobs_s is not None else "",
    )
    return ", ".join(note for note in notes if note)


for _verb in (list_tiers, set_tier, default):
    command.add_command(_verb)
