"""`modelrepo delete`."""

from __future__ import annotations

import click

from modelrepo_cli.change import named_version
from modelrepo_cli.output import counted, plain, size
from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("reference", metavar="MODEL@VERSION")
@click.option("--reason", metavar="TEXT", help="Why; it is kept in the history.")
@click.option("--dry-run", is_flag=True, help="Say what only this version needs; change nothing.")
def command(call: Call, reference: str, reason: str | None, dry_run: bool) -> None:
    """Delete a version; prune frees its bytes.

    Neither the active version nor the one that a rollback would bring back can be deleted. The id stays taken for ever,
    and so does the version's manifest. Bytes that no other version has go when `modelrepo prune` has marked and, a day
    later, swept them. Run again, a deletion that was interrupted is gone through with.
    """
    model, version = named_version(reference)
    repository = call.repository()
    if dry_run:
        plan = repository.plan_deletion(model, version)
        bundles = f", with {counted(plan.bundles, 'bundle')} of its environment" if plan.bundles else ""
        freed = f"{counted(plan.objects, 'object')} of {size(plan.freed_bytes)}{bundles}"
        text = f"would delete {model}@{version}; {freed}, which nothing else names, would go with prune"
        call.output.show({**plain(plan), "dry_run": True}, text)
        return
    entry = repository.delete(model, version, reason)
    text = (
        f"{model}@{version} is deleted (generation {entry.generation}); its bytes go when `modelrepo prune` marks and, "
        "a day later, sweeps them"
    )
    call.output.show({"model": model, **entry.to_json()}, text)
