"""`modelrepo promote`."""

from __future__ import annotations

import click

from modelrepo_cli.change import WAIT, checked_config, describe, finish, named_version
from modelrepo_cli.verbs import Call, verb


@verb("repo", "queue", "token")
@click.argument("reference", metavar="MODEL@VERSION")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key of `config:`; repeat it.")
@click.option("--unset", multiple=True, metavar="KEY", help="Override it no longer; repeat it.")
@click.option("--max-unavailable", metavar="SHARE", help="How many slots may be away at once, such as 10% or 2.")
@click.option(
    "--max-fetching", type=click.IntRange(min=1), metavar="N", help="How many boxes of a cluster may fetch it at once."
)
@click.option("--expect", type=int, metavar="GENERATION", help="Fail unless this is the generation that is replaced.")
@click.option("--force", is_flag=True, help="Promote a blocked version all the same.")
@click.option("--retry", is_flag=True, help="Have workers that refused the version try it again at once.")
@click.option("--reason", metavar="TEXT", help="Why, for the history.")
@WAIT
def command(
    call: Call,
    reference: str,
    settings: tuple[str, ...],
    unset: tuple[str, ...],
    max_unavailable: str | None,
    max_fetching: int | None,
    expect: int | None,
    force: bool,
    retry: bool,
    reason: str | None,
    wait_s: float | None,
) -> None:
    """Make a version the active one.

    Workers see the change within a second or two and swap between two jobs. --wait returns when all have. Where it is
    active already, with the same config and rollout, nothing is written, unless --retry asks for it.
    """
    repository = call.repository()
    model, version = named_version(reference)
    if version.startswith("git:"):  # what is @active or @previous is found out with the change itself
        version = repository.resolve(reference).version
    config = checked_config(repository, reference, settings, unset, force=force)
    before = repository.promotions.history(model)
    entry = repository.promotions.promote(
        model,
        version,
        config_set=config or None,
        config_unset=unset,
        expect=expect,
        force=force,
        reason=reason,
        rollout=max_unavailable,
        max_fetching=max_fetching,
        retry=retry,
    )
    unchanged = entry in before
    finish(call, model, entry, describe(model, entry, unchanged=unchanged), wait_s, unchanged=unchanged)
