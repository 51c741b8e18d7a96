"""`modelrepo list`."""

from __future__ import annotations

import click

from modelrepo_cli.output import table
from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("model", required=False)
def command(call: Call, model: str | None) -> None:
    """List models, or the versions of one."""
    if model is None:
        _models(call)
    else:
        _versions(call, model)


def _models(call: Call) -> None:
    repository = call.repository()
    found = []
    for model in repository.models():
        state = repository.promotions.state(model)
        versions = repository.versions(model)
        found.append(
            {"model": model, "active": state.version, "generation": state.generation, "versions": len(versions)}
        )
    rows = [(entry["model"], entry["active"] or "-", entry["generation"], entry["versions"]) for entry in found]
    text = table(("MODEL", "ACTIVE", "GENERATION", "VERSIONS"), rows) if rows else f"no model in {repository.url} yet"
    call.output.show({"repository": repository.url, "models": found}, text)


def _versions(call: Call, model: str) -> None:
    repository = call.repository()
    state = repository.promotions.state(model)
    versions = repository.versions(model)
    rows = [
        (entry.version, entry.created_at, _standing(entry, state.version), entry.digest[:12], entry.message or "")
        for entry in versions
    ]
    text = table(("VERSION", "CREATED", "STATE", "DIGEST", "MESSAGE"), rows) if rows else f"{model} has no version yet"
    call.output.show({"model": model, "active": state.version, "versions": versions}, text)
