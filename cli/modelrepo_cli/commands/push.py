"""`modelrepo push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelrepo_cli import package_index
from modelrepo_cli.change import checked_config, describe
from modelrepo_cli.output import plain, size, table
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.contract import AcceleratorFacts
    from modelrepo.versions.drafting import PushPlan
    from modelrepo.versions.push import CheckLevel, PushCheck, PushResult


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
    help="Import the entrypoint in its environment where an extra fits this box, only resolve that, or neither.",
)
@package_index.options("A folder of wheels; those used are carried along.")
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
    check: CheckLevel,
    index_url: str | None,
    extra_index_url: tuple[str, ...],
    find_links: tuple[str, ...],
) -> None:
    """Publish a model folder as an immutable version.

    A version that a reader can see is complete. A push that dies leaves nothing visible; run again, it resumes.
    """
    from modelrepo.versions.push import PushOptions

    options = PushOptions(
        version=version,
        message=message,
        locked=locked,
        lock=lock,
        if_changed=if_changed,
        check=check,
        index=package_index.settings(index_url, extra_index_url, find_links),
        facts=_this_box() if check == "import" and not dry_run else None,
    )
    repository = call.repository()
    if dry_run:
        _show_plan(call, repository.plan_push(folder, options))
        return
    with call.progress() as progress:
        result = repository.push(folder, options, check=_check(check), progress=progress)
    for line in result.notes:
        call.output.note(f"note: {line}")
    text = _text(result)
    entry = None
    if promote:
        call.output.note(text)
        checked_config(repository, f"{result.model}@{result.version}")
        before = repository.promotions.history(result.model)
        entry = repository.promotions.promote(result.model, result.version, reason=message)
        text = describe(result.model, entry, unchanged=entry in before)
    call.output.show({**plain(result), "promoted": entry}, text)


def _this_box() -> AcceleratorFacts:
    """Say what the extra is chosen by in which the entrypoint is imported."""
    from modelrepo_runtime.accelerators import facts, probe

    return facts(probe())


def _check(level: CheckLevel) -> PushCheck | None:
    if level != "import":
        return None
    from modelrepo_runtime.checking import import_entrypoint

    return import_entrypoint


def _text(result: PushResult) -> str:
    name = f"{result.model}@{result.version}"
    if result.unchanged:
        return f"{name} holds the same already; nothing was published"
    sent = f"{size(result.new_bytes)} new, {size(result.reused_bytes)} reused"
    return f"{name} is published: {result.files} files, {sent}, sha256:{result.digest[:12]}"


def _show_plan(call: Call, plan: PushPlan) -> None:
    rows = [
        (
            size(file.size_bytes),
            size(file.new_bytes),
            file.sha256,
            f"{file.checkpoint}: " * bool(file.checkpoint) + file.path,
        )
        for file in plan.files
    ]
    listing = table(("SIZE", "NEW", "DIGEST", "PATH"), rows)
    total = f"{plan.model}@{plan.version} would hold {size(plan.size_bytes)}, of which {size(plan.new_bytes)} are new"
    document = {**plain(plan), "size_bytes": plan.size_bytes, "new_bytes": plan.new_bytes, "dry_run": True}
    call.output.show(document, f"{listing}\n\n{total}")
