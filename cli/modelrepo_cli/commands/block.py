"""`modelrepo block`."""

from __future__ import annotations

import click

from modelrepo_cli.change import describe, named_version
from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("reference", metavar="MODEL@VERSION")
@click.option("--reason", metavar="TEXT", help="Why; everyone who tries to promote it reads this.")
def command(call: Call, reference: str, reason: str | None) -> None:
    """Refuse a version for promotion.

    A blocked version is promoted only with --force. What serves it goes on serving it.
    """
    model, version = named_version(reference)
    entry = call.repository().promotions.block(model, version, reason=reason)
    call.output.show({"model": model, **entry.to_json()}, describe(model, entry))
