"""`modelrepo shell`."""

from __future__ import annotations

from pathlib import Path

import click

from modelrepo_cli import target as targets
from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("target", metavar="[DIR|REF]", default=".")
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="An interpreter that has its packages.")
def command(call: Call, target: str, python: Path | None) -> None:
    """Open an interactive Python in a model's environment.

    The model's code is on the path, and `ctx` is what `load` would get. Ends with the exit code of that Python.
    """
    from modelrepo_runtime.running import open_shell

    with targets.ready(call, target, python) as model:
        code = open_shell(model)
    click.get_current_context().exit(code)
