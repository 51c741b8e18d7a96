"""A working model folder to start from."""

from __future__ import annotations

import os
import shutil
import string
import sys
import tempfile
from importlib import resources
from pathlib import Path

from modelrepo.errors import Conflict, InvalidInput

FROM_TEMPLATES = {
    "model.yaml": "model.yaml.tmpl",
    "pyproject.toml": "pyproject.toml.tmpl",
    "model.py": "model.py.tmpl",
    ".modelrepoignore": "modelrepoignore.tmpl",
    ".gitignore": "gitignore.tmpl",
}
FROM_CONTRACT = ("model.schema.json", "modelrepo_contract.pyi")


def create(folder: Path, name: str) -> tuple[Path, ...]:
    """Write a model folder, whole or not at all, and return the files.

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
        _fill(draft, name)
        draft.chmod(0o777 & ~_umask())
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return tuple(folder / file for file in (*FROM_TEMPLATES, *FROM_CONTRACT))


def _fill(folder: Path, name: str) -> None:
    templates = resources.files("modelrepo_cli") / "templates"
    values = {"name": name, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for file, template in FROM_TEMPLATES.items():
        text = string.Template((templates / template).read_text(encoding="utf-8")).substitute(values)
        (folder / file).write_text(text, encoding="utf-8")
    contract = resources.files("modelrepo.contract")
    for file in FROM_CONTRACT:
        (folder / file).write_bytes((contract / file).read_bytes())


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
