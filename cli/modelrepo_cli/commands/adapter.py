"""`modelrepo adapter`."""

from __future__ import annotations

from pathlib import Path

import click

from modelrepo_cli.output import size, table
from modelrepo_cli.verbs import Call, VerbGroup, verb


@click.group(cls=VerbGroup)
def command() -> None:
    """Publish and list adapters, such as LoRAs, that jobs name."""


@verb("repo", name="push")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--version", metavar="VERSION", help="What it is called; the next vN unless given.")
@click.option("-m", "--message", metavar="TEXT", help="Said of it in lists.")
def push(call: Call, name: str, file: Path, version: str | None, message: str | None) -> None:
    """Publish a file of weights as an immutable version of an adapter.

    Jobs then name it as ref:NAME@VERSION. The same bytes again are the version that has them.
    """
    done = call.repository().adapters.push(name, file, version=version, message=message)
    call.output.show(done, f"{done.ref} is published: {size(done.size_bytes)}, sha256:{done.sha256[:12]}")


@verb("repo", name="list")
@click.argument("name", required=False)
def list_adapters(call: Call, name: str | None) -> None:
    """List the versions of all adapters, or of one."""
    found = call.repository().adapters.list(name)
    rows = [(one.ref, size(one.size_bytes), one.created_at, one.author, one.message or "") for one in found]
    call.output.show({"adapters": found}, table(("ADAPTER", "SIZE", "PUBLISHED", "BY", ""), rows))


command.add_command(push)
command.add_command(list_adapters)
