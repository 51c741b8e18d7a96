"""`modelrepo show`."""

from __future__ import annotations

import click

from modelrepo_cli.output import facts, size, table
from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("reference", metavar="REF")
@click.option("--files", "with_files", is_flag=True, help="List every file with its digest.")
def command(call: Call, reference: str, with_files: bool) -> None:
    """Show what a version is made of.

    REF is MODEL (the active version), MODEL@VERSION, MODEL@previous or MODEL@git:COMMIT. --json prints the manifest.
    """
    version = call.repository().resolve(reference)
    manifest = version.manifest
    summary = facts(
        {
            "version": f"{version.model}@{version.version}",
            "digest": f"sha256:{version.digest}",
            "created": manifest.created_at,
            "author": manifest.author,
            "message": manifest.message,
            "git": manifest.git_commit and manifest.git_commit + (" (dirty)" if manifest.git_dirty else ""),
            "entrypoint": version.spec.entrypoint,
            "stages": ", ".join(f"{stage.name} on {stage.on}" for stage in version.spec.stages),
            "inputs": "anything" if version.spec.inputs is None else ", ".join(version.spec.inputs) or "none",
            "environment": f"sha256:{manifest.environment.digest}",
            "code": f"{len(manifest.code)} files, {size(sum(file.size_bytes for file in manifest.code))}",
            **{f"checkpoint {name}": size(record.size_bytes) for name, record in manifest.checkpoints.items()},
        }
    )
    listing = table(
        ("SIZE", "SHA256", "PATH"), [(size(file.size_bytes), file.sha256, file.path) for file in manifest.files()]
    )
    call.output.show(
        {"digest": f"sha256:{version.digest}", "manifest": manifest},
        f"{summary}\n\n{listing}" if with_files else summary,
    )
