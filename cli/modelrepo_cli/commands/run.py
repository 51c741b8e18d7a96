"""`modelrepo run`."""

from __future__ import annotations

from pathlib import Path

import click

from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("target", metavar="DIR|REF", default=".")
@click.option("-i", "pairs", multiple=True, metavar="NAME=VALUE", help="One input, or NAME=@FILE; repeat it.")
@click.option(
    "--input", "source", metavar="@FILE|-", help="All inputs as a JSON object, from a file or standard input."
)
@click.option("--stage", metavar="NAME", help="Run this stage alone.")
@click.option("--repeat", is_flag=True, help="Load once, then run a job for each line of JSON on standard input.")
@click.option("--pdb", is_flag=True, help="Open the debugger where model code fails.")
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="An interpreter that has its packages.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="Where output files go; ./outputs.")
def command(call: Call, target: str) -> None:
    """Run a model folder or a version here, once, without a queue."""
