"""`modelrepo pull`."""

from __future__ import annotations

from pathlib import Path

import click

from modelrepo.settings import object_mirrors
from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("reference", metavar="REF")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--checkpoint", "checkpoints", multiple=True, metavar="NAME", help="Fetch only this checkpoint; repeat it."
)
@click.option(
    "--object-mirror",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="A copy of the repository to read objects from first; repeat it [MODELREPO_OBJECT_MIRROR].",
)
@click.option("--no-checkpoints", is_flag=True, help="Fetch the code alone.")
def command(
    call: Call,
    reference: str,
    folder: Path | None,
    checkpoints: tuple[str, ...],
    mirrors: tuple[str, ...],
    no_checkpoints: bool,
) -> None:
    """Fetch a version as a folder that you can edit.

    FOLDER is ./MODEL unless given, and must not exist yet. Every byte is checked against its digest on the way in.
    """
    repository = call.repository(mirrors=object_mirrors(mirrors))
    version = repository.resolve(reference)
    target = folder if folder is not None else Path(version.model.rpartition("/")[2])
    wanted = () if no_checkpoints else checkpoints or None
    with call.progress() as progress:
        written = repository.pull(f"{version.model}@{version.version}", target, checkpoints=wanted, progress=progress)
    document = {
        "model": version.model,
        "version": version.version,
        "digest": f"sha256:{version.digest}",
        "path": written,
    }
    call.output.show(document, f"{version.model}@{version.version} is in {written}")
