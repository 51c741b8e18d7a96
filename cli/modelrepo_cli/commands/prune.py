"""`modelrepo prune`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from modelrepo_cli import parameters
from modelrepo_cli.output import counted, plain, size, span
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.maintenance.prune import PruneReport

DEFAULT_GRACE = "24h"
SWEPT = {
    "swept": "swept {id}: {deleted} deleted, {freed} freed",
    "cancelled": "{id} was called off by a push that wants some of it; what is garbage still is marked anew",
    "another's": "{id} is swept by another prune",
    "gone": "{id} was tidied away by another prune",
}


@verb("repo")
@click.option(
    "--grace",
    type=parameters.DURATION,
    default=DEFAULT_GRACE,
    show_default=True,
    metavar="TIME",
    help="How old garbage must be to be marked, and how long a mark waits to be swept; 1h at least.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done; delete and mark nothing.")
def command(call: Call, grace: float, dry_run: bool) -> None:
    """Free what nothing names any more, in two steps a day apart.

    It marks objects and bundles that no version names, and sweeps what an earlier run has marked; so run it daily, by
    cron say. It never waits, goes on where a run that was killed has stopped, and may run beside itself and everything
    else. A push that wants something marked calls the sweep off.
    """
    report = call.repository().prune(grace_s=grace, dry_run=dry_run)
    document = {**plain(report), "freed_bytes": report.freed_bytes, "marked_bytes": report.marked_bytes}
    call.output.show(document, "\n".join(_lines(report)))


def _lines(report: PruneReport) -> Iterator[str]:
    would = "would have " if report.dry_run else ""
    for sweep in report.swept:
        text = SWEPT[sweep.ending].format(id=sweep.id, deleted=sweep.deleted, freed=size(sweep.freed_bytes))
        yield would + text + _besides(sweep.kept, "needed again") + _besides(sweep.left, "left for want of time")
    for prune_id in report.abandoned:
        yield f"{would}closed {prune_id}, whose sweep was killed; what it left is marked anew"
    for mark in report.marked:
        bundles = f" and the bundles of {counted(mark.environments, 'environment')}" if mark.environments else ""
        yield (
            f"{would}marked {mark.id}: {counted(mark.objects, 'object')}{bundles}, {size(mark.size_bytes)}; "
            f"they may be swept in {span(report.grace_s)}"
        )
    for waiting in report.waiting:
        when = "is swept by another prune" if waiting.sweeping else f"may be swept in {span(waiting.due_in_s)}"
        yield f"{waiting.id} {when}: {counted(waiting.objects, 'object')}, {size(waiting.size_bytes)}"
    tidied = report.tidied
    if tidied.prunes or tidied.leases or tidied.temporaries:
        yield (
            f"{would}tidied up {counted(tidied.prunes, 'prune')}, {counted(tidied.leases, 'lease')} of pushes and "
            f"{counted(tidied.temporaries, 'half-written file')} of {size(tidied.temporary_bytes)}"
        )
    kept = report.kept
    owners = f"{counted(report.versions, 'version')} and {counted(report.bundles, 'bundle')}"
    yield (
        f"kept {counted(kept.needed, 'object')} of {size(kept.needed_bytes)}, which {owners} name"
        + _besides(kept.leased, "wanted by a push")
        + _besides(kept.young, f"younger than {span(report.grace_s)}")
    )


def _besides(count: int, what: str) -> str:
    return f", {count} {what}" if count else ""
