"""`modelrepo init`."""

from __future__ import annotations

import click

from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.option("--adopt", is_flag=True, help="Accept a store that moved to another endpoint or bucket.")
@click.option(
    "--single-writer", is_flag=True, help="Write to a store that fails the probe; you see to it that one writes."
)
def command(call: Call, adopt: bool, single_writer: bool) -> None:
    """Make a repository and probe what its store can do.

    Run it once for each URL. It writes repository.json and store.json; running it again changes nothing.
    """
    from modelrepo.repository import Repository
    from modelrepo.settings import repository_url

    repository = Repository.init(repository_url(call.repo), adopt=adopt, single_writer=single_writer)
    single = repository.single_writer
    document = {"url": repository.url, "single_writer": single, "ability": repository.store.ability}
    promise = (
        "its store does not create if absent: never let two write at once" if single else "its store creates if absent"
    )
    call.output.show(document, f"{repository.url} is a repository; {promise}")
