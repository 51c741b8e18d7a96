"""A working model folder to start from."""

from __future__ import annotations

import string
import sys
from importlib import resources
from pathlib import Path

from modelrepo.importing.model_folder import make_folder

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
    make_folder(folder, lambda draft: _fill(draft, name))
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
