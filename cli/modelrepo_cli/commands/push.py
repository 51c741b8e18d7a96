"""`modelrepo push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelrepo_cli.output import size, table
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.repository import PushOptions, Repository


@verb("repo")
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--version", metavar="ID", help="The version's name; the next vN unless given.")
@click.option("-m", "--message", metavar="TEXT", help="What is new, for the people who read the list.")
@click.option("--promote", is_flag=True, help="Make it the active version once it is published.")
@click.option("--if-changed", is_flag=True, help="Publish nothing where the newest version holds the same.")
@click.option("--dry-run", is_flag=True, help="List every file, its size and digest; write nothing.")
@click.option("--locked", is_flag=True, help="Fail where uv.lock is missing or out of date, rather than make it.")
@click.option("--lock", is_flag=True, help="Make a missing uv.lock also where CI is set.")
@click.option(
    "--check",
    type=click.Choice(["import", "resolve", "none"]),
    default="import",
    show_default=True,
    help="Import the entrypoint in its environment, only resolve that, or neither.",
)
@click.option("--index-url", metavar="URL", help="The package index, in place of uv's or pip's own setting.")
@click.option("--extra-index-url", multiple=True, metavar="URL", help="A further package index; repeat it.")
@click.option("--find-links", multiple=True, metavar="DIR", help="A folder of wheels; those used are carried along.")
def command(
    call: Call,
    folder: Path,
    version: str | None,
    message: str | None,
    promote: bool,
    if_changed: bool,
    dry_run: bool,
    locked: bool,
    lock: bool,
    check: str,
    index_url: str | None,
    extra_index_url: tuple[str, ...],
    find_links: tuple[str, ...],
) -> None:
    """Publish a model folder as an immutable version.

    A version that a reader can see is complete. A push that dies leaves nothing visible; run again, it resumes.
    """
    from modelrepo.environments import IndexSettings
    from modelrepo.repository import PushOptions
    from modelrepo_runtime.checking import import_entrypoint

    index = IndexSettings.from_environment().overridden(
        default_index=index_url, indexes=extra_index_url, find_links=find_links
    )
    options = PushOptions(
        version=version, message=message, locked=locked, lock=lock, if_changed=if_changed, check=check, index=index
    )
    repository = call.repository()
    if dry_run:
        _plan(call, repository, folder, options)
        return
    with call.progress() as progress:
        result = repository.push(
            folder, options, check=import_entrypoint if check == "import" else None, progress=progress
        )
    name = f"{result.model}@{result.version}"
    if result.unchanged:
        text = f"{name} holds the same already; nothing was published"
    else:
        text = (
            f"{name}  sha256:{result.digest[:12]}  {result.files} files, "
            f"{size(result.new_bytes)} new, {size(result.reused_bytes)} reused"
        )
    promoted = None
    if promote:
        call.output.note(text)
        promoted = repository.promotions.promote(result.model, result.version, reason=message)
        text = f"{name} is active (generation {promoted.generation})"
    call.output.show({**result.to_json(), "promoted": promoted}, text)


def _plan(call: Call, repository: Repository, folder: Path, options: PushOptions) -> None:
    plan = repository.plan_push(folder, options)
    rows = [(size(file.size_bytes), file.sha256, "new" if file.new else "reused", file.path) for file in plan.files]
    text = table(("SIZE", "SHA256", "", "PATH"), rows)
    call.output.show(
        plan, f"{text}\n\n{size(plan.new_bytes)} would be sent, {size(plan.reused_bytes)} are there already"
    )
