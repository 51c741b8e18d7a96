"""`modelrepo shell`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelrepo_cli import package_index
from modelrepo_cli import target as targets
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.environments import LinkMode


@verb("repo")
@click.argument("target", metavar="[DIR|REF]", default=".")
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="An interpreter that has its packages.")
@click.option(
    "--secrets-dir", type=click.Path(path_type=Path), metavar="DIR", help="Files named like the secrets of the model."
)
@package_index.build_options
@package_index.options()
def command(
    call: Call,
    target: str,
    python: Path | None,
    secrets_dir: Path | None,
    allow_builds: bool,
    link_mode: LinkMode,
    index_url: str | None,
    extra_index_url: tuple[str, ...],
    find_links: tuple[str, ...],
) -> None:
    """Open an interactive Python in a model's environment.

    The model's code is on the path, and `ctx` is what `load` would get. Ends with the exit code of that Python.
    """
    from modelrepo_runtime.local_model import Box
    from modelrepo_runtime.running import open_shell

    index = package_index.settings(index_url, extra_index_url, find_links)
    box = Box(python=python, index=index, secrets_dir=secrets_dir, allow_builds=allow_builds, link_mode=link_mode)
    with targets.ready(call, target, box) as model:
        code = open_shell(model)
    click.get_current_context().exit(code)
