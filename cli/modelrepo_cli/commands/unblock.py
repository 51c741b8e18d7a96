"""`modelrepo unblock`."""

from __future__ import annotations

import click

from modelrepo_cli.change import describe, named_version
from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("reference", metavar="MODEL@VERSION")
@click.option("--reason", metavar="TEXT", help="Why, for the history.")
def command(call: Call, reference: str, reason: str | None) -> None:
    """Allow a blocked version again."""
    model, version = named_version(reference)
    entry = call.repository().promotions.unblock(model, version, reason=reason)
    call.output.show({"model": model, **entry.to_json()}, describe(model, entry))
