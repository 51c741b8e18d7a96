"""The lock of an earlier run, so that a second one asks no index anything."""

from __future__ import annotations

import shutil
from pathlib import Path

from modelrepo import canonical
from modelrepo.environments import IndexSettings
from modelrepo.environments.lock import LOCK_FILE, PROJECT_FILE, locked_packages, read_lock, read_project
from modelrepo.errors import ModelRepoError


def restore(folder: Path, store: Path, index: IndexSettings) -> None:
    """Give the model in `folder` the lock kept for the same project and index, if the wheels it names are there."""
    kept = _place(folder, store, index)
    try:
        packages = tuple(locked_packages(read_lock(kept), read_project(folder)))
    except ModelRepoError:
        return
    if all(wheel.is_file() for package in packages for wheel in package.wheels):
        shutil.copyfile(kept, folder / LOCK_FILE)


def keep(folder: Path, store: Path, index: IndexSettings) -> None:
    """Keep the lock of the model in `folder`."""
    kept = _place(folder, store, index)
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft = kept.with_suffix(".new")
    shutil.copyfile(folder / LOCK_FILE, draft)
    draft.replace(kept)


def _place(folder: Path, store: Path, index: IndexSettings) -> Path:
    project = (folder / PROJECT_FILE).read_text(encoding="utf-8")
    return store / f"{canonical.digest([project, index.variables()])[:16]}.lock"
