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
@package_index.options()
def command(
    call: Call,
    folder: Path,
    python: Path | None,
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
    index = package_index.settings(index_url, extra_index_url, find_links)
    with call.progress() as progress:
        report = check_folder(folder, box=Box(python=python, index=index, progress=progress), repository=repository)
    call.output.show(report, "\n".join(report.lines()))
