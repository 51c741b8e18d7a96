"""`modelrepo check`."""

from __future__ import annotations

from pathlib import Path

import click

from modelrepo_cli.verbs import Call, verb


@verb()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="An interpreter that has its packages.")
def command(call: Call, folder: Path, python: Path | None) -> None:
    """Check a model folder without an accelerator.

    Reads model.yaml, imports the entrypoint, looks at the signatures of its stages and sends a made-up job through.
    """
    from modelrepo_runtime.checking import check_folder

    report = check_folder(folder, python)
    call.output.show(report, "\n".join(report.lines()))
