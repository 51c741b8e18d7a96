"""`modelrepo import`."""  # noqa: N999 - the file is named as its verb

from __future__ import annotations

import shlex
from pathlib import Path

import click

from modelrepo_cli.verbs import Call, verb


@verb()
@click.argument("source", metavar="SOURCE")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="The model's name; the folder's unless given.")
@click.option("--copy", is_flag=True, help="Copy a local SOURCE rather than link to it.")
@click.option("--link", is_flag=True, help="Link to a local SOURCE, as is done unless said otherwise.")
@click.option("--download", is_flag=True, help="Fetch the weights of an hf:// SOURCE now rather than at each push.")
def command(call: Call, source: str, folder: Path, name: str | None, copy: bool, link: bool, download: bool) -> None:
    """Make a model folder from one that others have published.

    SOURCE is a folder in the manner of Hugging Face (transformers, diffusers, or safetensors files), one safetensors
    file, or hf://ORG/NAME@REVISION, whose commit is written down. FOLDER is then yours to edit, run and push.
    """
    from modelrepo.importing.model_import import import_model

    if copy and link:
        raise click.UsageError("--copy and --link are given, and only one of them can be")
    with call.progress():
        imported = import_model(source, folder, name=name, copy=copy, download=download)
    lines = [f"{imported.model} is in {imported.folder}: {imported.what}"]
    if imported.commit is not None:
        lines.append(f"from {imported.source}")
    lines += [f"to do: {note}" for note in imported.notes]
    quoted = shlex.quote(str(imported.folder))
    lines += ["", f"next: modelrepo check {quoted}; modelrepo push {quoted} --lock"]
    call.output.show(imported, "\n".join(lines))
