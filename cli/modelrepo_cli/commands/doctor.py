"""`modelrepo doctor`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli import exit_codes
from modelrepo_cli.output import plain
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.diagnosis import Diagnosis, Finding


@verb("repo")
@click.argument("reference", metavar="[REF]", required=False)
@click.option(
    "--worker", is_flag=True, help="Say what this box can serve; with REF, whether that version could run here."
)
@click.option("--probe", is_flag=True, help="Let several creators race for one object again, as init does.")
def command(call: Call, reference: str | None, worker: bool, probe: bool) -> None:
    """Say what this box can reach, how fast, and what it can serve.

    Looks at the repository's store, its credentials, speed and clock, and at this box's cache, uv and interpreters.
    What it writes, below probes/, it deletes again. Ends with 1 where something is in the way of work, with 5 where
    that is the store.
    """
    from modelrepo.diagnosis import Diagnosis

    if reference is not None and not worker:
        raise InvalidInput("a version is only looked at for a worker: add --worker")
    if worker and probe:
        raise InvalidInput("--probe looks at the store and --worker at this box: give one of them")
    diagnosis = Diagnosis(_worker(call, reference) if worker else _store(call, probe))
    document = {"ok": diagnosis.ok, "findings": [plain(finding) for finding in diagnosis.findings]}
    call.output.show(document, "\n".join(_line(finding) for finding in diagnosis.findings))
    click.get_current_context().exit(_exit_code(diagnosis))


def _store(call: Call, probe: bool) -> tuple[Finding, ...]:
    from modelrepo.box_cache.cache_folder import default_cache
    from modelrepo.diagnosis import diagnose_box, diagnose_store
    from modelrepo.settings import repository_url

    return (*diagnose_store(repository_url(call.repo), probe_again=probe), *diagnose_box(default_cache()))


def _worker(call: Call, reference: str | None) -> tuple[Finding, ...]:
    from modelrepo.diagnosis import diagnose_box
    from modelrepo_runtime.worker.fitness import diagnose_version, diagnose_worker
    from modelrepo_runtime.worker.settings import load_settings

    settings, _ = load_settings({"repo": call.repo}, os.environ)
    here = (*diagnose_worker(settings), *diagnose_box(settings.cache))
    return here if reference is None else (*here, *diagnose_version(settings, call.repository(), reference))


def _line(finding: Finding) -> str:
    advice = f"; {finding.advice}" if finding.advice else ""
    return f"{finding.standing.value:<4}  {finding.about:<18}  {finding.found}{advice}"


def _exit_code(diagnosis: Diagnosis) -> int:
    if diagnosis.unreachable:
        return exit_codes.UNREACHABLE
    return exit_codes.DONE if diagnosis.ok else exit_codes.FAILED
