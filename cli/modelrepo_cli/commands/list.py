"""`modelrepo list`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelrepo_cli import exit_codes
from modelrepo_cli.output import size, table
from modelrepo_cli.standing import standing
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.versions.version import VersionSummary


@verb("repo")
@click.argument("model", required=False)
def command(call: Call, model: str | None) -> None:
    """List models, or the versions of one.

    A version whose manifest cannot be read is listed as corrupt, and the exit code is 1; `modelrepo verify` says more.
    """
    if model is None:
        _models(call)
    else:
        _versions(call, model)


def _models(call: Call) -> None:
    repository = call.repository()
    found = []
    for model in repository.models():
        now = standing(repository, model)
        active, generation = (now.state.version, now.state.generation) if now.state else (None, None)
        versions = len(repository.versions(model))
        found.append(
            {"model": model, "active": active, "generation": generation, "versions": versions, "problem": now.problem}
        )
    rows = [
        (entry["model"], "?" if entry["problem"] else entry["active"] or "-", entry["generation"], entry["versions"])
        for entry in found
    ]
    text = table(("MODEL", "ACTIVE", "GENERATION", "VERSIONS"), rows) if rows else f"no model in {repository.url} yet"
    call.output.show({"repository": repository.url, "models": found}, text)


def _versions(call: Call, model: str) -> None:
    repository = call.repository()
    versions = repository.versions(model)
    rows = [
        (
            entry.version,
            entry.created_at or "-",
            "-" if entry.problem else size(entry.size_bytes),
            _standing(entry),
            entry.digest[:12] or "-",
            entry.problem or entry.message or "",
        )
        for entry in versions
    ]
    text = table(("VERSION", "CREATED", "SIZE", "STATE", "DIGEST", "MESSAGE"), rows)
    call.output.show({"model": model, "versions": versions}, text if rows else f"{model} has no version yet")
    if any(entry.problem and not entry.deleted for entry in versions):
        click.get_current_context().exit(exit_codes.FAILED)


def _standing(entry: VersionSummary) -> str:
    states = {
        "active": entry.active,
        "previous": entry.previous,
        "blocked": entry.blocked,
        "deleted": entry.deleted,
        "corrupt": entry.problem is not None,
    }
    return ", ".join(name for name, holds in states.items() if holds) or "-"
