"""`modelrepo verify`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from modelrepo_cli import exit_codes
from modelrepo_cli.output import counted, plain, size
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.maintenance.box import BoxReport
    from modelrepo.maintenance.needs import Problem
    from modelrepo.maintenance.verifying import VerifyReport


@verb("repo")
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--all", "everything", is_flag=True, help="Look at every version and bundle.")
@click.option("--local", is_flag=True, help="Look at what this box has fetched and built, and not at the repository.")
@click.option("--quick", is_flag=True, help="Look at sizes only; nothing is read but manifests and bundles.")
@click.option("--repair", metavar="FROM", help="Bring what is wrong back from another repository.")
@click.option("--remove", is_flag=True, help="With --local: remove what is broken, so that it is fetched again.")
def command(
    call: Call,
    reference: str | None,
    everything: bool,
    local: bool,
    quick: bool,
    repair: str | None,
    remove: bool,
) -> None:
    """Read all that a version needs, and say what is not what it should be.

    Every object is read and hashed once, however many versions share it; manifests are held to the digests in the
    history, bundles to their names. --repair takes bytes from the repository FROM, and only such as have the digest
    that they should have. Exit code 1: something is wrong, or is wrong still.
    """
    if sum((reference is not None, everything, local)) != 1:
        raise click.UsageError("one of REF, --all and --local is wanted")
    if local and (quick or repair is not None):
        raise click.UsageError("--quick and --repair are for the repository, and not for --local")
    if remove and not local:
        raise click.UsageError("--remove goes with --local; in the repository, --repair brings back what is wrong")
    if local:
        _local(call, remove)
        return
    with call.progress() as progress:
        report = call.repository().verify(reference, quick=quick, repair_from=repair, progress=progress)
    call.output.show({**plain(report), "wrong": len(report.wrong)}, "\n".join(_lines(report)))
    if report.wrong:
        click.get_current_context().exit(exit_codes.FAILED)


def _lines(report: VerifyReport) -> Iterator[str]:
    for problem in report.problems:
        yield _line(problem)
        yield from (f"    {user}" for user in problem.used_by)
    looked = "looked at the sizes of" if report.quick else "read"
    owners = f"{counted(report.versions, 'version')} and {counted(report.bundles, 'bundle')}"
    what = f"{counted(report.objects, 'object')} of {size(report.size_bytes)} in {owners}"
    repaired = len(report.problems) - len(report.wrong)
    ending = f"; {len(report.wrong)} wrong" if report.wrong else ""
    yield f"{looked} {what}{f'; {repaired} repaired' if repaired else ''}{ending or ': all is what it should be'}"


def _line(problem: Problem) -> str:
    return f"{'repaired' if problem.repaired else problem.fault}: {problem.key} {problem.message}"


def _local(call: Call, remove: bool) -> None:
    from modelrepo.box_cache.cache_folder import default_cache
    from modelrepo.maintenance.box import verify_cache

    with call.progress() as progress:
        report = verify_cache(default_cache(), remove=remove, progress=progress)
    call.output.show({**plain(report), "whole": report.whole}, "\n".join(_local_lines(report, remove)))
    if report.kept or (not report.whole and not remove):
        click.get_current_context().exit(exit_codes.FAILED)


def _local_lines(report: BoxReport, remove: bool) -> Iterator[str]:
    yield from map(str, report.contents)
    for environment in report.broken:
        for problem in environment.problems:
            yield f"{environment.path}: {problem}"
    yield from (f"removed {path}" for path in report.removed)
    yield from report.kept
    if report.whole:
        yield f"{report.cache}: all is what it should be, {counted(report.environments, 'environment')} among it"
    elif not remove:
        yield "run `modelrepo verify --local --remove`: what is fetched or built next is whole again"
