"""`modelrepo history`."""

from __future__ import annotations

import click

from modelrepo_cli.output import table
from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("model")
def command(call: Call, model: str) -> None:
    """List every change of what is live, newest first."""
    repository = call.repository()
    entries = tuple(reversed(repository.promotions.history(model)))
    if not entries:
        repository.versions(model)  # says so where there is no such model
    rows = [
        (entry.generation, entry.kind, entry.version or "-", entry.at, entry.by, entry.reason or "")
        for entry in entries
    ]
    text = (
        table(("GENERATION", "KIND", "VERSION", "AT", "BY", "REASON"), rows) if rows else f"{model} was never promoted"
    )
    call.output.show({"model": model, "history": entries}, text)
