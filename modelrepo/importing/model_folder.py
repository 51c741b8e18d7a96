"""A model's folder that is made whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from modelrepo.errors import Conflict, InvalidInput


def make_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make `folder` with what `fill` writes into it, and nothing where it fails.

    Raises:
        Conflict: `folder` is there already and holds something.
        InvalidInput: it cannot be written.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise Conflict(f"cannot make a model in {folder}: it exists already; choose another name, or empty it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise InvalidInput(f"cannot make a model in {folder}: {error.strerror}") from None
    try:
        fill(draft)
        draft.chmod(0o777 & ~_umask())
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
