"""`modelrepo push`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelrepo_cli import package_index
from modelrepo_cli.change import checked_config, describe
from modelrepo_cli.output import plain, size, table
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.contract import AcceleratorFacts
    from modelrepo.pushing.account import FileAccount, PushPlan
    from modelrepo.pushing.push import PushResult
    from modelrepo.pushing.push_options import CheckLevel, PushCheck

MOST_LINES = 20  # of files; --json has them all


@verb("repo")
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--version", metavar="ID", help="The version's name; the next vN unless given.")
@click.option("-m", "--message", metavar="TEXT", help="What is new, for the people who read the list.")
@click.option("--promote", is_flag=True, help="Make it the active version once it is published.")
@click.option("--if-changed", is_flag=True, help="Publish nothing where the newest version holds the same.")
@click.option("--vendor", is_flag=True, help="Keep the environment's wheels for this platform beside the version.")
@click.option(
    "--reuse-checkpoints",
    metavar="REF",
    help="Take the checkpoints of that version as they are; those of this box are neither read nor needed.",
)
@click.option("--rehash", is_flag=True, help="Read every file anew, also what has not changed since an earlier push.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="List every file, its size and digest; write nothing, and leave the environment alone.",
)
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
    vendor: bool,
    reuse_checkpoints: str | None,
    rehash: bool,
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
    from modelrepo.pushing.push_options import PushOptions

    options = PushOptions(
        version=version,
        message=message,
        locked=locked,
        lock=lock,
        if_changed=if_changed,
        vendor=vendor,
        reuse_checkpoints=reuse_checkpoints,
        rehash=rehash,
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
    done = f"{name} is published: {result.files} files, {sent}, sha256:{result.digest[:12]}"
    return "\n".join([done, *(_sent_files(result.by_file) if result.reused_bytes else ())])


def _sent_files(files: Sequence[FileAccount]) -> list[str]:
    """Name the files that had something new, the most first, unless there are too many to read."""
    fresh = sorted((file for file in files if file.new_bytes), key=lambda file: -file.new_bytes)
    lines = [f"  {_name(file)}: {size(file.new_bytes)} new, {size(file.reused_bytes)} reused" for file in fresh]
    if len(lines) <= MOST_LINES:
        return lines
    rest = size(sum(file.new_bytes for file in fresh[MOST_LINES:]))
    return [*lines[:MOST_LINES], f"  and {len(lines) - MOST_LINES} more files: {rest} new"]


def _name(file: FileAccount) -> str:
    return f"{file.checkpoint}: {file.path}" if file.checkpoint else file.path


def _show_plan(call: Call, plan: PushPlan) -> None:
    rows = [
        (size(file.size_bytes), size(file.new_bytes), size(file.reused_bytes), file.sha256, _name(file))
        for file in plan.files
    ]
    listing = table(("SIZE", "NEW", "REUSED", "DIGEST", "PATH"), rows)
    total = f"{plan.model}@{plan.version} would hold {size(plan.size_bytes)}, of which {size(plan.new_bytes)} are new"
    document = {**plain(plan), "size_bytes": plan.size_bytes, "new_bytes": plan.new_bytes, "dry_run": True}
    call.output.show(document, f"{listing}\n\n{total}")
