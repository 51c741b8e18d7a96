"""`modelrepo vendor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelrepo_cli import package_index
from modelrepo_cli.output import counted, plain, size
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.pushing.vendor import VendoredBundle


@verb("repo")
@click.argument("reference", metavar="REF")
@click.option(
    "--extra", metavar="NAME", help="Only this extra of accelerators; each that has wheels for this platform."
)
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="Vendor for this interpreter.")
@package_index.options()
def command(
    call: Call,
    reference: str,
    extra: str | None,
    python: Path | None,
    index_url: str | None,
    extra_index_url: tuple[str, ...],
    find_links: tuple[str, ...],
) -> None:
    """Put the wheels of a version's environment beside it, for the platform of this box.

    Wheels are fetched by the hashes of the lock; what has only a source distribution is built here, once. Workers on
    such a platform then need no index and no compiler. Run twice, it adds nothing.
    """
    from modelrepo.pushing.vendor import VendorOptions

    index = package_index.settings(index_url, extra_index_url, find_links)
    with call.progress() as progress:
        done = call.repository().vendor(reference, VendorOptions(extra, python, index), progress=progress)
    for note in done.notes:
        call.output.note(f"note: {note}")
    name = f"{done.model}@{done.version}"
    text = [_text(name, bundle) for bundle in done.bundles] or [f"{name} installs no package"]
    call.output.show(plain(done), "\n".join([*text, *([f"{size(done.new_bytes)} new"] if done.new_bytes else [])]))


def _text(name: str, bundle: VendoredBundle) -> str:
    extra = f", extra {bundle.extra}" if bundle.extra else ""
    built = f" ({len(bundle.built)} built here)" if bundle.built and bundle.added else ""
    what = f"{counted(len(bundle.wheels), 'wheel')}{built} for {bundle.python}-{bundle.platform}{extra}"
    return f"{name} is vendored: {what}" if bundle.added else f"{name} has these already: {what}"
