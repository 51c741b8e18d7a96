"""`modelrepo new`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from modelrepo_cli.verbs import Call, verb


@verb()
@click.argument("folder", metavar="NAME|DIR", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="The model's name; the folder's unless given.")
def command(call: Call, folder: Path, name: str | None) -> None:
    """Make a working model folder to start from.

    It holds model.yaml, pyproject.toml, model.py and what editors need to check and complete them.
    """
    from modelrepo.names import check_model_name
    from modelrepo_cli.scaffold import create

    name = check_model_name(name or folder.resolve().name)
    files = create(folder, name)
    quoted = shlex.quote(str(folder))
    text = "\n".join([*map(str, files), "", f"next: modelrepo check {quoted}; modelrepo run {quoted} -i text=hi"])
    call.output.show({"model": name, "path": folder, "files": files}, text)
