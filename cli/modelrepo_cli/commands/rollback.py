"""`modelrepo rollback`."""

from __future__ import annotations

import click

from modelrepo_cli.change import WAIT, describe, finish
from modelrepo_cli.verbs import Call, verb


@verb("repo", "queue", "token")
@click.argument("model")
@click.option("--to", metavar="VERSION", help="Go back to this version rather than the nearest one that is allowed.")
@click.option("--no-block", is_flag=True, help="Leave the version that is left open for promotion.")
@click.option("--now", is_flag=True, help="End running attempts of the version that is left; they are tried again.")
@click.option("--reason", metavar="TEXT", help="Why; everyone who tries to promote the version that is left reads it.")
@WAIT
def command(
    call: Call, model: str, to: str | None, no_block: bool, now: bool, reason: str | None, wait_s: float | None
) -> None:
    """Go back to the version before, and block the one that is left.

    A second rollback goes further back, never forth.
    """
    repository = call.repository()
    left = repository.promotions.state(model).version
    if left is None:
        repository.versions(model)  # says so where there is no such model
    entry = repository.promotions.rollback(model, to=to, block=not no_block, now=now, reason=reason)
    text = describe(model, entry) + ("" if no_block or left is None else f"; {model}@{left} is blocked")
    finish(call, model, entry, text, wait_s)
