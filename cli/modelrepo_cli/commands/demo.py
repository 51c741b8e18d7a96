"""`modelrepo demo`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelrepo_cli.verbs import Call, verb


@verb()
@click.option("--torch", is_flag=True, help="Draw digits with a PyTorch model; says first what it fetches.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where repository, queue and pictures go; below the cache folder unless given.",
)
def command(call: Call, torch: bool, folder: Path | None) -> None:
    """See the whole story on this box: push, serve, swap, roll back.

    A repository, a worker and five users with steady jobs. A second version is promoted while they run and rolled back;
    then the worker is killed in the middle of a job, which ends on the next one. Accelerators are left alone. Exit 1
    if a job was lost.
    """
    from modelrepo.box_cache.cache_folder import default_cache
    from modelrepo_cli.demo import interrupts, report, scenario, story, telling

    cache = default_cache().absolute()
    chosen = scenario.DIGITS if torch else scenario.HELLO
    tell = telling.narrator(sys.stderr if call.output.as_json else sys.stdout)
    with interrupts.sigterm_as_ctrl_c():
        ending = story.play(chosen, (folder or cache / "demo").absolute(), cache, tell)
    call.output.show(report.document(ending), report.text(ending))
    accounts = ending.accounts
    if accounts.lost or accounts.duplicates_accepted:
        sys.exit(1)
