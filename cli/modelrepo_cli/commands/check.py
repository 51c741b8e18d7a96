"""`modelrepo check`."""

from __future__ import annotations

from pathlib import Path

import click

from modelrepo_cli import package_index
from modelrepo_cli.target import sources_repository
from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path())
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="An interpreter that has its packages.")
@click.option(
    "--reuse-checkpoints",
    metavar="REF",
    help="Hold it against the checkpoints of that version, as a push with the same would; none is needed here.",
)
@package_index.options()
def command(
    call: Call,
    folder: Path,
    python: Path | None,
    reuse_checkpoints: str | None,
    index_url: str | None,
    extra_index_url: tuple[str, ...],
    find_links: tuple[str, ...],
) -> None:
    """Check a model folder without an accelerator.

    Reads model.yaml, holds its host needs against this box, finds the checkpoints, builds the environment, imports the
    entrypoint, looks at the signatures of its stages and makes up a job that its inputs' schema accepts.
    """
    from modelrepo.contract import load_spec
    from modelrepo_runtime.checking import check_folder
    from modelrepo_runtime.local_model import Box

    repository = sources_repository(call, load_spec(folder))
    reuse = call.repository().resolve(reuse_checkpoints).manifest if reuse_checkpoints else None
    index = package_index.settings(index_url, extra_index_url, find_links)
    with call.progress() as progress:
        box = Box(python=python, index=index, progress=progress)
        report = check_folder(folder, box=box, repository=repository, reuse=reuse)
    call.output.show(report, "\n".join(report.lines()))
