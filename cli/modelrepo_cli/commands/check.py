"""`modelrepo check`."""

from __future__ import annotations

from pathlib import Path

import click

from modelrepo_cli.target import sources_repository
from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path())
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="An interpreter that has its packages.")
def command(call: Call, folder: Path, python: Path | None) -> None:
    """Check a model folder without an accelerator.

    Reads model.yaml, finds the checkpoints, builds the environment, imports the entrypoint, looks at the signatures of
    its stages and makes up a job that its inputs' schema accepts.
    """
    from modelrepo.contract import load_spec
    from modelrepo_runtime.checking import check_folder
    from modelrepo_runtime.local_model import Box

    repository = sources_repository(call, load_spec(folder))
    with call.progress() as progress:
        report = check_folder(folder, box=Box(python=python, progress=progress), repository=repository)
    call.output.show(report, "\n".join(report.lines()))
