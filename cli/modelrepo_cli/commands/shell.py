"""`modelrepo shell`."""

from __future__ import annotations

from pathlib import Path

import click

from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("target", metavar="DIR|REF", default=".")
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="An interpreter that has its packages.")
def command(call: Call, target: str, python: Path | None) -> None:
    """Open a shell in a model's environment."""
