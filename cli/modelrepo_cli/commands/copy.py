"""`modelrepo copy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from modelrepo_cli import exit_codes, failures, parameters
from modelrepo_cli.output import plain, size, table
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.copying.repository_copy import CopiedActive, CopyReport
    from modelrepo.copying.version_copy import CopiedVersion


@verb()
@click.argument("places", nargs=-1, metavar="REF|--all FROM TO")
@click.option("--all", "everything", is_flag=True, help="Copy every model.")
@click.option(
    "--versions",
    metavar="WHICH",
    help="Of a model, or of every one: active, previous and last:N, with commas between them; all unless given.",
)
@click.option("--with-active", is_flag=True, help="Promote in TO, with its config, what is active in FROM.")
@click.option("--dry-run", is_flag=True, help="Say what would move; write nothing.")
@click.option("--limit-rate", type=parameters.RATE, metavar="RATE", help="Move no more than that, such as 50MB/s.")
@click.option(
    "--jobs", type=click.IntRange(1, 256), default=8, show_default=True, help="How many objects move at once."
)
def command(
    call: Call,
    places: tuple[str, ...],
    everything: bool,
    versions: str | None,
    with_active: bool,
    dry_run: bool,
    limit_rate: float | None,
    jobs: int,
) -> None:
    """Copy versions from one repository into another.

    REF is MODEL (all of its versions), or names one version as elsewhere. FROM and TO are URLs of repositories. A
    version arrives byte for byte, under the same id and digest, with what restores its environment offline; every
    object is checked on the way. Run again, it goes on where it was.
    """
    from modelrepo.copying.repository_copy import CopyOptions
    from modelrepo.copying.selection import Selection
    from modelrepo.repository import Repository

    reference, source, target = _read(places, everything)
    options = CopyOptions(
        versions=None if versions is None else Selection.parse(versions),
        with_active=with_active,
        dry_run=dry_run,
        limit_rate=limit_rate,
        jobs=jobs,
    )
    repository, there = Repository.open(source), Repository.open(target)
    with call.progress() as progress:
        report = repository.copy_to(there, reference, options, progress=progress)
    errors = report.errors()
    if len(report.versions) == 1 and report.versions[0].error is not None:
        raise report.versions[0].error
    document = {
        "from": repository.url,
        "to": there.url,
        "dry_run": dry_run,
        "versions": [_plain(each) for each in report.versions],
        "active": [_plain(each) for each in report.active],
    }
    call.output.show(document, _text(report, there.url))
    if errors:
        for error in errors:
            call.output.note(f"error: {error}")
        click.get_current_context().exit(exit_codes.exit_code(type(errors[0])))


def _read(places: tuple[str, ...], everything: bool) -> tuple[str | None, str, str]:
    if len(places) != (2 if everything else 3):
        found = " ".join(places) or "nothing"
        wanted = "FROM and TO beside --all" if everything else "REF, FROM and TO, or --all, FROM and TO"
        raise click.UsageError(f"{found} given, and it takes {wanted}")
    if everything:
        return None, places[0], places[1]
    return places[0], places[1], places[2]


def _plain(each: CopiedVersion | CopiedActive) -> dict[str, Any]:
    document: dict[str, Any] = plain(each)
    error = each.error
    document["error"] = None if error is None else {"code": failures.kind(type(error)), "message": str(error)}
    if "digest" in document:
        document["digest"] = document["digest"] or None
    return document


def _text(report: CopyReport, target: str) -> str:
    if not report.versions:
        return "no version is there to copy"
    rows = [
        (str(each), each.outcome, each.objects, size(each.new_bytes), size(each.reused_bytes), each.digest[:12] or "-")
        for each in report.versions
    ]
    lines = [table(("VERSION", "OUTCOME", "OBJECTS", "MOVED", "THERE", "DIGEST"), rows), ""]
    counts = {outcome: sum(each.outcome == outcome for each in report.versions) for outcome in _OUTCOMES}
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    lines.append(f"{told}; {size(sum(each.new_bytes for each in report.versions))} to {target}")
    lines += [
        f"{each.model}@{each.version} is active there" + (" already" if each.unchanged else "")
        for each in report.active
        if each.error is None
    ]
    return "\n".join(lines)


_OUTCOMES = ("copied", "present", "planned", "failed")
