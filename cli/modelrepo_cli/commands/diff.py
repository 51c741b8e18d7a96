"""`modelrepo diff`."""

from __future__ import annotations

import click

from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("old", metavar="A")
@click.argument("new", metavar="B")
def command(call: Call, old: str, new: str) -> None:
    """Show what differs between two versions: model.yaml, environment, code, checkpoints."""
    difference = call.repository().diff(old, new)
    call.output.show(difference, str(difference))
