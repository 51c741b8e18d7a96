"""`modelrepo edit`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from modelrepo.errors import InvalidInput, ModelRepoError
from modelrepo_cli.change import describe
from modelrepo_cli.verbs import Call, verb


@verb("repo")
@click.argument("model")
def command(call: Call, model: str) -> None:
    """Edit a model's active.yaml and record the change.

    Opens $VISUAL, else $EDITOR, else vi. Nothing is written where the file was left as it was.
    """
    promotions = call.repository().promotions
    before = promotions.active_bytes(model)
    after = _edited(before, model)
    if after == before:
        call.output.show({"model": model, "changed": False}, f"{model} was left as it was")
        return
    try:
        entry = promotions.edit(model, after, before)
    except ModelRepoError:
        print(f"your edit is kept in {_kept(after)}", file=sys.stderr)
        raise
    call.output.show({"model": model, **entry.to_json()}, describe(model, entry))


def _edited(before: bytes, model: str) -> bytes:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="modelrepo-edit-") as folder:
        draft = Path(folder) / f"{model.replace('/', '-')}.active.yaml"
        draft.write_bytes(before)
        try:
            done = subprocess.run([*shlex.split(editor), str(draft)], check=False)
        except OSError as error:
            raise InvalidInput(f"cannot start the editor {editor!r}: {error.strerror}; set $EDITOR") from None
        if done.returncode != 0:
            raise InvalidInput(
                f"cannot edit {model}: the editor {editor!r} ended with {done.returncode}; nothing was changed"
            )
        return draft.read_bytes()


def _kept(edited: bytes) -> str:
    with tempfile.NamedTemporaryFile(prefix="active-", suffix=".yaml", delete=False) as file:
        file.write(edited)
        return file.name
