"""`modelrepo promote`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli import parameters
from modelrepo_cli.change import WAIT, describe, finish, named_version
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.versions.version import Version


@verb("repo", "queue")
@click.argument("reference", metavar="MODEL@VERSION")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key of `config:`; repeat it.")
@click.option("--max-unavailable", metavar="SHARE", help="How many slots may be away at once, such as 10% or 2.")
@click.option("--expect", type=int, metavar="GENERATION", help="Fail unless this is the generation that is replaced.")
@click.option("--force", is_flag=True, help="Promote a blocked version all the same.")
@click.option("--reason", metavar="TEXT", help="Why, for the history.")
@WAIT
def command(
    call: Call,
    reference: str,
    settings: tuple[str, ...],
    max_unavailable: str | None,
    expect: int | None,
    force: bool,
    reason: str | None,
    wait_s: float | None,
) -> None:
    """Make a version the active one.

    Workers see the change within a second or two and swap between two jobs. --wait returns when all have. Where it is
    active already, with the same config and rollout, nothing is written.
    """
    repository = call.repository()
    model, version = named_version(reference)
    config = {key: parameters.scalar(text) for key, text in parameters.assignments(settings, "--set").items()}
    if config:
        _check_declared(repository.resolve(reference), config)
    before = repository.promotions.history(model)
    entry = repository.promotions.promote(
        model, version, config_set=config or None, expect=expect, force=force, reason=reason, rollout=max_unavailable
    )
    unchanged = entry in before
    finish(call, model, entry, describe(model, entry, unchanged=unchanged), wait_s, unchanged=unchanged)


def _check_declared(version: Version, config: Iterable[str]) -> None:
    from modelrepo.names import near_names

    declared = version.spec.config
    for key in config:
        if key not in declared:
            near = near_names(key, declared)
            meant = f"did you mean {near[0]!r}?" if near else f"it declares {', '.join(declared) or 'none'}"
            raise InvalidInput(f"cannot set {key!r} of {version}: its `config:` declares no such key; {meant}")
